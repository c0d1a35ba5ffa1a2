"""Specify networks as frozen plain data: a family's table and one model's blocks.

Nothing here needs Keras. A `Family` is the content of a paper's tables: the stages, and one row of
coefficients per model. `scaling.scale` turns them into a `ModelSpec`, which has everything that
`network.network_layers` needs to list the layers. A model file holds the same (see `plain`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any, Literal, get_args

from system.errors import UsageError

RGB = tuple[float, float, float]
Size = int | tuple[int, int]
"""Size of images in pixels: the side of a square, or (height, width)."""
Include = Literal["logits", "pooled", "features"]
"""Where a network ends: after the classifier, after pooling, or after the last block."""
Shortcut = Literal["identity", "projection", "none"]
StemPooling = Literal["none", "max"]
HeadPooling = Literal["average", "max"]
Padding = Literal["same", "symmetric"]

IMAGE_CHANNELS = 3


class SpecError(UsageError, ValueError):
    """A network that cannot be built; the message has the key, its value and the expected values."""


def height_width(size: Size) -> tuple[int, int]:
    """Return `size` as (height, width)."""
    return (size, size) if isinstance(size, int) else size


def describe_size(size: Size) -> str:
    """Describe `size` for people: "224" or "224 x 320" (height x width)."""
    return f"{size}" if isinstance(size, int) else f"{size[0]} x {size[1]}"


@dataclass(frozen=True)
class StageSpec:
    """A run of equal blocks; only the first takes the stride and the change of filters.

    Attributes:
      repeats: number of blocks, at least 1.
      kernel_size: side of the square kernel, in pixels.
      stride: stride of the first block.
      expand_ratio: filters inside a block over its input filters; 1 omits the expansion.
      output_filters: output filters of every block.
      se_ratio: squeeze-and-excite filters over the block's INPUT filters; 0 omits it.
      block: kind of block, a key of `blocks.BLOCKS`.
      shortcut: what to add to a block's output. "identity": its input if the shapes are equal, as
        published; "projection": its input, through a 1x1 convolution and batch norm if the shapes
        differ; "none": nothing.
    """

    repeats: int
    kernel_size: int
    stride: int
    expand_ratio: int
    output_filters: int
    se_ratio: float = 0.25
    block: str = "mbconv"
    shortcut: Shortcut = "identity"


@dataclass(frozen=True)
class BlockSpec:
    """One block of the finished network.

    Attributes:
      index: position among all blocks, from 0; gives the block its name.
      stage: number of the block's stage, from 0.
      block: kind of block, a key of `blocks.BLOCKS`.
      kernel_size: side of the square kernel, in pixels.
      stride: of the block.
      input_filters: filters of the block's input.
      expanded_filters: filters inside the block; None omits the expansion, and the block works on its
        input filters.
      squeeze_filters: filters between the two squeeze-and-excite convolutions; 0 omits them.
      output_filters: filters of the block's output.
      shortcut: what to add to the output: the input ("identity", which needs equal shapes), the
        input through a 1x1 convolution and batch norm ("projection"), or nothing ("none").
    """

    index: int
    stage: int
    block: str
    kernel_size: int
    stride: int
    input_filters: int
    expanded_filters: int | None
    squeeze_filters: int
    output_filters: int
    shortcut: Shortcut

    def __post_init__(self) -> None:
        where = f"blocks[{self.index}]"
        positive = ["kernel_size", "stride", "input_filters", "output_filters"]
        if self.expanded_filters is not None:
            positive.append("expanded_filters")
        _check_at_least(self, 1, *positive, where=f"{where}.")
        _check_at_least(self, 0, "stage", "squeeze_filters", where=f"{where}.")
        _check_choice(f"{where}.shortcut", self.shortcut, get_args(Shortcut))
        if self.shortcut == "identity" and self.changes_shape:
            raise SpecError(
                f"{where}.shortcut is 'identity', but the block goes from {self.input_filters} to "
                f"{self.output_filters} filters at stride {self.stride}: expected 'projection' or 'none'"
            )

    @property
    def name(self) -> str:
        """The prefix of the names of the block's layers."""
        return f"block_{self.index}"

    @property
    def inner_filters(self) -> int:
        """The filters inside the block, expanded or not."""
        return self.input_filters if self.expanded_filters is None else self.expanded_filters

    @property
    def changes_shape(self) -> bool:
        """Whether the output differs from the input in size or filters."""
        return changes_shape(self.stride, self.input_filters, self.output_filters)


