"""What trains: the head, blocks from one on, patterns of names; and at which share of the rate."""

import re

import pytest

from efficientnet import build_model, get_spec
from system.errors import UsageError
from training.trainable import Paths, frozen_paths, rate_multipliers

SPEC = get_spec("efficientnet-b0", width=0.1, depth=0.1)


@pytest.fixture(scope="module")
def network():
    return build_model(SPEC, num_classes=3, image_size=32, uniform=lambda shape, index: 0.0)


def trained(network, rule, freeze_batch_norm=False):
    """Paths that move, weights and statistics."""
    frozen = frozen_paths(Paths.of(network), SPEC, rule, freeze_batch_norm=freeze_batch_norm)
    paths = {v.path for v in network.trainable_variables + network.non_trainable_variables}
    assert frozen <= paths
    return paths - frozen


def test_all_freezes_nothing(network):
    assert frozen_paths(Paths.of(network), SPEC, "all", freeze_batch_norm=False) == frozenset()


def test_the_head_is_the_classifier_and_no_statistics(network):
    assert trained(network, "head") == {"classifier/kernel", "classifier/bias"}


def test_blocks_from_one_on_train_with_the_head_and_their_statistics(network):
    layers = {path.split("/")[0] for path in trained(network, "blocks>=5")}
    numbers = {int(layer.split("_")[1]) for layer in layers if layer.startswith("block_")}
    assert numbers == {5, 6}
    assert {"head_conv", "head_bn", "classifier"} <= layers
    assert "stem_conv" not in layers
    assert "block_5_project_bn/moving_mean" in trained(network, "blocks>=5")


def test_stages_count_the_blocks_of_a_stage_together(network):
    first = next(block.index for block in SPEC.blocks if block.stage == 4)
    assert trained(network, "stages>=4") == trained(network, f"blocks>={first}")


def test_patterns_match_from_the_beginning_of_a_path(network):
    assert trained(network, ("block_0_", "head_bn")) >= {"head_bn/gamma", "head_bn/moving_mean"}


def test_frozen_batch_norm_keeps_weights_and_statistics_whatever_the_rule(network):
    moving = trained(network, "all", freeze_batch_norm=True)
    assert not [path for path in moving if path.split("/")[0].endswith("_bn")]
    assert "stem_conv/kernel" in moving


@pytest.mark.parametrize("rule", ["heads", "blocks>=99x", "(", ("nothing_",)])
def test_a_rule_that_names_nothing_is_one_line(network, rule):
    with pytest.raises(UsageError, match=r"train\.trainable=.*expected 'all', 'head', 'stages>=N'"):
        frozen_paths(Paths.of(network), SPEC, rule, freeze_batch_norm=False)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "blocks>=7",
            "blocks>=7: the last block of efficientnet-b0 is 6; expected at most blocks>=6, or",
        ),
        (
            "stages>=99",
            "stages>=99: the last stage of efficientnet-b0 is 6; expected at most stages>=6, or",
        ),
    ],
)
def test_a_first_block_or_stage_that_does_not_exist_is_one_line(network, rule, message):
    with pytest.raises(UsageError, match=re.escape(f"train.trainable={message}")):
        frozen_paths(Paths.of(network), SPEC, rule, freeze_batch_norm=False)


def test_the_last_block_and_stage_may_be_the_first_that_train(network):
    assert trained(network, "blocks>=6") == trained(network, "stages>=6")


def test_rates_fall_by_the_stage(network):
    shares = rate_multipliers(network, SPEC, 0.5)
    assert shares["classifier/kernel"] == 1.0
    assert shares["head_conv/kernel"] == 0.5
    assert shares["block_6_project_conv/kernel"] == 0.25
    assert shares["block_5_project_conv/kernel"] == 0.125
    assert shares["stem_conv/kernel"] == 0.5 ** (len(SPEC.stages) + 2)
    assert shares.keys() == {v.path for v in network.trainable_variables}


def test_a_decay_of_one_is_no_rates_at_all(network):
    assert rate_multipliers(network, SPEC, 1.0) == {}
