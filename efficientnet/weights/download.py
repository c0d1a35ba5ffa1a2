"""Download files into a cache, resuming what was cut off, and check them."""

import contextlib
import fcntl
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from efficientnet.weights.matching import WeightsError
from system.errors import first_line
from system.files import fingerprint, replace_synced

BLOCK = 2**20  # bytes
TIMEOUT = 60.0  # seconds without an answer


def cache_folder() -> Path:
    """Return the folder of downloaded weights: $XDG_CACHE_HOME/efficientnet, or ~/.cache/efficientnet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "efficientnet"


def download(url: str, target: Path, sha256: str | None) -> Path:
    """Return a file of the cache, downloaded with a progress bar if it is not there.

    A download that was cut off goes on where it ended. Processes that want the same file wait for the
    first of them.

    Args:
      url: of the file.
      target: where the cache has it.
      sha256: SHA-256 of the file, or its first digits, in hexadecimal; None checks the length alone.

    Raises:
      WeightsError: the file cannot be downloaded, or is not the one that is expected.
    """
    if not target.exists():
        try:
            with _exclusive(target) as partial:
                if not target.exists():
                    _fetch(url, partial)
                    _check(partial, sha256, url)
                    replace_synced(partial, target)
        except (OSError, ValueError) as error:  # URLError is an OSError, as is a timeout
            raise WeightsError(
                f"cannot download {url} ({first_line(error)}). Fix: put the file at {target}"
            ) from error
    else:
        _check(target, sha256, url)
    return target


@contextlib.contextmanager
def _exclusive(target: Path) -> Iterator[Path]:
    """Yield the name of the unfinished file, for this process alone."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{target}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield target.with_name(f"{target.name}.part")


def _fetch(url: str, partial: Path) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416:  # nothing is left: the unfinished file is whole, or of another file
            raise
        return
    with response:
        if done and response.status != 206:  # the server starts again
            done = 0
        total = done + int(response.headers.get("Content-Length") or 0)
        _copy(response, partial, done, total)


def _copy(response: Any, partial: Path, done: int, total: int) -> None:
    print(f"downloading {response.url}")
    progress = keras.utils.Progbar(total or None, unit_name="byte")
    with open(partial, "ab" if done else "wb") as file:
        while block := response.read(BLOCK):
            file.write(block)
            done += len(block)
            progress.update(done, finalize=done == total)
    if total and done < total:
        raise OSError(f"it ended after {done:,} of {total:,} bytes; the same command resumes")


def _check(file: Path, sha256: str | None, url: str) -> None:
    if sha256 is None:
        return
    found = fingerprint(str(file))["sha256"]
    if not found.startswith(sha256):
        partial = file.suffix == ".part"
        if partial:
            file.unlink()
        advice = "run the same command again" if partial else f"delete {file}, and run it again"
        raise WeightsError(
            f"{file} is not {url}: its SHA-256 begins with {found[: len(sha256)]}, expected {sha256}. Fix: "
            f"{advice}"
        )
