"""The section `augment`: how training images are cropped and augmented."""

from typing import Literal

from pydantic import model_validator

from configs.schema.fields import (
    ConflictError,
    Count,
    NotNegative,
    Range,
    Resize,
    ShareRange,
    ZeroToOne,
)
from configs.sections import Section

TrainFraming = Literal["random_crop", "random_sample", "squash", "scale_jitter"]


class Augment(Section):
    """How training images are cropped and augmented."""

    policy: str  # operations after crop and flip
    framing: TrainFraming = "random_crop"  # the part shown; random_sample: V2's random_crop
    flip: bool = True  # mirror half of the images
    crop_area: ShareRange = (0.08, 1.0)  # of random_crop and _sample: share of the image's area
    crop_aspect_ratio: Range = (0.75, 1.3333333333333333)  # of those two: width / height
    scale_range: Range = (0.1, 2.0)  # of scale_jitter: times the scale at which the image fits
    resize: Resize = "bicubic"  # of the part to the model's size
    random_erasing: ZeroToOne = 0.0  # share of the images of which a rectangle becomes noise
    mixup_alpha: NotNegative = 0.0  # blend pairs of images, by Beta(alpha, alpha); 0: off
    cutmix_alpha: NotNegative = 0.0  # paste parts of a pair's other image; 0: off; both: in turns
    pairing: Literal["neighbours", "reversed"] = "neighbours"  # for mixing; reversed: as V2's code

    @property
    def mixes_labels(self) -> bool:
        """Whether training images show shares of several classes."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0

    @model_validator(mode="after")
    def _check_framing(self) -> "Augment":
        windows = ("random_crop", "random_sample")
        for key, framings in (
            ("crop_area", windows),
            ("crop_aspect_ratio", windows),
            ("scale_range", ("scale_jitter",)),
        ):
            value, default = getattr(self, key), Augment.model_fields[key].default
            if self.framing not in framings and value != default:
                raise ConflictError(
                    f"augment.{key}={list(value)} has no effect with augment.framing={self.framing}: it is"
                    f" for {' and '.join(framings)}; leave it out, or set augment.{key}={list(default)}",
                    f"augment.{key}",
                    "augment.framing",
                )
        if self.framing == "scale_jitter" and self.mixes_labels:
            raise ConflictError(
                "augment.framing=scale_jitter pads each image differently, and mixup and cutmix would mix"
                " images with padding: set augment.mixup_alpha=0 and augment.cutmix_alpha=0",
                "augment.framing",
                "augment.mixup_alpha",
                "augment.cutmix_alpha",
            )
        return self


class AutoAugment(Augment):
    """AutoAugment v0 (arXiv 1805.09501), the published recipe's."""

    policy: Literal["autoaugment"] = "autoaugment"
    quirks: bool = True  # keep the published code's deviations from the papers


class RandAugment(Augment):
    """RandAugment (arXiv 1909.13719): operations drawn uniformly, all at one level."""

    policy: Literal["randaugment"] = "randaugment"
    layers: Count = 2  # operations per image
    magnitude: NotNegative = 10.0  # level of the operations; 10 is the tables' full range
    magnitude_std: NotNegative = 0.0  # standard deviation of the level
    quirks: bool = True  # keep the published code's deviations from the papers


class Cutout(Augment):
    """A square of noise in every image, as EfficientNetV2 is fine-tuned."""

    policy: Literal["cutout"] = "cutout"


class NoAugment(Augment):
    """Crop and flip alone."""

    policy: Literal["none"] = "none"
