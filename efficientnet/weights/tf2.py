"""Read checkpoints of the published TensorFlow 2 script for EfficientNetV2, and map their variables to ours.

Layout (github.com/google/automl, efficientnetv2/main_tf2.py): the attributes of the model's objects,
`_blocks/5/_expand_conv/kernel/.ATTRIBUTES/VARIABLE_VALUE`. There is no moving average in it.
"""

from pathlib import Path

from efficientnet.complexity import complexity
from efficientnet.spec import ModelSpec
from efficientnet.weights.matching import Weights, require_match
from efficientnet.weights.tf_checkpoint import name_variables_by_layer, open_checkpoint

VALUE = ".ATTRIBUTES/VARIABLE_VALUE"
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# Beside the network's variables: the optimizer, the step, and Keras' own counters.
COMPANIONS = ("optimizer/", "save_counter/", "step/", "keras_api/")


def tf2_names(spec: ModelSpec, num_classes: int = 1000) -> dict[str, str]:
    """Map every variable of a network to its name in such a checkpoint, with the same shape.

    Raises:
      WeightsError: the network has a layer that no such checkpoint has.
    """
    named = name_variables_by_layer(spec, num_classes, _tf2_layers(spec))
    return {path: f"{name}/{VALUE}" for path, name in named.items()}


def read_tf2_checkpoint(
    checkpoint: str | Path, spec: ModelSpec, *, num_classes: int | None = None
) -> Weights:
    """Read a checkpoint of the published TensorFlow 2 script.

    Args:
      checkpoint: directory that holds one, or the prefix of one; local or gs://.
      spec: the model that was trained.
      num_classes: required units of the classifier; None takes any number.

    Returns:
      Every variable of the model, float32.

    Raises:
      WeightsError: there is no checkpoint, or its variables are not exactly the model's.
    """
    stored = open_checkpoint(checkpoint)
    if num_classes is None:
        num_classes = stored.shapes.get(f"_fc/bias/{VALUE}", (1000,))[0]
    names = tf2_names(spec, num_classes)
    expected = complexity(spec, num_classes=num_classes).variable_shapes
    found = {
        name: shape
        for name, shape in stored.shapes.items()
        if name != OBJECT_GRAPH and not name.startswith(COMPANIONS)
    }
    wanted = {names[path]: shape for path, shape in expected.items()}
    require_match(found, wanted, stored.prefix, spec.name)
    return stored.read(names)


def _tf2_layers(spec: ModelSpec) -> dict[str, str]:
    """Map the names of our layers that have variables to theirs."""
    layers = {
        "stem_conv": "_stem/_conv_stem",
        "stem_bn": "_stem/_norm",
        "head_conv": "_head/_conv_head",
        "head_bn": "_head/_norm",
        "classifier": "_fc",
    }
    for block in spec.blocks:
        scope = f"_blocks/{block.index}"
        project = 1 if block.block == "fused_mbconv" else 2
        layers |= {
            f"{block.name}_expand_conv": f"{scope}/_expand_conv",
            f"{block.name}_expand_bn": f"{scope}/_norm0",
            f"{block.name}_depthwise_conv": f"{scope}/_depthwise_conv",
            f"{block.name}_depthwise_bn": f"{scope}/_norm1",
            f"{block.name}_se_reduce": f"{scope}/_se/_se_reduce",
            f"{block.name}_se_expand": f"{scope}/_se/_se_expand",
            f"{block.name}_project_conv": f"{scope}/_project_conv",
            f"{block.name}_project_bn": f"{scope}/_norm{project}",
        }
    return layers
