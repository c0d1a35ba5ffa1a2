"""Contents: what is written into a record beside its image. A new one is one class here.

A content lists the images of each split with what belongs to each, and turns one such pair into the
features of a record.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from input_pipeline.errors import plain_message
from input_pipeline.images.check import BrokenImageError, CheckedImage
from input_pipeline.images.label_map import IGNORED, decode_label_map
from input_pipeline.sources.listing import ClassImages, ImageFile
from input_pipeline.sources.mask_folder import MaskedImages
from input_pipeline.sources.records import ImageRecord, image_features
from input_pipeline.targets.mask import MASK, Mask

Pair = tuple[ImageFile, Any]  # an image, and what belongs to it


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

    def features(
        self, image: ImageFile, checked: CheckedImage, beside: Any
    ) -> tuple[Mapping[str, Any], list[int]]:
        """Return the features of a record, and the classes that it shows, from 0.

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

    def features(
        self, image: ImageFile, checked: CheckedImage, beside: tuple[int, ...]
    ) -> tuple[Mapping[str, Any], list[int]]:
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
        return image_features(record), list(beside)


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

    def features(
        self, image: ImageFile, checked: CheckedImage, beside: ImageFile
    ) -> tuple[Mapping[str, Any], list[int]]:
        """Return the features of the image and its mask."""
        with tf.device("CPU"):
            classes, problem = self._decoded(beside, checked)
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
        return features, [int(n) for n in np.unique(classes) if n != IGNORED]

    def _decoded(self, mask: ImageFile, image: CheckedImage) -> tuple[np.ndarray, str]:
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
