"""Images and masks in folders: files of one name, or the folders of PASCAL VOC."""

import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo
from input_pipeline.sources.listing import (
    DEFAULT_VALIDATION_FRACTION,
    FALLBACK_SPLIT,
    SPLIT_FOLDERS,
    ImageFile,
    list_images,
    parse_fraction,
)
from input_pipeline.sources.source import IndexedExamples, Source, SourceRequest
from input_pipeline.targets.mask import MASK
from input_pipeline.targets.target import Features

IMAGES, MASKS, CLASSES_FILE = "images", "masks", "classes.txt"
ASSUMED_BYTES = 110_000  # of an image with its mask; reading each size would take long
FILES_NAMED = 3  # in a message

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
VOC_SPLITS = {
    "train": ("trainaug", "train"),
    "validation": ("val",),
}  # the first list that is there


@dataclass(frozen=True)
class MaskedImages:
    """The images of each split with their masks.

    Attributes:
      class_names: names of the classes; None if they are not known.
      splits: pairs of image and mask.
      notes: lines for the user.
    """

    class_names: tuple[str, ...] | None
    splits: Mapping[str, tuple[tuple[ImageFile, ImageFile], ...]]
    notes: tuple[str, ...] = ()


def open_mask_folder(request: SourceRequest) -> Source:
    """Open the images and masks under `request.data_dir`; "mask_folder:0.2" holds out 20 %.

    Raises:
      DatasetError: no data_dir, an image without a mask, or the number of classes is not known.
    """
    data_dir = _data_dir(request, "mask_folder", f"a folder with {IMAGES}/ and {MASKS}/")
    fraction = parse_fraction("mask_folder", request.argument)
    return _source(request, data_dir, list_masks(data_dir, fraction))


def open_voc(request: SourceRequest) -> Source:
    """Open PASCAL VOC's segmentation set, such as VOCdevkit/VOC2012.

    Raises:
      DatasetError: no data_dir, a missing list, or an image without a mask.
    """
    data_dir = _data_dir(request, "voc", "a folder with JPEGImages/ and SegmentationClass/")
    return _source(request, data_dir, list_voc(data_dir))


def list_masks(path: str, validation_fraction: float = DEFAULT_VALIDATION_FRACTION) -> MaskedImages:
    """Pair the images in PATH/images with PATH/masks, or those of each split below PATH/train, PATH/val.

    A mask has the name of its image, whatever its ending. classes.txt has the name of a class on each line.
    Evaluation images are those of val/, validation/ or, without these, test/; else a share of the others,
    drawn with a fixed seed.

    Raises:
      DatasetError: there are no images, an image has no mask, or the fraction is out of range.
    """
    if not 0.0 <= validation_fraction < 1.0:
        raise DatasetError(f"invalid validation fraction {validation_fraction:g}; expected [0, 1)")
    folders = _split_folders(path)
    splits = {split: _pairs(folder) for split, folder in folders.items()}
    notes = (
        [f"evaluation images: {os.path.basename(folders['validation'])}/"]
        if "validation" in splits
        else []
    )
    if "validation" not in splits:
        splits = _hold_out(splits["train"], validation_fraction)
        notes = [f"evaluation images: {validation_fraction:.4g} of the training images"]
    return MaskedImages(_class_names(path), splits, tuple(notes))


def list_voc(path: str) -> MaskedImages:
    """Pair the images that ImageSets/Segmentation lists with their masks.

    The training images are those of trainaug.txt (with SegmentationClassAug) if it is there, else train.txt.
    """
    splits, notes = {}, []
    for split, names in VOC_SPLITS.items():
        lists = [posixpath.join(path, "ImageSets", "Segmentation", f"{name}.txt") for name in names]
        here = next((file for file in lists if tf.io.gfile.exists(file)), None)
        if here is None:
            raise DatasetError(
                f"{lists[-1]}: no such file; data_dir must be a folder such as VOC2012"
            )
        with tf.io.gfile.GFile(here) as file:
            numbers = file.read().split()
        augmented = posixpath.join(path, "SegmentationClassAug")
        masks = (
            augmented if tf.io.gfile.isdir(augmented) else posixpath.join(path, "SegmentationClass")
        )
        images = posixpath.join(path, "JPEGImages")
        splits[split] = _pair_masks(
            {number: _file(images, f"{number}.jpg") for number in numbers},
            {name.removesuffix(".png"): _file(masks, name) for name in _names(masks)},
            masks,
        )
        notes.append(f"{split} images: {os.path.basename(here)} with {os.path.basename(masks)}/")
    return MaskedImages(VOC_CLASSES, splits, tuple(notes))


def read_masked(name: str, images: MaskedImages, num_classes: int) -> Source:
    """Return the source of listed images and masks."""
    info = DatasetInfo(
        name=name,
        num_classes=num_classes,
        class_names=images.class_names,
        splits={split: SplitInfo(len(pairs)) for split, pairs in images.splits.items()},
        label_offset=0,
    )
    splits = {split: _examples(pairs) for split, pairs in images.splits.items()}
    return Source(info, splits, images.notes)


