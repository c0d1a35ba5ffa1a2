"""Read the published TensorFlow 1 checkpoints and map their variables to ours.

Layout (github.com/tensorflow/tpu, models/official/efficientnet; V2: github.com/google/automl,
efficientnetv2): `MODEL/stem/...`,
`MODEL/blocks_0/...`, `MODEL/head/...`; layers of a kind are numbered within each of these scopes in
the order of their first use. Every variable, batch norm's statistics included, has its moving average,
`VARIABLE/ExponentialMovingAverage`, and the optimizer's slots beside it.
"""

from collections.abc import Iterable
from pathlib import Path

from efficientnet.complexity import complexity
from efficientnet.spec import ModelSpec
from efficientnet.weights.matching import Weights, WeightsError, require_match
from efficientnet.weights.tf_checkpoint import name_variables_by_layer, open_checkpoint

EMA = "ExponentialMovingAverage"
SLOTS = ("RMSProp", "RMSProp_1", "Momentum")
GLOBAL_STEP = "global_step"


def tf1_names(spec: ModelSpec, num_classes: int = 1000) -> dict[str, str]:
    """Map every variable of a network to its name in a published checkpoint.

    Args:
      spec: any model made of MBConv and Fused-MBConv blocks; its name is the checkpoint's scope.
      num_classes: units of the classifier.

    Returns:
      {`block_1_expand_conv/kernel`: `efficientnet-b0/blocks_1/conv2d/kernel`, ...}. Shapes are the
      same on both sides.

    Raises:
      WeightsError: the network has a layer that no published checkpoint has.
    """
    named = name_variables_by_layer(spec, num_classes, tf1_layers(spec))
    return {path: f"{spec.name}/{name}" for path, name in named.items()}


def read_tf1_checkpoint(
    checkpoint: str | Path,
    spec: ModelSpec,
    *,
    raw: bool = False,
    num_classes: int | None = None,
) -> Weights:
    """Read a checkpoint of the published code.

    Args:
      checkpoint: directory that holds one, or the prefix of one (`.../model.ckpt`); local or gs://.
      spec: the model that was trained.
      raw: whether to read the last weights instead of their moving averages, which are
        the ones that were evaluated and published.
      num_classes: required units of the classifier; None takes any number.

    Returns:
      Every variable of the model, float32.

    Raises:
      WeightsError: there is no checkpoint, or its variables are not exactly the model's. The
        optimizer's slots and the global step are known and ignored.
    """
    stored_weights = open_checkpoint(checkpoint)
    prefix, shapes = stored_weights.prefix, stored_weights.shapes

    bias = f"{spec.name}/head/dense/bias"
    if num_classes is None:
        num_classes = shapes.get(bias, (1000,))[0]
    names = tf1_names(spec, num_classes)
    stored = {path: name if raw else f"{name}/{EMA}" for path, name in names.items()}

    expected = complexity(spec, num_classes=num_classes).variable_shapes
    known = known_companions(names.values())
    wanted = {stored[path]: shape for path, shape in expected.items()}
    found = {name: shape for name, shape in shapes.items() if name in wanted or name not in known}
    if not raw and not any(name.endswith(f"/{EMA}") for name in shapes):
        raise WeightsError(f"{prefix} has no moving averages. Fix: read the raw weights (--raw)")
    require_match(found, wanted, prefix, spec.name)
    return stored_weights.read(stored)


def tf1_layers(spec: ModelSpec) -> dict[str, str]:
    """Map the names of our layers that have variables to theirs."""
    layers = {
        "stem_conv": "stem/conv2d",
        "stem_bn": "stem/tpu_batch_normalization",
        "head_conv": "head/conv2d",
        "head_bn": "head/tpu_batch_normalization",
        "classifier": "head/dense",
    }
    for block in spec.blocks:
        scope = f"blocks_{block.index}"
        expand = ["expand"] if block.expanded_filters is not None else []
        for i, part in enumerate([*expand, "project"]):
            layers[f"{block.name}_{part}_conv"] = f"{scope}/conv2d{_suffix(i)}"
        depthwise = ["depthwise"] if block.block == "mbconv" else []
        for i, part in enumerate([*expand, *depthwise, "project"]):
            layers[f"{block.name}_{part}_bn"] = f"{scope}/tpu_batch_normalization{_suffix(i)}"
        layers[f"{block.name}_depthwise_conv"] = f"{scope}/depthwise_conv2d"
        layers[f"{block.name}_se_reduce"] = f"{scope}/se/conv2d"
        layers[f"{block.name}_se_expand"] = f"{scope}/se/conv2d_1"
    return layers


def _suffix(number: int) -> str:
    return f"_{number}" if number else ""


def known_companions(names: Iterable[str]) -> set[str]:
    """Return the names that a checkpoint may have in addition to the requested variables."""
    known = {GLOBAL_STEP}
    for name in names:
        known |= {name, f"{name}/{EMA}", *(f"{name}/{slot}" for slot in SLOTS)}
    return known