def changes_shape(stride: int, input_filters: int, output_filters: int) -> bool:
    """Return whether the output of such a block differs in shape from its input."""
    return stride != 1 or input_filters != output_filters


def resolve_shortcut(wanted: Shortcut, changes: bool) -> Shortcut:
    """Return the shortcut of a block; see `StageSpec`.

    Args:
      wanted: the shortcut of the block's stage.
      changes: whether the block changes the shape.
    """
    if wanted == "identity" and changes:
        return "none"
    if wanted == "projection" and not changes:
        return "identity"
    return wanted


def expand_stages(stages: Iterable[StageSpec], input_filters: int) -> tuple[BlockSpec, ...]:
    """List the blocks of stages.

    Args:
      stages: in order, scaled.
      input_filters: input filters of the first block.

    Raises:
      SpecError: a number is out of range, or a shortcut is unknown.
    """
    blocks: list[BlockSpec] = []
    for number, stage in enumerate(stages):
        where = f"stages[{number}]."
        _check_at_least(
            stage, 1, "repeats", "stride", "expand_ratio", "output_filters", where=where
        )
        _check_choice(f"{where}shortcut", stage.shortcut, get_args(Shortcut))
        for repeat in range(stage.repeats):
            blocks.append(
                _block_of(
                    stage, len(blocks), number, input_filters, stage.stride if not repeat else 1
                )
            )
            input_filters = stage.output_filters
    return tuple(blocks)


def _block_of(
    stage: StageSpec, index: int, number: int, input_filters: int, stride: int
) -> BlockSpec:
    changes = changes_shape(stride, input_filters, stage.output_filters)
    return BlockSpec(
        index=index,
        stage=number,
        block=stage.block,
        kernel_size=stage.kernel_size,
        stride=stride,
        input_filters=input_filters,
        expanded_filters=None if stage.expand_ratio == 1 else input_filters * stage.expand_ratio,
        # A fraction of the block's input filters, not of its expanded ones.
        squeeze_filters=max(1, int(input_filters * stage.se_ratio)) if stage.se_ratio else 0,
        output_filters=stage.output_filters,
        shortcut=resolve_shortcut(stage.shortcut, changes),
    )


@dataclass(frozen=True)
class StemSpec:
    """The layers before the blocks: a convolution with batch norm and activation.

    Attributes:
      filters: output filters of the convolution.
      kernel_size: side of its square kernel, in pixels.
      stride: stride of the convolution.
      pooling: "max" for 3x3 max pooling of stride 2 after it, or "none".
    """

    filters: int
    kernel_size: int = 3
    stride: int = 2
    pooling: StemPooling = "none"

    def __post_init__(self) -> None:
        _check_at_least(self, 1, "filters", "kernel_size", "stride", where="stem.")
        _check_choice("stem.pooling", self.pooling, get_args(StemPooling))


