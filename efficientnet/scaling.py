"""Compound scaling: one number scales width, depth and resolution together (arXiv 1905.11946)."""

import math
from dataclasses import replace

from efficientnet.spec import Coefficients, Family, ModelSpec, Size, expand_stages

# Section 3.3 of the paper: found by grid search at phi = 1, with alpha * beta^2 * gamma^2 near 2,
# so that every step of phi doubles the multiply-adds.
ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15
DIVISOR = 8


def compound_coefficients(phi: float, base: Coefficients) -> Coefficients:
    """Scale depth by 1.2^phi, width by 1.1^phi and resolution by 1.15^phi.

    Args:
      phi: compound coefficient; 0 is the base itself, 1 costs about twice as much; may be fractional
        or negative.
      base: coefficients of the unscaled model.

    Returns:
      The scaled coefficients. The resolution is rounded to the nearest multiple of 8 pixels, so
      that the first three reductions divide it evenly; dropout is the base's. The published b1..b7
      follow the paper's rule only roughly; get them by name.
    """
    return replace(
        base,
        width=base.width * BETA**phi,
        depth=base.depth * ALPHA**phi,
        resolution=_scale_size(base.resolution, phi),
        eval_resolution=base.eval_resolution and _scale_size(base.eval_resolution, phi),
    )


def _scale_size(size: Size, phi: float) -> Size:
    if not isinstance(size, int):
        height, width = size
        return _scale_side(height, phi), _scale_side(width, phi)
    return _scale_side(size, phi)


def _scale_side(side: int, phi: float) -> int:
    return max(DIVISOR, round(side * GAMMA**phi / DIVISOR) * DIVISOR)


def round_filters(filters: int, width: float, *, limit_loss: bool = True) -> int:
    """Scale a number of filters and round it to the nearest multiple of 8, at least 8.

    Args:
      filters: unscaled filters.
      width: the coefficient.
      limit_loss: whether to round up if rounding down loses more than 10 % (V1 and Lite). The
        published V2 code does not.
    """
    scaled = filters * width
    rounded = max(DIVISOR, int(scaled + DIVISOR / 2) // DIVISOR * DIVISOR)
    if limit_loss and rounded < 0.9 * scaled:
        rounded += DIVISOR
    return rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Scale a number of repeats and round it up."""
    return math.ceil(depth * repeats)


def scale(family: Family, name: str, coefficients: Coefficients) -> ModelSpec:
    """Apply coefficients to a family's table.

    Args:
      family: the table.
      name: name of the resulting network.
      coefficients: scale of width, depth and resolution, and the dropout rate.

    Returns:
      The network, with every number final.

    Raises:
      SpecError: a scaled number is out of range.
    """
    ends = replace(coefficients, width=1.0, depth=1.0) if family.fixed_ends else coefficients
    last = len(family.stages) - 1

    def filters(unscaled: int, by: Coefficients) -> int:
        return round_filters(unscaled, by.width, limit_loss=family.limit_rounding_loss)

    stem, head = family.stem, family.head
    stem = replace(stem, filters=filters(stem.filters, ends))
    if head.filters is not None:
        head = replace(head, filters=filters(head.filters, ends))
    stages = (
        replace(
            stage,
            repeats=round_repeats(stage.repeats, (ends if i in (0, last) else coefficients).depth),
            output_filters=filters(stage.output_filters, coefficients),
        )
        for i, stage in enumerate(family.stages)
    )
    resolution, eval_resolution = coefficients.resolution, coefficients.eval_resolution
    return ModelSpec(
        name=name,
        stem=stem,
        blocks=expand_stages(stages, stem.filters),
        head=head,
        resolution=resolution,
        eval_resolution=resolution if eval_resolution is None else eval_resolution,
        dropout=coefficients.dropout,
        survival_probability=family.survival_probability,
        activation=family.activation,
        batch_norm_momentum=family.batch_norm_momentum,
        batch_norm_epsilon=family.batch_norm_epsilon,
        mean_rgb=family.mean_rgb,
        stddev_rgb=family.stddev_rgb,
    )
