"""Published sizes of every detector, from the specification; the built network of one."""

import dataclasses
import math

import pytest

from efficientnet import SpecError, get_spec
from efficientnet.detection import (
    Anchors,
    build_detector,
    detector_complexity,
    get_detector,
    list_detectors,
)

# Anchors; trainable parameters with 90 classes, without the backbone's head; with batch norm's statistics.
GOLDEN_COUNTS = {
    "d0": (49_104, 3_880_067, 3_927_203),
    "d1": (76_725, 6_625_898, 6_697_354),
    "d2": (110_484, 8_097_039, 8_178_815),
    "d3": (150_381, 12_032_296, 12_146_600),
    "d4": (196_416, 20_723_675, 20_890_987),
    "d5": (306_900, 33_653_315, 33_880_707),
    "d6": (306_900, 51_871_782, 52_183_766),
    "d7": (441_936, 51_871_782, 52_183_766),
    "d7x": (442_260, 77_147_166, None),
    "lite0": (19_206, 3_243_470, None),
    "lite1": (27_621, 4_248_318, None),
    "lite2": (37_629, 5_252_334, None),
    "lite3": (49_104, 8_350_862, None),
    "lite3x": (76_725, 9_280_862, None),
    "lite4": (76_725, 15_130_894, None),
}
# What the paper prints, at the published size: low for d5, whose network has 134 (135 in its first version).
BILLIONS = {"d0": 2.54, "d1": 6.10, "d2": 11.0, "d3": 24.9, "d4": 55.2, "d5": 130, "d6": 226}
BILLIONS |= {"d7": 325, "d7x": 410}
SMALL = get_spec("efficientnet-b0", width=0.25, depth=0.5)


def counted(name):
    spec = get_detector(f"efficientdet-{name}")
    return detector_complexity(spec, get_spec(spec.backbone), num_classes=90)


def test_no_detector_lacks_a_golden_count():
    assert list_detectors() == [f"efficientdet-{name}" for name in GOLDEN_COUNTS]


@pytest.mark.parametrize("name", GOLDEN_COUNTS)
def test_specification_has_the_published_parameters_and_anchors(name):
    anchors, trainable, everything = GOLDEN_COUNTS[name]
    spec = get_detector(f"efficientdet-{name}")
    assert spec.anchors.count(spec.resolution) == anchors
    found = counted(name)
    assert found.trainable_parameters == trainable
    assert everything in (None, found.all_parameters)


@pytest.mark.parametrize("name", BILLIONS)
def test_multiply_adds_are_the_published_ones(name):
    assert counted(name).multiply_adds / 1e9 == pytest.approx(BILLIONS[name], rel=0.04)


def test_parts_of_d0_have_the_published_parameters():
    parts = dict.fromkeys(("p6", "bifpn", "class", "box"), 0)
    for layer in counted("d0").layers:
        part = layer.name.split("_")[0]
        if part in parts:
            parts[part] += sum(map(math.prod, layer.weights.values()))
    assert parts == {"p6": 20_672, "bifpn": 175_609, "class": 69_354, "box": 19_044}


@pytest.mark.parametrize(("fusion", "levels"), [("fast", 7), ("sum", 8)])
def test_built_network_is_what_the_specification_says(fusion, levels):
    spec = dataclasses.replace(
        get_detector("efficientdet-d0"),
        filters=16,
        cells=2,
        head_repeats=1,
        fusion=fusion,
        anchors=Anchors(levels),
    )
    size = (96, 160)
    model = build_detector(spec, SMALL, num_classes=3, image_size=size)
    expected = detector_complexity(spec, SMALL, num_classes=3, image_size=size)
    assert {v.path: tuple(v.shape) for v in model.weights} == expected.variable_shapes
    count = spec.anchors.count(size)
    shapes = {name: tuple(x.shape) for name, x in model.output.items()}
    assert shapes == {"classes": (None, count, 3), "boxes": (None, count, 4)}


def test_convolutions_of_the_heads_are_shared_and_batch_norms_are_not():
    variables = counted("d0").variable_shapes
    assert sum(path.startswith("class_0_conv/") for path in variables) == 3
    assert sum(path.startswith("class_0_bn_level_") for path in variables) == 5 * 4


def test_a_detector_of_another_name_is_refused():
    with pytest.raises(SpecError, match="did you mean efficientdet-d7"):
        get_detector("efficientdet-d8")
    with pytest.raises(SpecError, match=r"'nonsense': expected one of efficientdet-d0, .*-lite4$"):
        get_detector("nonsense")
    with pytest.raises(SpecError, match="scale has 2 numbers, expected 5"):
        Anchors(scale=(1.0, 2.0))
