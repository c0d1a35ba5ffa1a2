"""What weights expect of images and of the network beside its layers."""

import dataclasses
import json
from dataclasses import dataclass

from efficientnet.catalog import UnknownModelError, get_spec
from efficientnet.families import v2
from efficientnet.spec import RGB, ModelSpec, Padding, Size, height_width

CROP_PADDING = 32  # pixels around the centre crop of the published code, at every size


@dataclass(frozen=True)
class Expectations:
    """What trained weights expect; None where it is not known or has no effect.

    Attributes:
      source: where the weights come from, such as "timm's tf_efficientnet_b0".
      normalization: (mean_rgb, stddev_rgb) on the scale 0..255.
      batch_norm_epsilon: added to the variance.
      image_size: size of the training images, in pixels.
      crop_fraction: share of the shorter side that the centre crop of an evaluation shows, in (0, 1].
      resize: kernel of the resize, "bicubic" or "bilinear".
      padding: of strided convolutions, see `ModelSpec`.
      note: what had to be assumed; empty if nothing.
    """

    source: str
    normalization: tuple[RGB, RGB] | None = None
    batch_norm_epsilon: float | None = None
    image_size: Size | None = None
    crop_fraction: float | None = None
    resize: str | None = None
    padding: Padding | None = None
    note: str = ""

    def to_json(self) -> str:
        """Return the expectations as a JSON object, for the metadata of a file."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Expectations":
        """Return the expectations that `to_json` wrote.

        Raises:
          ValueError: it did not write this text.
        """
        try:
            given = json.loads(text)
            if given["normalization"] is not None:
                mean, stddev = (tuple(map(float, rgb)) for rgb in given["normalization"])
                if (len(mean), len(stddev)) != (3, 3):
                    raise ValueError("a normalization of 3 means and 3 deviations")
                given["normalization"] = (mean, stddev)
            if isinstance(given["image_size"], list):
                height, width = map(int, given["image_size"])
                given["image_size"] = (height, width)
            return cls(**given)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the expectations of weights: {error}") from error

    def crop_padding(self, size: Size) -> int | None:
        """Return the padding of a centre crop of `size` pixels that shows the expected share."""
        if self.crop_fraction is None:
            return None
        return round(min(height_width(size)) * (1 / self.crop_fraction - 1))


def published_spec(spec: ModelSpec) -> ModelSpec | None:
    """Return the published network of a specification's name; None for a network of another name."""
    try:
        return get_spec(spec.name)
    except UnknownModelError:
        return None


def published_expectations(spec: ModelSpec, source: str) -> Expectations:
    """Return what weights of the published recipe expect, all of them but AdvProp's.

    Args:
      spec: the network, whatever was varied in it.
      source: see `Expectations`.
    """
    original = published_spec(spec)
    if original is None:
        return Expectations(source)
    side = min(height_width(original.eval_resolution))
    whole = any(spec.name in family.models for family in v2.LARGE)
    return Expectations(
        source,
        normalization=(original.mean_rgb, original.stddev_rgb),
        batch_norm_epsilon=original.batch_norm_epsilon,
        crop_fraction=1.0 if whole else side / (side + CROP_PADDING),
        resize="bicubic",
        padding=original.padding,
    )
