"""EfficientNetV2 s, m, l, xl and b0..b3 (arXiv 2104.00298), as the published code has them."""

from collections.abc import Mapping, Sequence
from typing import Any

from efficientnet.spec import Coefficients, Family, HeadSpec, StageSpec, StemSpec

MEAN_RGB = STDDEV_RGB = (128.0, 128.0, 128.0)  # of s, m, l and xl; the b models normalise as V1
B_MEAN_RGB = (0.485 * 255, 0.456 * 255, 0.406 * 255)
B_STDDEV_RGB = (0.229 * 255, 0.224 * 255, 0.225 * 255)


def _fused_mbconv(repeats: int, stride: int, expand_ratio: int, filters: int) -> StageSpec:
    return StageSpec(repeats, 3, stride, expand_ratio, filters, se_ratio=0.0, block="fused_mbconv")


def _mbconv(repeats: int, stride: int, expand_ratio: int, filters: int) -> StageSpec:
    return StageSpec(repeats, 3, stride, expand_ratio, filters)


def _family(
    models: Mapping[str, Coefficients],
    stem_filters: int,
    stages: Sequence[StageSpec],
    **options: Any,
) -> Family:
    return Family(
        **{
            "base": next(iter(models)),
            "models": models,
            "stages": tuple(stages),
            "stem": StemSpec(stem_filters),
            "head": HeadSpec(1280),
            "activation": "silu",
            "batch_norm_momentum": 0.9,  # as the code; the paper says 0.99
            "limit_rounding_loss": False,
            "mean_rgb": MEAN_RGB,
            "stddev_rgb": STDDEV_RGB,
            **options,
        }
    )


def _large(
    name: str, train: int, evaluation: int, dropout: float, stem: int, *stages: StageSpec
) -> Family:
    """Return the family of one model, whose table is final."""
    return _family({name: Coefficients(1.0, 1.0, train, dropout, evaluation)}, stem, stages)


# Repeats, stride, expand ratio, output filters; all kernels are 3 x 3.
V2B = _family(
    {
        # width, depth, training resolution, dropout, evaluation resolution
        "efficientnetv2-b0": Coefficients(1.0, 1.0, 192, 0.2, 224),
        "efficientnetv2-b1": Coefficients(1.0, 1.1, 192, 0.2, 240),
        "efficientnetv2-b2": Coefficients(1.1, 1.2, 208, 0.3, 260),
        "efficientnetv2-b3": Coefficients(1.2, 1.4, 240, 0.3, 300),
    },
    32,
    (
        _fused_mbconv(1, 1, 1, 16),
        _fused_mbconv(2, 2, 4, 32),
        _fused_mbconv(2, 2, 4, 48),
        _mbconv(3, 2, 4, 96),
        _mbconv(5, 1, 6, 112),
        _mbconv(8, 2, 6, 192),
    ),
    mean_rgb=B_MEAN_RGB,
    stddev_rgb=B_STDDEV_RGB,
)
V2S = _large(
    "efficientnetv2-s", 300, 384, 0.2, 24,
    _fused_mbconv(2, 1, 1, 24),
    _fused_mbconv(4, 2, 4, 48),
    _fused_mbconv(4, 2, 4, 64),
    _mbconv(6, 2, 4, 128),
    _mbconv(9, 1, 6, 160),
    _mbconv(15, 2, 6, 256),
)  # fmt: skip
V2M = _large(
    "efficientnetv2-m", 384, 480, 0.3, 24,
    _fused_mbconv(3, 1, 1, 24),
    _fused_mbconv(5, 2, 4, 48),
    _fused_mbconv(5, 2, 4, 80),
    _mbconv(7, 2, 4, 160),
    _mbconv(14, 1, 6, 176),
    _mbconv(18, 2, 6, 304),
    _mbconv(5, 1, 6, 512),
)  # fmt: skip
V2L = _large(
    "efficientnetv2-l", 384, 480, 0.4, 32,
    _fused_mbconv(4, 1, 1, 32),
    _fused_mbconv(7, 2, 4, 64),
    _fused_mbconv(7, 2, 4, 96),
    _mbconv(10, 2, 4, 192),
    _mbconv(19, 1, 6, 224),
    _mbconv(25, 2, 6, 384),
    _mbconv(7, 1, 6, 640),
)  # fmt: skip
V2XL = _large(
    "efficientnetv2-xl", 384, 512, 0.4, 32,
    _fused_mbconv(4, 1, 1, 32),
    _fused_mbconv(8, 2, 4, 64),
    _fused_mbconv(8, 2, 4, 96),
    _mbconv(16, 2, 4, 192),
    _mbconv(24, 1, 6, 256),
    _mbconv(32, 2, 6, 512),
    _mbconv(8, 1, 6, 640),
)  # fmt: skip

LARGE = (V2S, V2M, V2L, V2XL)
FAMILIES = (V2B, *LARGE)
