"""Views: everything that happens to an image between its bytes and the network's input."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import tensorflow as tf

from input_pipeline.augment import mixing
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
from input_pipeline.images.placement import Placement, Size, height_width

Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class View:
    """What the network sees of an image.

    Attributes:
      size: of the result, in pixels.
      framing: picks the part of the image.
      resize: kernel of the resizing.
    """

    size: Size
    framing: Framing
    resize: Resize = "bicubic"

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


@dataclass(frozen=True)
class EvalView(View):
    """What the network sees of an image in evaluation and in serving."""

    framing: Framing = field(default_factory=CenterCrop)

    def __call__(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Make the view of an encoded image; see `finish`."""
        return self.finish(frame_eval(image_bytes, self.framing, self.size, resize=self.resize))


@dataclass(frozen=True)
class TrainView(View):
    """What the network sees of an image in training.

    Attributes:
      flip: mirror half of the images.
      augment: (uint8 [h, w, 3], seed int64 [2]) -> uint8 [h, w, 3], applied after framing and flip and
        before padding.
      random_erasing: share of the images of which a part is erased, after `augment`.
      mixup_alpha: of mixing.mix, applied to finished batches; 0: no mixup.
      cutmix_alpha: the same for cutmix. With both, pairs of images alternate.
      pairing: "neighbours", see `mixing`, or "reversed", see `published_mixing`.
    """

    framing: Framing = field(default_factory=RandomCrop)
    flip: bool = True
    augment: Augment | None = None
    random_erasing: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    pairing: Literal["neighbours", "reversed"] = "neighbours"

    @property
    def mixes(self) -> bool:
        """Whether finished batches are mixed."""
        return bool(self.mixup_alpha or self.cutmix_alpha)

    def __call__(
        self, image_bytes: tf.Tensor, crop_seed: tf.Tensor, augment_seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Make the view of an encoded image, by two seeds int64 [2]; see `finish`."""
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
        return self.finish(Framed(image, placement))
