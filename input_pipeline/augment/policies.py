"""Which operations an image gets: AutoAugment's 25 sub-policies, RandAugment's free draw.

A policy is a frozen dataclass that is called with an image and a seed. Everything random follows from
one small vector of uniforms drawn from the seed, and only the drawn operation is executed.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from input_pipeline.augment import levels, operations
from input_pipeline.augment.geometry import Scalar
from input_pipeline.draws import draw_uniforms

# An operation as policies see it: image, level, uniforms [3] -> image.
Drawn = Callable[[tf.Tensor, Scalar, tf.Tensor], tf.Tensor]

UNIFORMS_PER_OPERATION = 3  # the sign of a signed argument; the centre (y, x) of a cutout

# Mixed into the seed, so that the crop and the flip may be drawn from the same one.
STREAM = 0x5EEDA06

# Sub-policies of AutoAugment v0 (arXiv 1805.09501, table 9; the published EfficientNet code):
# two times (operation, probability, level).
SUB_POLICIES = (
    (("Equalize", 0.8, 1), ("ShearY", 0.8, 4)),
    (("Color", 0.4, 9), ("Equalize", 0.6, 3)),
    (("Color", 0.4, 1), ("Rotate", 0.6, 8)),
    (("Solarize", 0.8, 3), ("Equalize", 0.4, 7)),
    (("Solarize", 0.4, 2), ("Solarize", 0.6, 2)),
    (("Color", 0.2, 0), ("Equalize", 0.8, 8)),
    (("Equalize", 0.4, 8), ("SolarizeAdd", 0.8, 3)),
    (("ShearX", 0.2, 9), ("Rotate", 0.6, 8)),
    (("Color", 0.6, 1), ("Equalize", 1.0, 2)),
    (("Invert", 0.4, 9), ("Rotate", 0.6, 0)),
    (("Equalize", 1.0, 9), ("ShearY", 0.6, 3)),
    (("Color", 0.4, 7), ("Equalize", 0.6, 0)),
    (("Posterize", 0.4, 6), ("AutoContrast", 0.4, 7)),
    (("Solarize", 0.6, 8), ("Color", 0.6, 9)),
    (("Solarize", 0.2, 4), ("Rotate", 0.8, 9)),
    (("Rotate", 1.0, 7), ("TranslateY", 0.8, 9)),
    (("ShearX", 0.0, 0), ("Solarize", 0.8, 4)),
    (("ShearY", 0.8, 0), ("Color", 0.6, 4)),
    (("Color", 1.0, 0), ("Rotate", 0.6, 2)),
    (("Equalize", 0.8, 4), ("Equalize", 0.0, 8)),
    (("Equalize", 1.0, 4), ("AutoContrast", 0.6, 2)),
    (("ShearY", 0.4, 7), ("SolarizeAdd", 0.6, 7)),
    (("Posterize", 0.8, 2), ("Solarize", 0.6, 10)),
    (("Solarize", 0.6, 8), ("Equalize", 0.6, 1)),
    (("Color", 0.8, 6), ("Rotate", 0.4, 5)),
)


def make_operations(
    *, quirks: bool, translate_const: float | None, cutout_const: float
) -> dict[str, Drawn]:
    """The sixteen operations by name, each taking (image, level, uniforms [3]).

    Args:
      quirks: keep the published code's deviations (see `operations`).
      translate_const: pixels at level 10; None: 150/331 of the image's side.
      cutout_const: half the side of the square at level 10, in pixels.
    """

    def signed(value: Scalar, uniforms: tf.Tensor) -> tf.Tensor:
        value = tf.cast(value, tf.float32)
        return tf.where(uniforms[0] < 0.5, value, -value)

    def pixels(image: tf.Tensor, axis: int, level: Scalar) -> Scalar:
        if translate_const is not None:
            return levels.translate_pixels(level, translate_const)
        share = tf.cast(levels.translate_pixels(level, levels.TRANSLATE_SHARE), tf.float32)
        return share * tf.cast(tf.shape(image)[axis], tf.float32)

    return {
        "AutoContrast": lambda x, level, u: operations.autocontrast(x),
        "Equalize": lambda x, level, u: operations.equalize(x),
        "Invert": lambda x, level, u: operations.invert(x),
        "Rotate": lambda x, level, u: operations.rotate(x, signed(levels.rotate_degrees(level), u)),
        "Posterize": lambda x, level, u: operations.posterize(
            x, levels.posterize_bits(level), quirks=quirks
        ),
        "Solarize": lambda x, level, u: operations.solarize(
            x, levels.solarize_threshold(level), quirks=quirks
        ),
        "SolarizeAdd": lambda x, level, u: operations.solarize_add(
            x, levels.solarize_addition(level)
        ),
        "Color": lambda x, level, u: operations.color(x, levels.enhancement_factor(level)),
        "Contrast": lambda x, level, u: operations.contrast(
            x, levels.enhancement_factor(level), quirks=quirks
        ),
        "Brightness": lambda x, level, u: operations.brightness(
            x, levels.enhancement_factor(level)
        ),
        "Sharpness": lambda x, level, u: operations.sharpness(x, levels.enhancement_factor(level)),
        "ShearX": lambda x, level, u: operations.shear_x(x, signed(levels.shear_level(level), u)),
        "ShearY": lambda x, level, u: operations.shear_y(x, signed(levels.shear_level(level), u)),
        "TranslateX": lambda x, level, u: operations.translate_x(x, signed(pixels(x, 1, level), u)),
        "TranslateY": lambda x, level, u: operations.translate_y(x, signed(pixels(x, 0, level), u)),
        "Cutout": lambda x, level, u: operations.cutout(
            x, levels.cutout_half_size(level, cutout_const), u[1:3]
        ),
    }


def make_drawer(drawn: Sequence[Drawn], image_shape: tf.TensorShape) -> Callable[..., tf.Tensor]:
    """A function that executes one of the operations and no other.

    It takes (image, index, level, uniforms [3]) and returns the image; index len(drawn) leaves it as it is.

    `tf.switch_case` would do, but in a graph it spreads all operations into one, in which the ones not
    drawn are still visited, node by node (0.1 ms an image), and it would do so for each use anew.
    """
    choices = [*drawn, _unchanged]
    if tf.executing_eagerly():
        return lambda image, index, level, uniforms: choices[int(index)](image, level, uniforms)
    signature = [
        tf.TensorSpec(image_shape, tf.uint8),
        tf.TensorSpec([], tf.float64),
        tf.TensorSpec([UNIFORMS_PER_OPERATION], tf.float32),
    ]
    branches = [
        tf.function(operation, autograph=False).get_concrete_function(*signature)
        for operation in choices
    ]

    def execute(
        image: tf.Tensor, index: tf.Tensor, level: tf.Tensor, uniforms: tf.Tensor
    ) -> tf.Tensor:
        (result,) = tf.raw_ops.StatelessCase(
            branch_index=index,
            input=[image, level, uniforms],
            Tout=[tf.uint8],
            branches=branches,
            output_shapes=[image_shape],
        )
        return tf.ensure_shape(result, image_shape)

    return execute


def _unchanged(image: tf.Tensor, level: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
    del level, uniforms
    return tf.identity(image)


@dataclasses.dataclass(frozen=True)
class NoAugment:
    """The image as it is."""

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """uint8 [H, W, 3] to the same."""
        del seed
        return image


@dataclasses.dataclass(frozen=True)
class AutoAugment:
    """AutoAugment v0: one of 25 sub-policies, each of its two operations firing by its probability.

    Attributes:
      quirks: keep the published code's deviations from the papers.
      translate_const: pixels at level 10. None: 250 as published, which leaves a 224-pixel image wholly
        grey at level 9 (a quirk); without quirks 150/331 of the side, the paper's proportion.
      cutout_const: pixels at level 10. None: 100. No sub-policy cuts out.
    """

    quirks: bool = True
    translate_const: float | None = None
    cutout_const: float | None = None

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augment one image.

        Args:
          image: uint8 [H, W, 3].
          seed: int32 or int64 [2]; the same seed gives the same pixels.

        Returns:
          uint8 [H, W, 3].
        """
        catalogue = _catalogue(self, translate_const=250.0, cutout_const=100.0)
        names = sorted({name for pair in SUB_POLICIES for name, _, _ in pair})
        table = [
            [(names.index(name), probability, level) for name, probability, level in pair]
            for pair in SUB_POLICIES
        ]
        draw = make_drawer([catalogue[name] for name in names], image.shape)

        uniforms = draw_uniforms(seed, 1 + 2 * (1 + UNIFORMS_PER_OPERATION), stream=STREAM)
        row = tf.cast(uniforms[0] * len(SUB_POLICIES), tf.int32)
        pair = tf.unstack(tf.constant(table, tf.float64)[row])
        for step, own in zip(pair, tf.split(uniforms[1:], 2), strict=True):
            number, probability, level = tf.unstack(step)
            fires = tf.cast(own[0], tf.float64) < probability
            index = tf.cast(tf.where(fires, number, len(names)), tf.int32)
            image = draw(image, index, level, own[1:])
        return image


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """RandAugment (arXiv 1909.13719): operations drawn uniformly, with replacement, always applied.

    Attributes:
      layers: operations per image.
      magnitude: the level of all of them.
      magnitude_std: standard deviation of normal noise on the level, which ends at 0.
      quirks: keep the published code's deviations from the papers.
      translate_const: pixels at level 10. None: 100 as published; without quirks 150/331 of the side.
      cutout_const: pixels at level 10. None: 40.
    """

    layers: int = 2
    magnitude: float = 10.0
    magnitude_std: float = 0.0
    quirks: bool = True
    translate_const: float | None = None
    cutout_const: float | None = None

    def __post_init__(self) -> None:
        for name, least in {"layers": 1, "magnitude": 0.0, "magnitude_std": 0.0}.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"RandAugment: {name} is {getattr(self, name):g}, expected at least {least:g}"
                )

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augment one image: as AutoAugment's."""
        drawn = list(_catalogue(self, translate_const=100.0, cutout_const=40.0).values())
        draw = make_drawer(drawn, image.shape)
        uniforms = draw_uniforms(seed, self.layers * (2 + UNIFORMS_PER_OPERATION), stream=STREAM)
        uniforms = tf.reshape(uniforms, [self.layers, 2 + UNIFORMS_PER_OPERATION])
        for layer in tf.unstack(uniforms):
            index = tf.cast(layer[0] * len(drawn), tf.int32)
            image = draw(image, index, self._level(layer[1]), layer[2:])
        return image

    def _level(self, uniform: tf.Tensor) -> tf.Tensor:
        if self.magnitude_std == 0:
            return tf.constant(self.magnitude, tf.float64)
        # The lowest uniform is 0, whose normal quantile is -infinity: half a step up.
        noise = tf.math.ndtri(tf.cast(uniform, tf.float64) + 2.0**-24)
        return tf.maximum(self.magnitude + self.magnitude_std * noise, 0.0)


