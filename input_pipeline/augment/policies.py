"""Which operations an image gets: AutoAugment's 25 sub-policies, RandAugment's free draw.

A policy is a frozen dataclass that is called with an image and a seed. Everything random follows from
one small vector of uniforms drawn from the seed. Every possible choice is built once, with
its level and sign as numbers, and only the drawn ones are executed.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from input_pipeline.augment import levels, motion, operations
from input_pipeline.augment.geometry import replace_rectangle
from input_pipeline.augment.layout import Scalar, size_of, when_known
from input_pipeline.augment.motion import Motion
from input_pipeline.draws import draw_uniforms, seed_of_stream

# An operation as policies see it: image, level, sign (1 or -1), centre (y, x) of a cutout -> image.
Operation = Callable[[tf.Tensor, Scalar, Scalar, tf.Tensor], tf.Tensor]


class Policy(Protocol):
    """What is done to a training image after framing and flip; the same seed does the same."""

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augment uint8 [H, W, 3] by a seed, int32 or int64 [2]."""

    def move(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Move the pixels of uint8 [H, W, 3] as augmenting moves them, and change none."""

    def move_boxes(self, boxes: tf.Tensor, size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Move boxes as augmenting moves the pixels under them; see `motion.move_boxes`."""


SIGNED = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
MOVING = SIGNED  # those that move pixels are those that have a direction
SIGNS = (1.0, -1.0)
WITHOUT_LEVEL = ("AutoContrast", "Equalize", "Invert")
NUM_OPERATIONS = 16  # in the catalogue of `make_operations`
UNIFORMS_PER_OPERATION = 3  # RandAugment's: the sign; the centre of a cutout

# Mixed into the seed, so that the crop and the flip may be drawn from the same one.
STREAM, CUTOUT_STREAM = 0x5EEDA06, 0xC07007

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


# What AutoAugment draws: one of its sub-policies, and for each of the two operations one of five, as all
# probabilities are fifths, and one of two signs. A digit of 0 values is drawn and ignored.
DIGITS = (len(SUB_POLICIES), *(5, 2, 0, 0) * 2)
PLACE_VALUES = (100, *(20, 10, 0, 0), *(2, 1, 0, 0))


def make_operations(
    *, quirks: bool, translate_const: float | None, cutout_const: float
) -> dict[str, Operation]:
    """Build the sixteen operations by name, each taking (image, level, sign, centre).

    A level and a sign are numbers or scalar tensors; numbers are faster. The centre is float32 [2].

    Args:
      quirks: keep the published code's deviations (see `operations`).
      translate_const: pixels at level 10; None: 150/331 of the image's side.
      cutout_const: half the side of the square at level 10, in pixels.
    """

    def pixels(image: tf.Tensor, axis: int, level: Scalar) -> Scalar:
        if translate_const is not None:
            return levels.translate_pixels(level, translate_const)
        share = levels.translate_pixels(level, levels.TRANSLATE_SHARE)
        return when_known(
            lambda *factors: tf.math.multiply(*(tf.cast(factor, tf.float32) for factor in factors)),
            share,
            size_of(image)[axis],
        )

    return {
        "AutoContrast": lambda x, level, sign, centre: operations.autocontrast(x),
        "Equalize": lambda x, level, sign, centre: operations.equalize(x),
        "Invert": lambda x, level, sign, centre: operations.invert(x),
        "Rotate": lambda x, level, sign, centre: operations.rotate(
            x, _apply_sign(levels.rotate_degrees(level), sign)
        ),
        "Posterize": lambda x, level, sign, centre: operations.posterize(
            x, levels.posterize_bits(level), quirks=quirks
        ),
        "Solarize": lambda x, level, sign, centre: operations.solarize(
            x, levels.solarize_threshold(level), quirks=quirks
        ),
        "SolarizeAdd": lambda x, level, sign, centre: operations.solarize_add(
            x, levels.solarize_addition(level)
        ),
        "Color": lambda x, level, sign, centre: operations.color(
            x, levels.enhancement_factor(level)
        ),
        "Contrast": lambda x, level, sign, centre: operations.contrast(
            x, levels.enhancement_factor(level), quirks=quirks
        ),
        "Brightness": lambda x, level, sign, centre: operations.brightness(
            x, levels.enhancement_factor(level)
        ),
        "Sharpness": lambda x, level, sign, centre: operations.sharpness(
            x, levels.enhancement_factor(level)
        ),
        "ShearX": lambda x, level, sign, centre: operations.shear_x(
            x, _apply_sign(levels.shear_level(level), sign)
        ),
        "ShearY": lambda x, level, sign, centre: operations.shear_y(
            x, _apply_sign(levels.shear_level(level), sign)
        ),
        "TranslateX": lambda x, level, sign, centre: operations.translate_x(
            x, _apply_sign(pixels(x, 1, level), sign)
        ),
        "TranslateY": lambda x, level, sign, centre: operations.translate_y(
            x, _apply_sign(pixels(x, 0, level), sign)
        ),
        "Cutout": lambda x, level, sign, centre: operations.cutout(
            x, levels.cutout_half_size(level, cutout_const), centre
        ),
    }


def make_motions(translate_const: float | None) -> dict[str, Motion]:
    """Return the motion of each operation that moves pixels, at level 1 and a positive sign."""
    # Levels are proportional to these arguments.
    shear, degrees = levels.shear_level(1.0), levels.rotate_degrees(1.0)
    if translate_const is None:
        share = levels.translate_pixels(1.0, levels.TRANSLATE_SHARE)
        left, up = Motion(left_share=share), Motion(up_share=share)
    else:
        pixels = levels.translate_pixels(1.0, translate_const)
        left, up = Motion(left=pixels), Motion(up=pixels)
    return {
        "Rotate": Motion(degrees=degrees),
        "ShearX": Motion(shear_x=shear),
        "ShearY": Motion(shear_y=shear),
        "TranslateX": left,
        "TranslateY": up,
    }


def moving(catalogue: Mapping[str, Operation]) -> dict[str, Operation]:
    """Return the operations by name, with those that leave every pixel in its place doing nothing."""

    def stay(image: tf.Tensor, level: Scalar, sign: Scalar, centre: tf.Tensor) -> tf.Tensor:
        return tf.identity(image)

    return {name: each if name in MOVING else stay for name, each in catalogue.items()}


def _apply_sign(value: Scalar, sign: Scalar) -> Scalar:
    if tf.is_tensor(value) or tf.is_tensor(sign):
        return tf.cast(value, tf.float32) * tf.cast(sign, tf.float32)
    return value * sign


def make_drawer(
    choices: Sequence[Callable[..., tf.Tensor]], *signature: tf.TensorSpec
) -> Callable[..., tf.Tensor]:
    """Build a function of (index, image, *arguments) that executes one of the choices.

    Each choice takes an image and the arguments, of the types in `signature`, and returns an image of
    the same shape. `tf.switch_case` would work, but its graph inlines all choices at every use, and
    the nodes of those not drawn are still visited (0.1 ms an image).
    """
    if tf.executing_eagerly():
        return lambda index, *arguments: choices[int(index)](*arguments)
    branches = [
        tf.function(choice, autograph=False).get_concrete_function(*signature) for choice in choices
    ]

    def execute(index: tf.Tensor, *arguments: tf.Tensor) -> tf.Tensor:
        (result,) = tf.raw_ops.StatelessCase(
            branch_index=index,
            input=arguments,
            Tout=[tf.uint8],
            branches=branches,
            output_shapes=[signature[0].shape],
        )
        return result

    return execute


@dataclasses.dataclass(frozen=True)
class NoAugment:
    """No augmentation: return the image unchanged."""

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the image, uint8 [H, W, 3]."""
        del seed
        return image

    def move(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the image, uint8 [H, W, 3]."""
        return self(image, seed)

    def move_boxes(self, boxes: tf.Tensor, size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the boxes, float32 [n, 4]."""
        return boxes


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

    published_translation: ClassVar[float] = 250.0
    published_cutout: ClassVar[float] = 100.0

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augment one image.

        Args:
          image: uint8 [H, W, 3].
          seed: int32 or int64 [2]; the same seed gives the same pixels.

        Returns:
          uint8 [H, W, 3].
        """
        return self._apply(image, seed, self._catalogue())

    def move(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Apply only the operations that move pixels, to an image or to labels as a picture."""
        return self._apply(image, seed, moving(self._catalogue()))

    def move_boxes(self, boxes: tf.Tensor, size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Move boxes, float32 [n, 4] in pixels of an image of `size`, int32 [2], as the pixels are moved."""
        motions, still = make_motions(_translate_const(self)), Motion()
        steps, _ = _autoaugment_steps()
        moved = [
            np.multiply(motions.get(step.name, still), step.level * step.sign) for step in steps
        ]
        table = np.array([still, *moved], np.float32)
        return motion.move_boxes(boxes, size, tf.gather(table, self._draw_steps(seed)))

    def _catalogue(self) -> dict[str, Operation]:
        return _catalogue(self)

    def _draw_steps(self, seed: tf.Tensor) -> tf.Tensor:
        """Draw the numbers of the two steps, from 1; 0 for none: int32 [2]."""
        _, chosen = _autoaugment_steps()
        uniforms = draw_uniforms(seed, len(DIGITS), stream=STREAM)
        digits = tf.cast(tf.cast(uniforms, tf.float64) * DIGITS, tf.int32)
        return tf.gather(chosen, tf.reduce_sum(digits * PLACE_VALUES))

    def _apply(
        self, image: tf.Tensor, seed: tf.Tensor, catalogue: Mapping[str, Operation]
    ) -> tf.Tensor:
        steps, _ = _autoaugment_steps()
        draw = make_drawer(
            [_identity, *(_make_step(catalogue, step) for step in steps)],
            tf.TensorSpec(image.shape, tf.uint8),
        )
        for index in tf.unstack(self._draw_steps(seed)):
            image = draw(index, image)
        return image


class PolicyStep(NamedTuple):
    """An operation with its arguments."""

    name: str
    level: float
    sign: float


@functools.cache
def _autoaugment_steps() -> tuple[tuple[PolicyStep, ...], np.ndarray]:
    """Return all steps of all sub-policies, and the table of the two steps for each draw.

    The table is int32 [25 * 5 * 2 * 5 * 2, 2], by the number of the drawn digits; it holds steps
    counted from 1, or 0 for none.
    """
    steps: dict[PolicyStep, int] = {}
    chosen = []
    for row, *own in itertools.product(*(range(digits) for digits in DIGITS if digits)):
        numbers = [0, 0]
        for place, (name, chance, level) in enumerate(SUB_POLICIES[row]):
            fifth, negative = own[2 * place : 2 * place + 2]
            if fifth < round(chance * 5):
                sign = SIGNS[negative] if name in SIGNED else SIGNS[0]
                step = PolicyStep(name, 0 if name in WITHOUT_LEVEL else level, sign)
                numbers[place] = steps.setdefault(step, len(steps) + 1)
        chosen.append(numbers)
    return tuple(steps), np.array(chosen, np.int32)


def _make_step(
    catalogue: Mapping[str, Operation], step: PolicyStep
) -> Callable[[tf.Tensor], tf.Tensor]:
    nowhere = np.zeros([2], np.float32)  # no sub-policy cuts out
    return lambda image: catalogue[step.name](image, step.level, step.sign, nowhere)


def _identity(image: tf.Tensor) -> tf.Tensor:
    return tf.identity(image)


class DrawnOperations(NamedTuple):
    """What RandAugment draws for the layers of an image.

    Attributes:
      number: int32 [layers], of the operation in the catalogue.
      uniform: float32 [layers], decides the level where it is drawn.
      negative: int32 [layers], 1 for a negative sign.
      centre: float32 [layers, 2], of a cutout.
    """

    number: tf.Tensor
    uniform: tf.Tensor
    negative: tf.Tensor
    centre: tf.Tensor


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

    published_translation: ClassVar[float] = 100.0
    published_cutout: ClassVar[float] = 40.0

    def __post_init__(self) -> None:
        for name, least in {"layers": 1, "magnitude": 0.0, "magnitude_std": 0.0}.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"RandAugment: {name} is {getattr(self, name):g}, expected at least {least:g}"
                )

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augment one image; arguments and result as for AutoAugment."""
        return self._apply(image, seed, self._catalogue())

    def move(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Apply only the operations that move pixels, to an image or to labels as a picture."""
        return self._apply(image, seed, moving(self._catalogue()))

    def move_boxes(self, boxes: tf.Tensor, size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Move boxes, float32 [n, 4] in pixels of an image of `size`, int32 [2], as the pixels are moved."""
        motions = make_motions(_translate_const(self))
        table = np.array([motions.get(name, Motion()) for name in self._catalogue()], np.float32)
        drawn = self._draw_operations(seed)
        level = self._levels(drawn.uniform) if self.magnitude_std else self.magnitude
        signed = tf.gather(np.array(SIGNS, np.float32), drawn.negative) * tf.cast(level, tf.float32)
        return motion.move_boxes(
            boxes, size, tf.gather(table, drawn.number) * signed[:, tf.newaxis]
        )

    def _catalogue(self) -> dict[str, Operation]:
        return _catalogue(self)

    def _draw_operations(self, seed: tf.Tensor) -> DrawnOperations:
        """Draw the operations, by their numbers in the catalogue, and their arguments."""
        uniforms = draw_uniforms(seed, self.layers * (2 + UNIFORMS_PER_OPERATION), stream=STREAM)
        uniforms = tf.reshape(uniforms, [self.layers, 2 + UNIFORMS_PER_OPERATION])
        return DrawnOperations(
            number=tf.cast(uniforms[:, 0] * NUM_OPERATIONS, tf.int32),
            uniform=uniforms[:, 1],
            negative=tf.cast(uniforms[:, 2] >= 0.5, tf.int32),
            centre=uniforms[:, 3:],
        )

    def _apply(
        self, image: tf.Tensor, seed: tf.Tensor, catalogue: Mapping[str, Operation]
    ) -> tf.Tensor:
        choices, chosen = self._choices(catalogue)
        drawn = self._draw_operations(seed)
        places = tf.stack([drawn.number, drawn.negative], axis=1)
        arguments = [tf.gather_nd(chosen, places), drawn.centre]
        signature = [tf.TensorSpec(image.shape, tf.uint8), tf.TensorSpec([2], tf.float32)]
        if self.magnitude_std:
            arguments.append(self._levels(drawn.uniform))
            signature.append(tf.TensorSpec([], tf.float64))
        draw = make_drawer(choices, *signature)
        for index, *layer in zip(*map(tf.unstack, arguments), strict=True):
            image = draw(index, image, *layer)
        return image

    def _choices(
        self, catalogue: Mapping[str, Operation]
    ) -> tuple[list[Callable[..., tf.Tensor]], np.ndarray]:
        """Return the operations with their signs, and the table of them by (number, negative).

        They take (image, centre), and the level if it is drawn. The table is int32 [16, 2].
        """
        signs = {name: SIGNS if name in SIGNED else SIGNS[:1] for name in catalogue}
        signed = [(name, sign) for name in catalogue for sign in signs[name]]
        chosen = [
            [signed.index((name, signs[name][minus % len(signs[name])])) for minus in range(2)]
            for name in catalogue
        ]

        def choice(name: str, sign: float) -> Callable[..., tf.Tensor]:
            return lambda image, centre, level=self.magnitude: catalogue[name](
                image, level, sign, centre
            )

        return [choice(*pair) for pair in signed], np.array(chosen, np.int32)

    def _levels(self, uniforms: tf.Tensor) -> tf.Tensor:
        # The lowest uniform is 0, whose normal quantile is -infinity: half a step up.
        noise = tf.math.ndtri(tf.cast(uniforms, tf.float64) + 2.0**-24)
        return tf.maximum(self.magnitude + self.magnitude_std * noise, 0.0)


def _catalogue(policy: AutoAugment | RandAugment) -> dict[str, Operation]:
    """Build the operations with a policy's settings."""
    own = policy.cutout_const
    return make_operations(
        quirks=policy.quirks,
        translate_const=_translate_const(policy),
        cutout_const=policy.published_cutout if own is None else own,
    )


def _translate_const(policy: AutoAugment | RandAugment) -> float | None:
    """Return the pixels at level 10 by which a policy translates; None: a share of the side."""
    if policy.translate_const is None and policy.quirks:
        return policy.published_translation
    return policy.translate_const


@dataclasses.dataclass(frozen=True)
class Cutout:
    """A square of noise in every image, as EfficientNetV2's code fine-tunes.

    Its centre is any pixel, its sides are half the image's, cut off at the borders. The noise is uniform
    over the upper half of the grey levels, [0, 1) after a normalisation to [-1, 1]. Deviation: rounded
    down to uint8.
    """

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augment one image; arguments and result as for AutoAugment."""
        size = tf.shape(image)[:2]
        draws = draw_uniforms(seed, 2, stream=CUTOUT_STREAM)
        centre = tf.cast(draws * tf.cast(size, tf.float32), tf.int32)
        half = size // 4
        noise = tf.random.stateless_uniform(
            tf.shape(image), seed_of_stream(seed, CUTOUT_STREAM + 1), 127.5, 255.0, alg="philox"
        )
        first, last = tf.maximum(centre - half, 0), tf.minimum(centre + half, size)
        return replace_rectangle(image, tf.cast(noise, tf.uint8), first, last)

    def move(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the image, uint8 [H, W, 3]: a square of noise moves nothing."""
        del seed
        return image

    def move_boxes(self, boxes: tf.Tensor, size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the boxes, float32 [n, 4]."""
        return boxes


POLICIES: Mapping[str, Callable[..., Policy]] = {
    "none": NoAugment,
    "cutout": Cutout,
    "autoaugment": AutoAugment,
    "randaugment": RandAugment,
}


def get_augment(policy: str, **options: Any) -> Policy:
    """Return a policy by name: a function from (uint8 [H, W, 3], seed [2]) to uint8 [H, W, 3].

    Args:
      policy: one of `POLICIES`.
      options: the attributes of its class.

    Raises:
      ValueError: no such policy, or an option out of its range.
      TypeError: the policy has no such option.
    """
    if policy not in POLICIES:
        raise ValueError(f"unknown augmentation policy {policy!r}; known: {', '.join(POLICIES)}")
    return POLICIES[policy](**options)
