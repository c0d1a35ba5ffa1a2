"""Read the published checkpoints of EfficientDet, and map their variables to ours.

Layout (github.com/google/automl, efficientdet, TensorFlow 1 format): the backbone as in the classifier's
checkpoint, then `resample_p6/...`, `fpn_cells/cell_C/fnodeN/...`, `class_net/...` and `box_net/...`. Every
variable has its moving average, `VARIABLE/ExponentialMovingAverage`.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from efficientnet.detection.anchors import MIN_LEVEL, Anchors
from efficientnet.detection.bifpn import cell_nodes
from efficientnet.detection.catalog import DetectorSpec
from efficientnet.detection.network import detector_complexity
from efficientnet.spec import ModelSpec
from efficientnet.weights.matching import Weights, WeightsError, require_match
from efficientnet.weights.tf1 import EMA, known_companions, tf1_layers
from efficientnet.weights.tf_checkpoint import StoredWeights, open_checkpoint

PUBLISHED_CLASSES = 90
PREDICT = "class_net/class-predict"


def efficientdet_names(
    spec: DetectorSpec, backbone: ModelSpec, num_classes: int = PUBLISHED_CLASSES
) -> dict[str, str]:
    """Map every variable of a detector to its name in a published checkpoint.

    Returns:
      {`bifpn_0_node_2_fuse/weight_1`: `fpn_cells/cell_0/fnode2/WSM_1`, ...}. Shapes are the same on both
      sides.

    Raises:
      WeightsError: the backbone has a layer that no published checkpoint has.
    """
    layers = {name: f"{backbone.name}/{stored}" for name, stored in tf1_layers(backbone).items()}
    layers |= dict(_detector_layers(spec))
    names = {}
    for path in detector_complexity(spec, backbone, num_classes=num_classes).variable_shapes:
        layer, variable = path.split("/")
        if layer not in layers:
            raise WeightsError(f"{backbone.name}: no published checkpoint has a layer like {layer}")
        if variable.startswith("weight_"):
            number = int(variable.removeprefix("weight_"))
            variable = f"WSM_{number}" if number else "WSM"
        elif layer.endswith("_depthwise_conv"):
            variable = "depthwise_kernel"
        names[path] = f"{layers[layer]}/{variable}"
    return names


def is_efficientdet(names: Iterable[str]) -> bool:
    """Return whether these are the variables of a detector."""
    return any(name.startswith("fpn_cells/") for name in names)


def read_efficientdet_checkpoint(
    checkpoint: str | Path, backbone: ModelSpec, *, raw: bool = False
) -> Weights:
    """Read a checkpoint of the published code.

    Args:
      checkpoint: directory that holds one, or the prefix of one; local or gs://.
      backbone: its backbone; all else follows from the names.
      raw: whether to read the last weights instead of their moving averages.

    Returns:
      Every variable of the detector, float32.

    Raises:
      WeightsError: there is no checkpoint, or its variables are not exactly the detector's. The
        optimizer's slots and the global step are known and ignored.
    """
    stored = open_checkpoint(checkpoint)
    spec, num_classes = _stored_detector(stored)
    names = efficientdet_names(spec, backbone, num_classes)
    wanted = {path: name if raw else f"{name}/{EMA}" for path, name in names.items()}
    expected = detector_complexity(spec, backbone, num_classes=num_classes).variable_shapes
    shapes = {wanted[path]: shape for path, shape in expected.items()}
    known = known_companions(names.values())
    found = {
        name: shape for name, shape in stored.shapes.items() if name in shapes or name not in known
    }
    require_match(found, shapes, stored.prefix, spec.name)
    return stored.read(wanted)


def _stored_detector(stored: StoredWeights) -> tuple[DetectorSpec, int]:
    """Return the detector whose variables are stored, and its number of classes.

    Raises:
      WeightsError: a variable is missing that says so.
    """
    try:
        filters = stored.shapes[f"{PREDICT}/pointwise_kernel"][2]
        outputs = stored.shapes[f"{PREDICT}/bias"][0]
    except (KeyError, IndexError):
        raise WeightsError(f"{stored.prefix} has no {PREDICT} with kernel and bias") from None

    def numbers(pattern: str) -> set[int]:
        return {int(found[1]) for name in stored.shapes if (found := re.match(pattern, name))}

    repeats = numbers(r"class_net/class-(\d+)/")
    levels = numbers(r"class_net/class-0-bn-(\d+)/")
    spec = DetectorSpec(
        name="the stored detector",
        backbone="",
        resolution=0,
        filters=filters,
        cells=len(numbers(r"fpn_cells/cell_(\d+)/")),
        head_repeats=len(repeats),
        fusion="fast" if any(name.endswith("/WSM") for name in stored.shapes) else "sum",
        anchors=Anchors(max(levels, default=7)),
    )
    return spec, outputs // spec.anchors.per_place


def _detector_layers(spec: DetectorSpec) -> Iterator[tuple[str, str]]:
    """Yield our layers on top of the backbone that have variables, and theirs."""
    first_pooled = 6  # P6 is made of P5; P7 and P8 only pool
    yield from _resampling_layers(f"p{first_pooled}", f"resample_p{first_pooled}")
    levels = spec.anchors.levels
    for cell in range(spec.cells):
        for number, node in enumerate(cell_nodes(levels)):
            ours = f"bifpn_{cell}_node_{number}"
            theirs = f"fpn_cells/cell_{cell}/fnode{number}"
            made = len(levels) + number  # features before this node
            yield f"{ours}_fuse", theirs
            yield f"{ours}_conv", f"{theirs}/op_after_combine{made}/conv"
            yield f"{ours}_bn", f"{theirs}/op_after_combine{made}/bn"
            for i, source in enumerate(node.sources):
                yield from _resampling_layers(
                    f"{ours}_input_{i}", f"{theirs}/resample_{i}_{source}_{made}"
                )
    for head in ("class", "box"):
        yield f"{head}_predict", f"{head}_net/{head}-predict"
        for repeat in range(spec.head_repeats):
            yield f"{head}_{repeat}_conv", f"{head}_net/{head}-{repeat}"
            for level in range(MIN_LEVEL, spec.anchors.max_level + 1):
                theirs = f"{head}_net/{head}-{repeat}-bn-{level}"
                yield f"{head}_{repeat}_bn_level_{level}", theirs


def _resampling_layers(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield f"{ours}_conv", f"{theirs}/conv2d"
    yield f"{ours}_bn", f"{theirs}/bn"
