"""Views: everything that happens to an image between its bytes and the network's input."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import tensorflow as tf

from input_pipeline.augment import mixing
from input_pipeline.augment.policies import Policy
from input_pipeline.images.crop import Resize
from input_pipeline.images.framing import (
    CenterCrop,
    Framed,
    Framing,
    RandomCrop,
    frame_eval,
    frame_train,
    pad_to,
)
from input_pipeline.images.label_map import IGNORED
from input_pipeline.images.placement import Placement, Size, height_width


class Seen(NamedTuple):
    """How an image became the network's input, for targets that name places in it.

    Attributes:
      placement: of the image in the input.
      move: moves a label map, uint8 [h, w], of the placement's valid part as augmentation moves the pixels
        there; what comes from outside is IGNORED.
      move_boxes: moves boxes, float32 [n, 4] in pixels of the input and inside the valid part, in the same
        way; a box that leaves the valid part has no area.
      view: what made the input.
    """

    placement: Placement
    move: Callable[[tf.Tensor], tf.Tensor]
    move_boxes: Callable[[tf.Tensor], tf.Tensor]
    view: "View"


@dataclass(frozen=True)
class View:
    """What the network sees of an image.

    Attributes:
      size: of the result, in pixels.
      framing: picks the part of the image.
      resize: kernel of the resizing.
      original: height and width that labels for each pixel are padded to where they keep the size of the
        original image; None: they have that of the input.
      training: whether images are made for training: labels then follow them into the input.
    """

    size: Size
    framing: Framing
    resize: Resize = "bicubic"
    original: Size | None = field(default=None, kw_only=True)
    training: ClassVar[bool] = False

    @property
    def pixels(self) -> list[int]:
        """The shape of an image: [height, width, 3]."""
        return [*height_width(self.size), 3]

    def finish(self, framed: Framed) -> dict[str, tf.Tensor]:
        """Return "image", uint8 [H, W, 3]; what else there is says which part is not padding.

        If the framing pads, "valid" is its height and width, int32 [2]; if it pads on all sides, "corner" is
        its first row and column, int32 [2].
        """
        if not self.framing.pads:
            return {"image": framed.image}
        placement = framed.placement
        made = {"image": pad_to(framed, self.size), "valid": placement.valid}
        return {**made, "corner": placement.corner} if self.framing.centered else made

    def blank(self) -> dict[str, tf.Tensor]:
        """Return what stands for an image where there is none: black, all of it padding."""
        nowhere = tf.zeros([2], tf.int32)
        return self.finish(
            Framed(
                tf.zeros([0, 0, 3] if self.framing.pads else self.pixels, tf.uint8),
                Placement(tf.ones([2]), tf.zeros([2]), nowhere, nowhere, nowhere),
            )
        )


class Shown(NamedTuple):
    """An image as the network sees it, without padding, and how it became that."""

    framed: Framed
    seen: Seen


@dataclass(frozen=True)
class EvalView(View):
    """What the network sees of an image in evaluation and in serving."""

    framing: Framing = field(default_factory=CenterCrop)

    def __call__(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Make the view of an encoded image; see `finish`."""
        return self.finish(self.show(image_bytes).framed)

    def show(self, image_bytes: tf.Tensor) -> Shown:
        """Make the view without its padding."""
        framed = frame_eval(image_bytes, self.framing, self.size, resize=self.resize)
        return Shown(framed, Seen(framed.placement, tf.identity, tf.identity, self))


@dataclass(frozen=True)
class TrainView(View):
    """What the network sees of an image in training.

    Attributes:
      flip: mirror half of the images.
      augment: policy, applied after framing and flip and before padding.
      random_erasing: share of the images of which a part is erased, after `augment`.
      mixup_alpha: of mixing.mix, applied to finished batches; 0: no mixup.
      cutmix_alpha: the same for cutmix. With both, pairs of images alternate.
      pairing: "neighbours", see `mixing`, or "reversed", see `published_mixing`.
    """

    framing: Framing = field(default_factory=RandomCrop)
    flip: bool = True
    augment: Policy | None = None
    random_erasing: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    pairing: Literal["neighbours", "reversed"] = "neighbours"
    training: ClassVar[bool] = True

    @property
    def mixes(self) -> bool:
        """Whether finished batches are mixed."""
        return bool(self.mixup_alpha or self.cutmix_alpha)

    def __call__(
        self, image_bytes: tf.Tensor, crop_seed: tf.Tensor, augment_seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Make the view of an encoded image, by two seeds int64 [2]; see `finish`."""
        return self.finish(self.show(image_bytes, crop_seed, augment_seed).framed)

    def show(self, image_bytes: tf.Tensor, crop_seed: tf.Tensor, augment_seed: tf.Tensor) -> Shown:
        """Make the view without its padding, by two seeds int64 [2]."""
        image, placement = frame_train(
            image_bytes,
            crop_seed,
            self.framing,
            self.size,
            resize=self.resize,
            flip=self.flip,
        )
        if self.augment is not None:
            image = self.augment(image, augment_seed)
        if self.random_erasing:
            image = mixing.random_erasing(image, augment_seed, probability=self.random_erasing)
        seen = Seen(
            placement,
            lambda labels: self._move(labels, augment_seed),
            lambda boxes: self._move_boxes(boxes, placement, augment_seed),
            self,
        )
        return Shown(Framed(image, placement), seen)

    def _move(self, labels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        if self.augment is None:
            return labels
        known = [None, None] if self.framing.pads else [*height_width(self.size)]
        labels = tf.ensure_shape(labels, known)
        # As a picture: what operations fill in is grey, so the second channel says what is from inside.
        inside = tf.fill(tf.shape(labels), tf.constant(255, tf.uint8))
        moved = self.augment.move(tf.stack([labels, inside, inside], axis=-1), seed)
        return tf.where(moved[..., 1] == 255, moved[..., 0], tf.constant(IGNORED, tf.uint8))

    def _move_boxes(self, boxes: tf.Tensor, placement: Placement, seed: tf.Tensor) -> tf.Tensor:
        if self.augment is None:
            return boxes
        corner = tf.cast(tf.tile(placement.corner, [2]), tf.float32)
        return self.augment.move_boxes(boxes - corner, placement.valid, seed) + corner
