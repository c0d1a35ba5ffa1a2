"""Contents: what is written into a record beside its image. A new one is one class here.

A content lists the images of each split with what belongs to each, and turns one such pair into the
features of a record.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from input_pipeline.errors import plain_message
from input_pipeline.images.check import BrokenImageError, CheckedImage
from input_pipeline.images.label_map import IGNORED, decode_label_map
from input_pipeline.sources.boxed import LABEL_OFFSET, BoxedImages, Objects
from input_pipeline.sources.listing import ClassImages, ImageFile
from input_pipeline.sources.mask_folder import MaskedImages
from input_pipeline.sources.records import ImageRecord, image_features
from input_pipeline.targets.boxes import AREA, BOX_LABELS, CROWD, ENDS, ROUNDING, Boxes
from input_pipeline.targets.mask import MASK, Mask

Pair = tuple[ImageFile, Any]  # an image, and what belongs to it


class Written(NamedTuple):
    """What a record holds.

    Attributes:
      features: the values by feature.
      classes: those that the image shows, from 0.
      dropped: what was left out of the record, and why: a text each.
    """

    features: Mapping[str, Any]
    classes: list[int]
    dropped: tuple[str, ...] = ()


class Content(Protocol):
    """What records hold."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in their order."""

    @property
    def label_offset(self) -> int:
        """The number of the first class in records."""

    @property
    def splits(self) -> Mapping[str, Sequence[Pair]]:
        """The pairs of each split, in order."""

    def digest(self, beside: Any) -> str:
        """Return a text that differs where what is written differs."""

    def features(self, image: ImageFile, checked: CheckedImage, beside: Any) -> Written:
        """Return what a record holds.

        Raises:
          BrokenImageError: what belongs to the image cannot be used.
        """


@dataclass(frozen=True)
class ClassContent:
    """The classes of whole images, as ImageNet's records have them."""

    images: ClassImages
    label_offset = 1

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the classes."""
        return self.images.class_names

    @property
    def splits(self) -> Mapping[str, Sequence[Pair]]:
        """The images of each split with their classes."""
        return self.images.splits

    def digest(self, beside: tuple[int, ...]) -> str:
        """Return the classes."""
        return ",".join(map(str, beside))

    def features(self, image: ImageFile, checked: CheckedImage, beside: tuple[int, ...]) -> Written:
        """Return ImageNet's features."""
        record = ImageRecord(
            encoded=checked.encoded,
            label=tuple(label + self.label_offset for label in beside),
            height=checked.height,
            width=checked.width,
            image_format=checked.image_format,
            file_name=os.path.basename(image.name),
            synset=tuple(self.class_names[label] for label in beside),
        )
        return Written(image_features(record), list(beside))


@dataclass(frozen=True)
class MaskContent:
    """A mask for each image, as DeepLab's records have them: a grey PNG of classes, 255 ignored.

    Attributes:
      images: images and masks.
      class_names: in the order of the classes.
      target: how values of the masks are classes.
    """

    images: MaskedImages
    class_names: tuple[str, ...]
    target: Mask
    label_offset = 0

    @property
    def splits(self) -> Mapping[str, Sequence[Pair]]:
        """The images of each split with their masks."""
        return self.images.splits

    def digest(self, beside: ImageFile) -> str:
        """Return the mask's name and how it is read."""
        return f"{beside.name},{beside.size},{self.target.first_value},{self.target.ignore_value}"

    def features(self, image: ImageFile, checked: CheckedImage, beside: ImageFile) -> Written:
        """Return the features of the image and its mask."""
        with tf.device("CPU"):
            classes, problem = self._decode_mask(beside, checked)
            if problem:
                raise BrokenImageError(f"{beside.name}: {problem}")
            mask = tf.io.encode_png(classes[..., np.newaxis]).numpy()
        features = {
            "image/encoded": checked.encoded,
            "image/format": checked.image_format,
            "image/filename": os.path.basename(image.name),
            "image/height": checked.height,
            "image/width": checked.width,
            MASK: mask,
            "image/segmentation/class/format": "png",
        }
        return Written(features, [int(n) for n in np.unique(classes) if n != IGNORED])

    def _decode_mask(self, mask: ImageFile, image: CheckedImage) -> tuple[np.ndarray, str]:
        try:
            values, problem = decode_label_map(tf.constant(mask.read()))
        except tf.errors.OpError as error:
            return np.zeros([0, 0], np.uint8), plain_message(error.message)
        if problem != "":
            return values.numpy(), problem.numpy().decode()
        size = (image.height, image.width)
        problem = self.target.problem_of(
            values, tf.constant(size), tf.constant(len(self.class_names))
        )
        classes, _ = self.target.classes(values, tf.constant(len(self.class_names)))
        return classes.numpy(), problem.numpy().decode()


