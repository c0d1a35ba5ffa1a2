"""Files, local or remote (`gs://...`): read within a limit, hashed, written atomically.

Remote ones go through `tf.io.gfile`, imported only then: reading an experiment from a local file
needs no TensorFlow.
"""

import contextlib
import hashlib
import os
import posixpath
import uuid
from collections.abc import Iterator
from typing import BinaryIO, TypedDict

from system.errors import UserError, first_line, is_out_of_memory

_BLOCK_BYTES = 2**24

# TensorFlow's errors about files and buckets, by name: TensorFlow may not be imported.
_FILE_ERRORS = {
    "FailedPreconditionError",
    "NotFoundError",
    "PermissionDeniedError",
    "UnauthenticatedError",
    "UnavailableError",
}


class Fingerprint(TypedDict):
    """Size and hash of a file's content."""

    bytes: int
    sha256: str  # hexadecimal


def is_remote(path: str) -> bool:
    """Return whether `path` names a file system (`gs://bucket/file`) rather than a local file."""
    return "://" in path


def beside(path: str, name: str) -> str:
    """Resolve `name` relative to the folder of `path`, unless `name` is absolute."""
    if is_remote(name):
        return name
    if os.path.isabs(name) or not is_remote(path):
        return os.path.normpath(os.path.join(os.path.dirname(path), name))
    scheme, _, place = path.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(posixpath.dirname(place), name))}"


def open_binary(path: str) -> BinaryIO:
    """Open a local file or remote object for reading bytes."""
    if not is_remote(path):
        return open(path, "rb")
    import tensorflow as tf

    return tf.io.gfile.GFile(path, "rb")


def read_text(path: str, *, limit: int) -> str:
    """Return the UTF-8 text of a file.

    Raises:
      OSError: the file can't be read.
      ValueError: it has more than `limit` bytes, or is not UTF-8 (UnicodeDecodeError).
    """
    with _oserrors_only(), contextlib.closing(open_binary(path)) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"more than {limit} bytes")
    return content.decode("utf-8")


def fingerprint(path: str) -> Fingerprint:
    """Return size and SHA-256 of a file, read in blocks.

    Raises:
      OSError: the file can't be read.
    """
    digest, size = hashlib.sha256(), 0
    with _oserrors_only(), contextlib.closing(open_binary(path)) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


def write_text(path: str, text: str) -> None:
    """Write `text` as UTF-8 atomically; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str, content: bytes) -> None:
    """Write a file atomically: `path` holds the old content or the new one, never a part of it.

    Missing folders are created.

    Raises:
      OSError: the file can't be written; what was there before is untouched.
    """
    with _oserrors_only(), replacing(path) as temporary:
        if is_remote(path):
            import tensorflow as tf

            with tf.io.gfile.GFile(temporary, "wb") as file:
                file.write(content)
        else:
            with open(temporary, "wb") as file:
                file.write(content)


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Yield the name of a temporary file that replaces `path` at the end of the block.

    For writers that need a file name. The temporary file is in the folder of `path`, which is
    created if missing. It shares no part of its name with `path`: readers that match `train-*` or
    `*tfevents*` must not find it. When the block raises, it is removed and `path` is unchanged. A
    local file is synced to disk (fsync) before it is renamed.
    """
    temporary = beside(path, f"{uuid.uuid4().hex[:16]}.tmp")
    if is_remote(path):
        yield from _replacing_remote(path, temporary)
    else:
        yield from _replacing_local(path, temporary)


def replace_synced(temporary: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Sync a local file to disk (fsync), then rename it to `path` atomically."""
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)


def _replacing_local(path: str, temporary: str) -> Iterator[str]:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    try:
        yield temporary
        replace_synced(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        raise


def _replacing_remote(path: str, temporary: str) -> Iterator[str]:
    import tensorflow as tf

    folder = posixpath.dirname(path)
    if is_remote(folder):  # not "ram:", which would be a local folder
        tf.io.gfile.makedirs(folder)
    try:
        yield temporary
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except BaseException:
        with contextlib.suppress(tf.errors.OpError):
            tf.io.gfile.remove(temporary)
        raise


@contextlib.contextmanager
def file_errors(advice: str = "") -> Iterator[None]:
    """Convert file and bucket errors, Python's and TensorFlow's, to a UserError of one line.

    Args:
      advice: what to do, appended to the system's message.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not (isinstance(error, OSError) or _is_file_error(error)):
            raise
        raise UserError("; ".join(filter(None, (first_line(error), advice)))) from error


def _is_file_error(error: Exception) -> bool:
    if not type(error).__module__.startswith("tensorflow"):
        return False
    name, unknown_scheme = type(error).__name__, "File system scheme" in str(error)
    full = name == "ResourceExhaustedError" and not is_out_of_memory(error)  # the disk
    return name in _FILE_ERRORS or unknown_scheme or full


@contextlib.contextmanager
def _oserrors_only() -> Iterator[None]:
    """Convert TensorFlow's file errors, which derive from Exception, to OSErrors."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        if not type(error).__module__.startswith("tensorflow"):
            raise
        missing = type(error).__name__ == "NotFoundError"
        reason = getattr(error, "message", "") or type(error).__name__
        raise (FileNotFoundError if missing else OSError)(reason) from error
