"""What a network is, as frozen plain data: a family's table, and one model's stages and blocks.

Nothing here knows Keras. A `Family` is what a paper publishes: one table of stages and one row of
coefficients per model. `scaling.scale` turns the two into a `ModelSpec`, which says everything that
`builder` needs to build the network and `complexity` needs to measure it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

RGB = tuple[float, float, float]
Include = Literal["logits", "pooled", "features"]
"""Where a network ends: after the classifier, after pooling, or after the last block."""


@dataclass(frozen=True)
class StageSpec:
    """A run of equal blocks; only the first takes the stride and the change of filters.

    Attributes:
      repeats: number of blocks, at least 1.
      kernel_size: side of the square depthwise kernel, in pixels.
      stride: stride of the first block, 1 or 2.
      expand_ratio: filters inside a block over its input filters; 1 leaves the expansion out.
      input_filters: filters that enter the first block.
      output_filters: filters that leave every block.
      se_ratio: squeeze-and-excite filters over the block's INPUT filters; 0 leaves it out.
      block: kind of block, a key of `blocks.BLOCKS`.
    """

    repeats: int
    kernel_size: int
    stride: int
    expand_ratio: int
    input_filters: int
    output_filters: int
    se_ratio: float = 0.25
    block: str = "mbconv"


@dataclass(frozen=True)
class BlockSpec:
    """One block of the finished network, counted from 0 over all stages."""

    index: int
    block: str
    kernel_size: int
    stride: int
    expand_ratio: int
    input_filters: int
    output_filters: int
    se_ratio: float
    survival_probability: float

    @property
    def name(self) -> str:
        """Prefix of the names of the block's layers."""
        return f"block_{self.index}"

    @property
    def expanded_filters(self) -> int:
        """Filters of the depthwise convolution."""
        return self.input_filters * self.expand_ratio

    @property
    def squeeze_filters(self) -> int:
        """Filters between the two squeeze-and-excite convolutions; 0 means there are none.

        A fraction of the block's input filters, not of its expanded ones.
        """
        return max(1, int(self.input_filters * self.se_ratio)) if self.se_ratio else 0

    @property
    def has_skip(self) -> bool:
        """Whether the block's input is added to its output."""
        return self.stride == 1 and self.input_filters == self.output_filters


@dataclass(frozen=True)
class ModelSpec:
    """One network: already scaled, nothing left to decide but the number of classes.

    Attributes:
      name: published name; also the prefix of its variables in a published checkpoint.
      stem_filters: filters of the first 3x3 convolution, stride 2.
      stages: the scaled stages, in order.
      head_filters: filters of the 1x1 convolution before pooling.
      resolution: side of the square input that the network was scaled for, in pixels.
      dropout: rate before the classifier, in [0, 1).
      survival_probability: stochastic depth, of the last block, in (0, 1]; see `blocks`.
      activation: name of a Keras activation.
      batch_norm_momentum: share of the old moving statistics kept at an update, in [0, 1).
      batch_norm_epsilon: added to the variance.
      mean_rgb: subtracted from images on the scale 0..255.
      stddev_rgb: images on the scale 0..255 are divided by it.
    """

    name: str
    stem_filters: int
    stages: tuple[StageSpec, ...]
    head_filters: int
    resolution: int
    dropout: float
    survival_probability: float
    activation: str
    batch_norm_momentum: float
    batch_norm_epsilon: float
    mean_rgb: RGB
    stddev_rgb: RGB

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise ValueError(f"{self.name}: resolution is {self.resolution}, expected 1 or more")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"{self.name}: dropout is {self.dropout}, expected 0 <= dropout < 1")
        if not 0.0 < self.survival_probability <= 1.0:
            raise ValueError(
                f"{self.name}: survival_probability is {self.survival_probability}, "
                "expected 0 < survival_probability <= 1 (1 turns stochastic depth off)"
            )

    @cached_property
    def blocks(self) -> tuple[BlockSpec, ...]:
        """All blocks in order.

        Block i of N survives with probability 1 - (1 - survival_probability) * i / N: from 1 at
        the first, falling linearly (arXiv 1603.09382), as in the published EfficientNet code.
        """
        total = sum(stage.repeats for stage in self.stages)
        blocks: list[BlockSpec] = []
        for stage in self.stages:
            for repeat in range(stage.repeats):
                index = len(blocks)
                blocks.append(
                    BlockSpec(
                        index=index,
                        block=stage.block,
                        kernel_size=stage.kernel_size,
                        stride=stage.stride if repeat == 0 else 1,
                        expand_ratio=stage.expand_ratio,
                        input_filters=stage.input_filters if repeat == 0 else stage.output_filters,
                        output_filters=stage.output_filters,
                        se_ratio=stage.se_ratio,
                        survival_probability=1.0
                        - (1.0 - self.survival_probability) * index / total,
                    )
                )
        return tuple(blocks)

    @cached_property
    def reductions(self) -> tuple[int, ...]:
        """Index of the last block at each stride: 2, 4, 8, 16 and 32 in the published models."""
        last = len(self.blocks) - 1
        return tuple(i for i in range(last + 1) if i == last or self.blocks[i + 1].stride > 1)


@dataclass(frozen=True)
class Coefficients:
    """One row of a family's table: how far a model is scaled, and its dropout.

    Attributes:
      width: multiplies filters.
      depth: multiplies repeats.
      resolution: side of the square input, in pixels.
      dropout: rate before the classifier.
    """

    width: float
    depth: float
    resolution: int
    dropout: float

    def __post_init__(self) -> None:
        for name in ("width", "depth"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number above 0")


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models that share one table of stages.

    Attributes:
      base: name of the unscaled model.
      models: coefficients by model name.
      stages: the unscaled stages.
      stem_filters: unscaled filters of the stem.
      head_filters: unscaled filters of the head.
      activation, mean_rgb, stddev_rgb, survival_probability, batch_norm_momentum,
        batch_norm_epsilon: as in `ModelSpec`.
      fixed_ends: the Lite rule: stem and head keep their filters, the first and the last stage
        their repeats, whatever the coefficients.
      limit_rounding_loss: the V1 rule: rounding never loses more than 10 % of the filters.
    """

    base: str
    models: Mapping[str, Coefficients] = field(hash=False)
    stages: tuple[StageSpec, ...]
    stem_filters: int
    head_filters: int
    activation: str
    mean_rgb: RGB
    stddev_rgb: RGB
    survival_probability: float = 0.8
    batch_norm_momentum: float = 0.99
    batch_norm_epsilon: float = 1e-3
    fixed_ends: bool = False
    limit_rounding_loss: bool = True
