"""List the images in a folder or tar, with the split and class that their paths define.

Nothing is ever extracted: an image is read in place in its tar, so a tar cannot write anywhere, and
the tars of ImageNet need no second copy on the disk.
"""

import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DatasetError
from system.files import open_binary

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation"}
FALLBACK_SPLIT = "test"  # evaluated where there is no folder of validation images
REMEDY = {
    "train": "put the images of each class into one",
    "validation": "put the images of each class into one, or see --validation_labels of "
    "input_pipeline.prepare",
}
DEFAULT_VALIDATION_FRACTION = 0.1


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image: a whole file, or `size` bytes of a tar from `offset` on."""

    name: str  # relative, with /, from the folder or tar that was listed
    path: str
    offset: int = 0
    size: int = -1  # -1: to the end of the file

    def read(self) -> bytes:
        """Read the encoded image."""
        with closing(open_binary(self.path)) as file:
            file.seek(self.offset)
            return file.read(self.size)


Labelled = tuple[ImageFile, tuple[int, ...]]  # an image and its classes, from 0


@dataclass(frozen=True)
class ClassImages:
    """Images of each split with their classes.

    `notes` are lines for the user: the evaluation images, and what is not used.
    """

    class_names: tuple[str, ...]
    splits: Mapping[str, tuple[Labelled, ...]]
    notes: tuple[str, ...] = ()


def list_images(path: str) -> list[ImageFile]:
    """List all images in a folder (local or gs://) or an uncompressed tar, sorted by name.

    Tars within a tar count as folders named like them: ILSVRC2012_img_train.tar holds n01440764.tar
    and so on.

    Raises:
      DatasetError: neither a folder nor such a tar, or no image in it.
    """
    if tf.io.gfile.isdir(path):
        images = list(_in_folder(path))
    elif path.endswith(".tar") and tf.io.gfile.exists(path):
        images = list(_in_tar(path))
    elif tf.io.gfile.exists(path):
        raise DatasetError(
            f"{path}: neither a folder nor a .tar; decompress a compressed tar first"
        )
    else:
        raise DatasetError(f"{path}: no such folder or tar")
    if not images:
        raise DatasetError(f"{path}: holds no images; expected {', '.join(EXTENSIONS)}")
    return sorted(images, key=lambda image: image.name)


def list_classes(
    path: str,
    validation_fraction: float = DEFAULT_VALIDATION_FRACTION,
    *,
    train_only: bool = False,
) -> ClassImages:
    """List the images in a folder or tar and arrange them, with a note for each empty class folder.

    See `list_images` and `arrange`, also for the errors.
    """
    images = list_images(path)
    classes = arrange(images, path, validation_fraction, train_only=train_only)
    return replace(classes, notes=(*classes.notes, *_empty_folders(path, images, classes)))


def arrange(
    images: Sequence[ImageFile],
    where: str,
    validation_fraction: float = DEFAULT_VALIDATION_FRACTION,
    *,
    train_only: bool = False,
) -> ClassImages:
    """Assign split and class to every image by its folders: train/CLASS/.., val/CLASS/.. or CLASS/...

    If there is neither val/ nor validation/, test/ is the evaluation split, provided that its images
    are in folders of train's classes.

    Args:
      images: result of list_images.
      where: the listed folder or tar, for messages.
      validation_fraction: in [0, 1); fraction of each class to hold out, rounded, when there is no
        folder of evaluation images.
      train_only: ignore evaluation images and hold none out, because they come from elsewhere.

    Raises:
      DatasetError: an image without class folder, or a class that only validation has.
    """
    if not 0.0 <= validation_fraction < 1.0:
        raise DatasetError(f"invalid validation fraction {validation_fraction:g}; expected [0, 1)")
    parts = [image.name.split("/") for image in images]
    has_splits = _has_splits(parts)
    split_of = {"train": "train"} if train_only else _split_folders(parts)
    found: dict[str, list[tuple[ImageFile, str]]] = {"train": []}
    unused: Counter[str] = Counter()
    for image, folders in zip(images, parts, strict=True):
        split = "train"
        if has_splits:
            top = folders.pop(0) if len(folders) > 1 else "."
            if top not in split_of:
                unused[top] += 1
                continue
            split = split_of[top]
        if len(folders) < 2:
            raise DatasetError(f"{where}/{image.name}: not in a class folder; {REMEDY[split]}")
        found.setdefault(split, []).append((image, folders[0]))
    class_names = tuple(sorted({name for _, name in found["train"]}))
    number = {name: n for n, name in enumerate(class_names)}
    for image, name in found.get("validation", ()):
        if name not in number:
            raise DatasetError(f"{where}/{image.name}: no class {name!r} in the training images")
    labelled: dict[str, tuple[Labelled, ...]] = {
        split: tuple((image, (number[name],)) for image, name in members)
        for split, members in found.items()
    }
    notes = []
    if "validation" not in labelled and not train_only:
        labelled = _hold_out(labelled["train"], validation_fraction)
        notes = [
            f"evaluation images: {validation_fraction:.4g} of each class of the training images"
        ]
    elif has_splits and FALLBACK_SPLIT in split_of:
        notes = [f"evaluation images: {FALLBACK_SPLIT}/, because there is no val/ or validation/"]
    if unused:
        counts = (f"{top}/ (images: {count:,})" for top, count in sorted(unused.items()))
        notes.append(f"not used: {', '.join(counts)}")
    return ClassImages(class_names, labelled, tuple(notes))


def parse_fraction(source: str, argument: str) -> float:
    """Parse what follows the colon in "image_folder:0.1": the fraction of images to validate on."""
    try:
        return float(argument) if argument else DEFAULT_VALIDATION_FRACTION
    except ValueError:
        raise DatasetError(
            f"data source {source}:{argument}: invalid fraction {argument!r}; expected the fraction "
            f"of the images to validate on, as in {source}:0.1"
        ) from None


def _has_splits(parts: Sequence[Sequence[str]]) -> bool:
    """Return whether the class folders are in train/; `parts` are the folders and the name of every image."""
    return any(folders[0] == "train" and len(folders) > 2 for folders in parts)


def _empty_folders(path: str, images: Sequence[ImageFile], classes: ClassImages) -> Iterator[str]:
    """Yield a note for each folder that would be a class if an image were in it."""
    if not tf.io.gfile.isdir(path):
        return
    parts = [image.name.split("/") for image in images]
    below = "train/" if _has_splits(parts) else ""
    used = {*classes.class_names} if below else {folders[0] for folders in parts}
    root = os.path.join(path, below)
    for name in sorted(each.rstrip("/") for each in tf.io.gfile.listdir(root)):
        hidden = not name or name.startswith(".")
        if not hidden and name not in used and tf.io.gfile.isdir(os.path.join(root, name)):
            yield f"{below}{name}/: no images; not a class"


def _split_folders(parts: Sequence[Sequence[str]]) -> Mapping[str, str]:
    """Map top folders to splits; `parts` are the folders and the name of every image.

    A test/ without the class folders of train/ has no labels, so it is not evaluated.
    """
    tops = {folders[0] for folders in parts}
    if tops & (SPLIT_FOLDERS.keys() - {"train"}):
        return SPLIT_FOLDERS
    train, test = (
        {folders[1] for folders in parts if folders[0] == top and len(folders) > 2}
        for top in ("train", FALLBACK_SPLIT)
    )
    return {**SPLIT_FOLDERS, FALLBACK_SPLIT: "validation"} if train & test else SPLIT_FOLDERS


def _in_folder(root: str) -> Iterator[ImageFile]:
    for directory, _, names in tf.io.gfile.walk(root):
        below = os.path.relpath(directory, root) if "://" not in root else directory[len(root) :]
        below = "" if below == "." else below.strip("/") + "/"
        for name in names:
            if _is_image(below + name):
                yield ImageFile(below + name, os.path.join(directory, name))


def _in_tar(path: str) -> Iterator[ImageFile]:
    with closing(open_binary(path)) as file:
        for name, offset, size in _members(file, path):
            if not name.endswith(".tar"):
                if _is_image(name):
                    yield ImageFile(name, path, offset, size)
                continue
            inner = _Window(file, offset, size)
            for below, start, length in _members(inner, f"{path}:{name}"):  # type: ignore[arg-type]
                full_name = f"{name.removesuffix('.tar')}/{below}"
                if _is_image(full_name):
                    yield ImageFile(full_name, path, offset + start, length)


def _members(file: BinaryIO, where: str) -> list[tuple[str, int, int]]:
    """Return name, offset and size of the regular files in a tar."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            return [
                (os.path.normpath(member.name).lstrip("/"), member.offset_data, member.size)
                for member in tar
                if member.isfile() and not member.issparse()
            ]
    except tarfile.TarError as error:
        raise DatasetError(f"{where}: not a readable, uncompressed tar ({error})") from None


class _Window:
    """A part of a file with the methods that tarfile needs."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size = file, offset, size
        self._position = 0

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + position
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        rest = max(0, self._size - self._position)
        self._file.seek(self._offset + self._position)
        content = self._file.read(rest if size < 0 else min(size, rest))
        self._position += len(content)
        return content


def _is_image(name: str) -> bool:
    hidden = any(part.startswith(".") for part in name.split("/"))
    return name.lower().endswith(EXTENSIONS) and not hidden


def _hold_out(train: tuple[Labelled, ...], fraction: float) -> dict[str, tuple[Labelled, ...]]:
    """Split every class at random, with a fixed seed."""
    of_class: dict[int, list[int]] = {}
    for place, (_, (label,)) in enumerate(train):
        of_class.setdefault(label, []).append(place)
    held_out: set[int] = set()
    for label, places in of_class.items():
        order = np.random.default_rng(label).permutation(places)
        held_out.update(order[: round(fraction * len(places))].tolist())
    return {
        "train": tuple(image for place, image in enumerate(train) if place not in held_out),
        "validation": tuple(image for place, image in enumerate(train) if place in held_out),
    }
