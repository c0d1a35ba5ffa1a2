"""Recognise what holds weights by its content, whatever it is called."""

import struct
import zipfile
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from efficientnet.weights.matching import WeightsError
from system.errors import first_line
from system.files import is_remote, open_binary

HDF5 = "an HDF5 file"
KERAS = "a .keras archive"
TORCH = "a PyTorch file"
SAFETENSORS = "a safetensors file"
CHECKPOINT = "a TensorFlow checkpoint"

LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")  # PROTO 2, LONG1 of torch's magic
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
INDEX_MAGIC = bytes.fromhex("57fb808b247547db")  # at the end of a checkpoint's .index file
KERAS_WEIGHTS = "model.weights.h5"  # in a .keras archive
LARGEST_HEADER = 100 * 2**20  # bytes of a safetensors header, as the library has it

# Beginnings of files that are no weights, and what they are.
OTHERS = (
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself"),
    (b"<", "an HTML or XML page; download the file itself"),
)


def identify(where: str | Path) -> str:
    """Return what is at a path: one of the constants above, or words for what is not read.

    Args:
      where: a file, a folder or the prefix of a TensorFlow checkpoint; local or gs://.

    Raises:
      WeightsError: there is nothing, or it cannot be read.
    """
    if is_folder(where) or exists(f"{where}.index"):
        return CHECKPOINT
    if not exists(str(where)):
        raise WeightsError(f"no weights at {where}")
    try:
        with closing(open_binary(str(where))) as file:
            return identify_file(file)
    except OSError as error:
        raise WeightsError(f"cannot read {where}: {first_line(error)}") from error


def identify_file(file: BinaryIO) -> str:
    """Return what an open file is; see `identify`."""
    head = file.read(64)
    file.seek(0, 2)
    size = file.tell()  # TensorFlow's files return nothing from `seek`
    file.seek(max(0, size - len(INDEX_MAGIC)))
    tail = file.read()
    return _name_archive(file) if head.startswith(b"PK") else _name_file(head, tail, size)


def _name_file(head: bytes, tail: bytes, size: int) -> str:
    if head.startswith(HDF5_MAGIC):
        return HDF5
    if head.startswith(LEGACY_MAGIC):
        return TORCH
    if len(head) > 8 and head[8:9] == b"{":
        (header,) = struct.unpack("<Q", head[:8])
        if header <= min(LARGEST_HEADER, size):
            return SAFETENSORS
    if tail == INDEX_MAGIC:
        return "the index of a TensorFlow checkpoint; give its name without .index"
    if head[4:8] == b"TFL3":
        return "a TFLite file, which holds no trainable weights"
    if head.startswith(b"\x80"):
        return "a pickle that torch.save did not write"
    names = (name for start, name in OTHERS if head.lower().startswith(start))
    return next(names, "a file of unknown format" if size else "an empty file")


def _name_archive(file: BinaryIO) -> str:
    try:
        names = zipfile.ZipFile(file).namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return "a damaged zip archive"
    if KERAS_WEIGHTS in names:
        return KERAS
    if any(name.endswith("/data.pkl") for name in names):
        return TORCH
    return "a zip archive without weights"


def read_bytes(file: str | Path) -> bytes:
    """Return the content of a file, local or gs://.

    Raises:
      WeightsError: it cannot be read.
    """
    try:
        with closing(open_binary(str(file))) as opened:
            return opened.read()
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {first_line(error)}") from error


def exists(path: str) -> bool:
    """Return whether there is a file or folder, local or gs://."""
    if not is_remote(path):
        return Path(path).exists()
    import tensorflow as tf  # only for remote files

    return tf.io.gfile.exists(path)


def is_folder(path: str | Path) -> bool:
    """Return whether there is a folder, local or gs://."""
    if not is_remote(str(path)):
        return Path(path).is_dir()
    import tensorflow as tf  # only for remote files

    return tf.io.gfile.isdir(str(path))
