"""A part of a network's blocks, and what its figures are multiplied by."""

import pytest

from efficientnet import complexity, get_spec
from proofs.extrapolation import factors, first_repeats
from proofs.tpu_compile import extrapolate


def test_the_first_repeats_of_every_stage_are_kept():
    whole = get_spec("efficientnetv2-s")
    part = first_repeats(whole, 3)
    assert [len(stage) for stage in whole.stages] == [2, 4, 4, 6, 9, 15]
    assert [len(stage) for stage in part.stages] == [1, 2, 2, 2, 3, 5]
    assert part.stages[-1][-1].output_filters == whole.stages[-1][-1].output_filters
    assert first_repeats(whole, 1) == whole


def test_flops_grow_as_multiply_adds_traffic_as_activations_and_arguments_as_the_state():
    whole = get_spec("efficientnetv2-b0")
    part = first_repeats(whole, 3)
    by = factors(part, whole, num_classes=10, image_size=64)
    costs = [complexity(spec, num_classes=10, image_size=64) for spec in (part, whole)]
    assert by["flops"] == costs[1].multiply_adds / costs[0].multiply_adds > 1.5
    assert by["bytes_accessed"] == by["temporary_bytes"] > 1.5
    # Weights and statistics twice, for the average, and two slots of the weights.
    state = [2 * c.all_parameters + 2 * c.trainable_parameters for c in costs]
    assert by["argument_bytes"] == pytest.approx(state[1] / state[0], rel=1e-12)


def test_a_step_that_does_not_compile_stays_as_it_is():
    broken = {"compiles": False, "error": "RESOURCE_EXHAUSTED"}
    assert extrapolate(broken, {"flops": 2.0}) == broken
    assert extrapolate(
        {"compiles": True, "flops": 3.0, "compile_seconds": 5.0}, {"flops": 2.0}
    ) == {
        "compiles": True,
        "flops": 6.0,
        "compile_seconds": 5.0,
    }