def _source(request: SourceRequest, data_dir: str, images: MaskedImages) -> Source:
    if MASK not in request.target.features:
        raise DatasetError(
            f"{data_dir}: holds masks; set task.name=segmentation, or another source"
        )
    known = len(images.class_names) if images.class_names else request.num_classes
    if known is None:
        raise DatasetError(
            f"{data_dir}: the number of classes is not known; set model.num_classes, or write the names of"
            f" the classes into {CLASSES_FILE}, one on each line"
        )
    return read_masked(os.path.basename(data_dir.rstrip("/")), images, known)


def _data_dir(request: SourceRequest, source: str, expected: str) -> str:
    if request.data_dir is None:
        raise DatasetError(f"data source {source} needs data_dir: {expected}")
    if not tf.io.gfile.isdir(request.data_dir):
        raise DatasetError(f"{request.data_dir}: no such folder; expected {expected}")
    return request.data_dir


def _split_folders(path: str) -> dict[str, str]:
    """Return the folder of each split; only "train" where there are no folders of splits."""
    there = {name for name in _names(path) if tf.io.gfile.isdir(posixpath.join(path, name))}
    if IMAGES in there:
        return {"train": path}
    found = {
        split: posixpath.join(path, name) for name, split in SPLIT_FOLDERS.items() if name in there
    }
    if "train" not in found:
        raise DatasetError(
            f"{path}: neither {IMAGES}/ nor train/{IMAGES}/ in it; expected images and masks of the same"
            f" names in {IMAGES}/ and {MASKS}/"
        )
    if "validation" not in found and FALLBACK_SPLIT in there:
        found["validation"] = posixpath.join(path, FALLBACK_SPLIT)
    return found


def _pairs(folder: str) -> tuple[tuple[ImageFile, ImageFile], ...]:
    images, masks = (posixpath.join(folder, name) for name in (IMAGES, MASKS))
    if not tf.io.gfile.isdir(masks):
        raise DatasetError(f"{masks}: no such folder; expected a mask for each file of {IMAGES}/")
    return _pair_masks(
        {_stem(image.name): image for image in list_images(images)},
        {_stem(mask.name): mask for mask in list_images(masks)},
        masks,
    )


def _pair_masks(
    images: Mapping[str, ImageFile], masks: Mapping[str, ImageFile], where: str
) -> tuple[tuple[ImageFile, ImageFile], ...]:
    missing = [image.name for stem, image in images.items() if stem not in masks]
    if missing:
        some = ", ".join(missing[:FILES_NAMED])
        more = f" and {len(missing) - FILES_NAMED} more" if len(missing) > FILES_NAMED else ""
        raise DatasetError(
            f"{where}: {len(missing)} of {len(images)} images have no mask here: {some}{more}; expected PNG"
            " files of the same names"
        )
    return tuple((image, masks[stem]) for stem, image in images.items())


def _hold_out(
    train: Sequence[tuple[ImageFile, ImageFile]], fraction: float
) -> dict[str, tuple[tuple[ImageFile, ImageFile], ...]]:
    """Split at random, with a fixed seed; each part in the order of the names."""
    order = np.random.default_rng(0).permutation(len(train))
    held_out = set(order[: round(fraction * len(train))].tolist())
    return {
        "train": tuple(pair for n, pair in enumerate(train) if n not in held_out),
        "validation": tuple(pair for n, pair in enumerate(train) if n in held_out),
    }


def _class_names(path: str) -> tuple[str, ...] | None:
    given = posixpath.join(path, CLASSES_FILE)
    if not tf.io.gfile.exists(given):
        return None
    with tf.io.gfile.GFile(given) as file:
        names = tuple(line.strip() for line in file.read().splitlines() if line.strip())
    if not names or len(set(names)) < len(names):
        raise DatasetError(f"{given}: {len(names)} lines; expected a different class on each")
    return names


def _examples(pairs: Sequence[tuple[ImageFile, ImageFile]]) -> IndexedExamples:
    paths = tf.constant([image.path for image, _ in pairs], tf.string)
    masks = tf.constant([mask.path for _, mask in pairs], tf.string)

    def read(index: tf.Tensor) -> tuple[tf.Tensor, Features]:
        return tf.io.read_file(paths[index]), {MASK: tf.io.read_file(masks[index])}

    return IndexedExamples(
        num_examples=len(pairs),
        num_bytes=len(pairs) * ASSUMED_BYTES,
        read=read,
        file=lambda index: tf.gather(paths, index),
        image_files=True,
    )


def _names(folder: str) -> Iterable[str]:
    if not tf.io.gfile.isdir(folder):
        raise DatasetError(f"{folder}: no such folder")
    return sorted(name.rstrip("/") for name in tf.io.gfile.listdir(folder))


def _file(folder: str, name: str) -> ImageFile:
    return ImageFile(name, posixpath.join(folder, name))


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