@dataclass(frozen=True)
class HeadSpec:
    """The layers between the blocks and the classifier.

    Attributes:
      filters: of the convolution with batch norm and activation before pooling; None omits it.
      kernel_size: side of its square kernel, in pixels.
      pooling: over the whole feature map, "average" or "max".
    """

    filters: int | None
    kernel_size: int = 1
    pooling: HeadPooling = "average"

    def __post_init__(self) -> None:
        if self.filters is not None:
            _check_at_least(self, 1, "filters", where="head.")
        _check_at_least(self, 1, "kernel_size", where="head.")
        _check_choice("head.pooling", self.pooling, get_args(HeadPooling))


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One scaled network; only the number of classes is open.

    Attributes:
      name: published name; also the prefix of its variables in a published checkpoint.
      stem: the layers before the blocks; None feeds the images to the blocks.
      blocks: in order; the input of each is the output of the one before.
      head: the layers between the blocks and the classifier.
      resolution: size of the images that the network is trained on, in pixels.
      eval_resolution: size of the images that it is evaluated and served on, in pixels.
      dropout: rate before the classifier, in [0, 1).
      survival_probability: stochastic depth, of the last block, in (0, 1]; see
        `block_survival_probability`.
      activation: name of a Keras activation.
      batch_norm_momentum: share of the old moving statistics kept at an update, in [0, 1).
      batch_norm_epsilon: added to the variance.
      mean_rgb: subtracted from images on the scale 0..255.
      stddev_rgb: images on the scale 0..255 are divided by it.
      padding: of convolutions with a stride. "same": TensorFlow's, where an odd pixel is added at the end;
        "symmetric": PyTorch's, as much at either side. Outputs have the same shape.
    """

    name: str
    stem: StemSpec | None
    blocks: tuple[BlockSpec, ...]
    head: HeadSpec
    resolution: Size
    eval_resolution: Size
    dropout: float
    survival_probability: float
    activation: str
    batch_norm_momentum: float
    batch_norm_epsilon: float
    mean_rgb: RGB
    stddev_rgb: RGB
    padding: Padding = "same"

    def __post_init__(self) -> None:
        _check_choice("padding", self.padding, get_args(Padding))
        for key in ("resolution", "eval_resolution"):
            if min(height_width(getattr(self, key))) < 1:
                self._reject(key, "1 or more")
        if not 0.0 <= self.dropout < 1.0:
            self._reject("dropout", "0 <= dropout < 1")
        if not 0.0 < self.survival_probability <= 1.0:
            self._reject(
                "survival_probability",
                "0 < survival_probability <= 1 (1 turns stochastic depth off)",
            )
        if not min(self.stddev_rgb) > 0.0:
            self._reject("stddev_rgb", "numbers above 0")
        if not self.blocks:
            self._reject("blocks", "1 or more")
        filters = self.stem.filters if self.stem else IMAGE_CHANNELS
        for index, block in enumerate(self.blocks):
            if (block.index, block.input_filters) != (index, filters):
                raise SpecError(
                    f"{self.name}: block {index} is numbered {block.index} and takes "
                    f"{block.input_filters} filters, expected number {index} and {filters} filters"
                )
            filters = block.output_filters

    def _reject(self, key: str, expected: str) -> None:
        raise SpecError(f"{self.name}: {key} is {getattr(self, key)}, expected {expected}")

    def block_survival_probability(self, index: int) -> float:
        """Return the probability that the branch of block `index` is kept in training.

        Block i of N survives with probability 1 - (1 - survival_probability) * i / N: from 1 at
        the first, falling linearly (arXiv 1603.09382), as in the published EfficientNet code.
        """
        return 1.0 - (1.0 - self.survival_probability) * index / len(self.blocks)

    @cached_property
    def stages(self) -> tuple[tuple[BlockSpec, ...], ...]:
        """The blocks of each stage, in order."""
        return tuple(tuple(group) for _, group in groupby(self.blocks, lambda block: block.stage))

    @cached_property
    def reductions(self) -> tuple[int, ...]:
        """Index of the last block at each stride: 2, 4, 8, 16 and 32 in the published models."""
        last = len(self.blocks) - 1
        return tuple(i for i in range(last + 1) if i == last or self.blocks[i + 1].stride > 1)


@dataclass(frozen=True)
class Coefficients:
    """One row of a family's table: a model's scale and its dropout.

    Attributes:
      width: multiplies filters.
      depth: multiplies repeats.
      resolution: size of the training images, in pixels.
      dropout: rate before the classifier, in [0, 1).
      eval_resolution: size of the evaluation images, in pixels; None: that of the training images.
    """

    width: float
    depth: float
    resolution: Size
    dropout: float
    eval_resolution: Size | None = None

    def __post_init__(self) -> None:
        for name in ("width", "depth"):
            if not getattr(self, name) > 0.0:
                raise SpecError(f"{name} is {getattr(self, name)}, expected a number above 0")


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models that share one table of stages.

    Attributes:
      base: name of the unscaled model.
      models: coefficients by model name.
      stages: the unscaled stages.
      stem: with unscaled filters.
      head: with unscaled filters.
      activation, mean_rgb, stddev_rgb, survival_probability, batch_norm_momentum,
        batch_norm_epsilon: as in `ModelSpec`.
      fixed_ends: the Lite rule: the coefficients scale neither the filters of stem and head nor the
        repeats of the first and the last stage.
      limit_rounding_loss: the V1 rule: rounding never loses more than 10 % of the filters. The
        published V2 code does not have it.
    """

    base: str
    models: Mapping[str, Coefficients] = field(hash=False)
    stages: tuple[StageSpec, ...]
    stem: StemSpec
    head: HeadSpec
    activation: str
    mean_rgb: RGB
    stddev_rgb: RGB
    survival_probability: float = 0.8
    batch_norm_momentum: float = 0.99
    batch_norm_epsilon: float = 1e-3
    fixed_ends: bool = False
    limit_rounding_loss: bool = True


def _check_at_least(spec: Any, least: int, *keys: str, where: str) -> None:
    for key in keys:
        if getattr(spec, key) < least:
            raise SpecError(f"{where}{key} is {getattr(spec, key)}, expected {least} or more")


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SpecError(f"{key} is {value!r}, expected {', '.join(choices)}")
