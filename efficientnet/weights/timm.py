"""Names of timm's EfficientNets (github.com/huggingface/pytorch-image-models), both ways.

Their blocks are numbered by stage and repeat. In a block without expansion, `bn1`, `bn2` and `conv_pw` are
other layers than in one with it, so a map by suffixes alone would fit in places and be wrong.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np

from efficientnet.families.v1 import V1
from efficientnet.spec import RGB, BlockSpec, ModelSpec, Padding
from efficientnet.weights.containers import exists, read_bytes
from efficientnet.weights.expectations import Expectations, published_expectations
from efficientnet.weights.matching import Weights, WeightsError
from efficientnet.weights.torch_layout import from_torch, to_torch

ARCHITECTURE = re.compile(r"(tf_)?efficientnet(v2)?_[a-z0-9_.]+")
RECIPES = r"(_(ra|aa)\d*)?(\..+)?"  # what may follow an architecture: "_ra", ".ra_in1k"
HALF = ((127.5,) * 3, (127.5,) * 3)  # mean = std = .5, as AdvProp and ImageNet-21k on V2-b3
ROUNDED = 1.0  # timm rounds the published 127 and 128 to 127.5, which makes no difference

# Our layers of a block, by kind of block.
EXPANDED = {
    "expand_conv": "conv_pw",
    "expand_bn": "bn1",
    "depthwise_conv": "conv_dw",
    "depthwise_bn": "bn2",
    "project_conv": "conv_pwl",
    "project_bn": "bn3",
}
NOT_EXPANDED = {
    "depthwise_conv": "conv_dw",
    "depthwise_bn": "bn1",
    "project_conv": "conv_pw",
    "project_bn": "bn2",
}
FUSED = {
    "expand_conv": "conv_exp",
    "expand_bn": "bn1",
    "project_conv": "conv_pwl",
    "project_bn": "bn2",
}
FUSED_NOT_EXPANDED = {"project_conv": "conv", "project_bn": "bn1"}
SQUEEZE_EXCITE = {"se_reduce": "se.conv_reduce", "se_expand": "se.conv_expand"}


def timm_layers(spec: ModelSpec) -> dict[str, str]:
    """Map the names of our layers that have variables to timm's."""
    layers = {
        "stem_conv": "conv_stem",
        "stem_bn": "bn1",
        "head_conv": "conv_head",
        "head_bn": "bn2",
        "classifier": "classifier",
    }
    for number, stage in enumerate(spec.stages):
        for repeat, block in enumerate(stage):
            layers |= {
                f"{block.name}_{ours}": f"blocks.{number}.{repeat}.{theirs}"
                for ours, theirs in (_parts(block) | SQUEEZE_EXCITE).items()
            }
    return layers


def from_timm(tensors: Mapping[str, np.ndarray], spec: ModelSpec, source: str) -> Weights:
    """Convert the tensors of a timm model to our weights; see `torch_layout.from_torch`."""
    return from_torch(tensors, spec, timm_layers(spec), source)


def to_timm(weights: Weights, spec: ModelSpec, num_classes: int | None) -> dict[str, np.ndarray]:
    """Convert our weights to the tensors of a timm model; see `torch_layout.to_torch`.

    `timm.create_model(timm_architecture(spec.name), num_classes=...)` loads them.
    """
    return to_torch(weights, spec, timm_layers(spec), num_classes)


def timm_architecture(name: str, padding: Padding = "same") -> str:
    """Return timm's name of a published model: `tf_efficientnet_b0`, or `efficientnet_b0` if symmetric."""
    return ("tf_" if padding == "same" else "") + name.replace("-", "_")


def timm_expectations(file: str, spec: ModelSpec, metadata: Mapping[str, str]) -> Expectations:
    """Return what the weights of a timm file expect.

    The arrays do not show it. The architecture is that of the file's metadata (which `to_timm`'s users
    write), else of the `config.json` beside it (as on the Hugging Face hub), else of the file's name.

    Args:
      file: the file, local or gs://.
      spec: the network.
      metadata: of the file.

    Raises:
      WeightsError: a variant of another network, or a config.json that cannot be read.
    """
    config = _config_beside(file)
    named = ARCHITECTURE.search(PurePath(file).stem)
    name = metadata.get("architecture") or config.get("architecture") or (named and named[0])
    if not name:
        assumed = published_expectations(spec, f"timm's {timm_architecture(spec.name)}")
        return replace(assumed, note="nothing names the variant: a tf_ one is assumed")
    if not name.startswith("tf_"):
        return _by_config(_symmetric(file, name, spec), config.get("pretrained_cfg"), file)
    expected = published_expectations(spec, f"timm's {name}")
    tags = set(re.split(r"[._-]", name.lower()))
    if "ap" in tags or ("v2_b3" in name and tags & {"in21k", "21k", "21ft1k"}):
        expected = replace(expected, normalization=HALF)
    return _by_config(expected, config.get("pretrained_cfg"), file)


def _symmetric(file: str, name: str, spec: ModelSpec) -> Expectations:
    """Return what a variant expects that was trained in PyTorch, by its padding and epsilon."""
    if not re.fullmatch(timm_architecture(spec.name, "symmetric") + RECIPES, name):
        raise WeightsError(
            f"{file} is of timm's {name}, another network than {spec.name}; expected"
            f" {timm_architecture(spec.name)} or {timm_architecture(spec.name, 'symmetric')}"
        )
    return Expectations(
        f"timm's {name}",
        normalization=(V1.mean_rgb, V1.stddev_rgb),  # of Lite, too
        batch_norm_epsilon=1e-5,
        padding="symmetric",
        resize="bicubic",
    )


def _config_beside(file: str) -> dict[str, Any]:
    path = f"{file.rpartition('/')[0] or '.'}/config.json"
    if not exists(path):
        return {}
    try:
        config = json.loads(read_bytes(path))
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON: {error}") from error
    known = isinstance(config, dict) and isinstance(config.get("architecture"), str)
    return config if known else {}


def _by_config(expected: Expectations, config: Any, file: str) -> Expectations:
    """Return the expectations with what the `pretrained_cfg` of the hub says instead."""
    if not isinstance(config, dict):
        return expected
    try:
        changes: dict[str, Any] = {}
        if "mean" in config and "std" in config:
            given = _scale_to_255(config["mean"]), _scale_to_255(config["std"])
            own = expected.normalization
            if own is None or not np.allclose(given, own, atol=ROUNDED):
                changes["normalization"] = given
        if "input_size" in config:
            _, height, width = map(int, config["input_size"])
            changes["image_size"] = height if height == width else (height, width)
        fraction = config.get("test_crop_pct") or config.get("crop_pct")
        if fraction and 0 < float(fraction) <= 1 and expected.crop_fraction is None:
            changes["crop_fraction"] = float(fraction)
        if config.get("interpolation") in ("bicubic", "bilinear"):
            changes["resize"] = config["interpolation"]
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{file}: the config.json beside it is damaged: {error}") from error
    return replace(expected, **changes)


def _scale_to_255(values: Any) -> RGB:
    red, green, blue = (255 * float(value) for value in values)
    return (red, green, blue)


def _parts(block: BlockSpec) -> dict[str, str]:
    expands = block.expanded_filters is not None
    if block.block == "fused_mbconv":
        return FUSED if expands else FUSED_NOT_EXPANDED
    return EXPANDED if expands else NOT_EXPANDED
