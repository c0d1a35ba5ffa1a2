"""Names of efficientnet_pytorch (github.com/lukemelas/EfficientNet-PyTorch) and of its fork for Lite.

Blocks are numbered from 0 throughout, as ours; `_bn0` is the expansion's, `_bn1` the depthwise
convolution's, `_bn2` the projection's.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath

import numpy as np

from efficientnet.spec import ModelSpec
from efficientnet.weights.expectations import Expectations, published_expectations
from efficientnet.weights.matching import Weights
from efficientnet.weights.torch_layout import from_torch

HALF = ((127.5,) * 3, (127.5,) * 3)  # of AdvProp's weights

PARTS = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "se_reduce": "_se_reduce",
    "se_expand": "_se_expand",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}


def lukemelas_layers(spec: ModelSpec) -> dict[str, str]:
    """Map the names of our layers that have variables to theirs."""
    layers = {
        "stem_conv": "_conv_stem",
        "stem_bn": "_bn0",
        "head_conv": "_conv_head",
        "head_bn": "_bn1",
        "classifier": "_fc",
    }
    for block in spec.blocks:
        layers |= {
            f"{block.name}_{ours}": f"_blocks.{block.index}.{theirs}"
            for ours, theirs in PARTS.items()
        }
    return layers


def from_lukemelas(tensors: Mapping[str, np.ndarray], spec: ModelSpec, source: str) -> Weights:
    """Convert the tensors of an efficientnet_pytorch model to our weights; see `from_torch`."""
    return from_torch(tensors, spec, lukemelas_layers(spec), source)


def lukemelas_expectations(file: str, spec: ModelSpec) -> Expectations:
    """Return what the weights expect; files of AdvProp's weights begin with `adv-`."""
    expected = published_expectations(spec, f"efficientnet_pytorch's {spec.name}")
    if PurePath(file).name.startswith("adv-"):
        return replace(expected, normalization=HALF)
    return expected
