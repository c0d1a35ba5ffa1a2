"""Stages as other traces of one network: what a switch turns, and that replicas agree on it."""

import dataclasses

import pytest
import tensorflow as tf

from efficientnet.layers import RandomKeep
from tests.training import tiny
from tests.training.tiny import RANDOM_SPEC, Batches
from training.step.switches import switched


@pytest.fixture(scope="module")
def silenced(one_device):
    """A network with dropout and stochastic depth, all of it switched off."""
    return tiny.start(one_device, spec=RANDOM_SPEC, keep_probabilities={}, gradient_clip_norm=0.5)


def test_rates_are_switched_within_the_block_and_as_built_after_it(silenced):
    network = silenced.state.network
    layers = [layer for layer in network.layers if isinstance(layer, RandomKeep)]
    built = [layer.keep_probability for layer in layers]
    assert len(layers) > 1
    assert max(built) < 1
    with switched(network, frozenset(), {layers[0].name: 0.25}):
        assert [layer.keep_probability for layer in layers] == [0.25] + [1.0] * (len(layers) - 1)
    assert [layer.keep_probability for layer in layers] == built
    with switched(network, frozenset(), None):
        assert [layer.keep_probability for layer in layers] == built


@pytest.mark.slow
def test_a_network_whose_masks_are_off_learns_as_one_that_has_none(silenced, fresh, assert_same):
    batches = Batches.random(2, 8)
    silenced.run(batches)
    fresh.run(batches)
    assert_same(silenced.state.to_arrays(), fresh.state.to_arrays())


@pytest.mark.slow
def test_a_change_of_stage_is_the_same_on_one_two_and_four_devices(
    one_device, two_devices, four_devices, assert_same
):
    ends = []
    for distribution in (one_device, two_devices, four_devices):
        first = tiny.start(distribution, spec=RANDOM_SPEC, keep_probabilities={})
        head = frozenset(path for path in first.state.paths if not path.startswith("classifier/"))
        frozen = dataclasses.replace(first, recipe=dataclasses.replace(first.recipe, frozen=head))
        frozen.run(Batches.random(2, 8))
        half = {
            name: tf.TensorSpec([spec.shape[0] // 2, *spec.shape[1:]], spec.dtype)
            for name, spec in first.batch_spec.items()
        }
        dataclasses.replace(first, batch_spec=half).run(Batches.random(2, 4, seed=1))
        ends.append(first.state.to_arrays())
    assert ends[0]["step"] == 4
    for end in ends[1:]:
        assert_same(end, ends[0])