@dataclass(frozen=True)
class BoxContent:
    """Boxes of objects in the keys of the published conversion of COCO.

    Boxes of no area, or that reach out of the image, are dropped, as there; boxes that reach less than a
    pixel out of it are cut off instead.

    Attributes:
      images: images and objects.
      target: the largest number of boxes of an image.
    """

    images: BoxedImages
    target: Boxes
    label_offset = LABEL_OFFSET

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the classes."""
        return self.images.class_names

    @property
    def splits(self) -> Mapping[str, Sequence[Pair]]:
        """The images of each split with their objects."""
        return self.images.splits

    def digest(self, beside: Objects) -> str:
        """Return a hash of the objects."""
        columns = (beside.boxes, beside.classes, beside.crowd, beside.area)
        parts = [b"" if column is None else column.tobytes() for column in columns]
        text = f"{self.target.max_boxes},{beside.size},{beside.source_id},"
        return hashlib.sha256(text.encode() + b",".join(parts)).hexdigest()

    def features(self, image: ImageFile, checked: CheckedImage, beside: Objects) -> Written:
        """Return the features of the image and of the objects that are kept."""
        size = (checked.height, checked.width)
        if beside.size is not None and tuple(beside.size) != size:
            said = " x ".join(f"{side:g}" for side in beside.size)
            raise BrokenImageError(f"annotated as {said}, but it is {size[0]} x {size[1]} pixels")
        sides = np.tile(np.array(size, np.float64), 2)
        pixels = beside.boxes * sides
        faults = [_fault_of(box, sides) for box in pixels]
        keep = np.array([not fault for fault in faults], bool)
        if keep.sum() > self.target.max_boxes:
            raise BrokenImageError(
                f"{keep.sum()} boxes, more than max_boxes={self.target.max_boxes}; set"
                f" --target=boxes:max_boxes={keep.sum()} or more, and task.max_boxes"
            )
        boxes, classes = np.clip(pixels[keep], 0, sides), beside.classes[keep]
        own = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        features = {
            "image/encoded": checked.encoded,
            "image/format": checked.image_format,
            "image/filename": os.path.basename(image.name),
            "image/source_id": beside.source_id or os.path.basename(image.name),
            "image/key/sha256": hashlib.sha256(checked.encoded).hexdigest(),
            "image/height": checked.height,
            "image/width": checked.width,
            **dict(zip(ENDS, (boxes / sides).astype(np.float32).T, strict=True)),
            BOX_LABELS: classes + LABEL_OFFSET,
            "image/object/class/text": [self.class_names[label] for label in classes],
            CROWD: beside.crowd[keep],
            AREA: own if beside.area is None else beside.area[keep],
        }
        dropped = [
            f"box {n} of {len(faults)}: {fault}" for n, fault in enumerate(faults, 1) if fault
        ]
        return Written(features, sorted({int(label) for label in classes}), tuple(dropped))


def _fault_of(box: np.ndarray, sides: np.ndarray) -> str:
    """Return why a box, [ymin, xmin, ymax, xmax] in pixels, cannot be written; "" if it can."""
    numbers = ", ".join(f"{end:.4g}" for end in box)
    if not np.isfinite(box).all():
        return f"not finite ({numbers})"
    if (box[2:] < box[:2]).any():
        return f"negative size: ymin, xmin, ymax, xmax = {numbers} pixels"
    if (box < -ROUNDING).any() or (box > sides + ROUNDING).any():
        size = f"{sides[0]:g} x {sides[1]:g}"
        return f"outside the image: ymin, xmin, ymax, xmax = {numbers} pixels of {size}"
    inside = np.clip(box, 0, sides)
    if (inside[2:] <= inside[:2]).any():
        return f"no area: ymin, xmin, ymax, xmax = {numbers} pixels"
    return ""