def _catalogue(
    policy: AutoAugment | RandAugment, *, translate_const: float | None, cutout_const: float
) -> dict[str, Drawn]:
    """The operations under a policy's settings; these constants where it has none of its own."""
    if not policy.quirks:
        translate_const = None
    own = policy.translate_const
    return make_operations(
        quirks=policy.quirks,
        translate_const=translate_const if own is None else own,
        cutout_const=cutout_const if policy.cutout_const is None else policy.cutout_const,
    )


POLICIES: Mapping[str, type[NoAugment] | type[AutoAugment] | type[RandAugment]] = {
    "none": NoAugment,
    "autoaugment": AutoAugment,
    "randaugment": RandAugment,
}


def get_augment(
    policy: str,
    *,
    quirks: bool = True,
    layers: int = 2,
    magnitude: float = 10.0,
    magnitude_std: float = 0.0,
    translate_const: float | None = None,
    cutout_const: float | None = None,
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """A policy by name: a function from (uint8 [H, W, 3], seed [2]) to uint8 [H, W, 3].

    Args:
      policy: one of `POLICIES`.
      quirks: keep the published code's deviations from the papers.
      layers: RandAugment's operations per image, at least 1.
      magnitude: RandAugment's level, at least 0; 10 is the far end of every range.
      magnitude_std: RandAugment's spread of the level, at least 0.
      translate_const: pixels at level 10; None: the policy's own.
      cutout_const: half the side of a cutout at level 10, in pixels; None: the policy's own.

    Raises:
      ValueError: no such policy, or an option out of its range.
    """
    if policy not in POLICIES:
        raise ValueError(f"no augmentation policy {policy!r}; known: {', '.join(POLICIES)}")
    options = {
        "quirks": quirks,
        "layers": layers,
        "magnitude": magnitude,
        "magnitude_std": magnitude_std,
        "translate_const": translate_const,
        "cutout_const": cutout_const,
    }
    kind: Any = POLICIES[policy]
    taken = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in options.items() if name in taken})
