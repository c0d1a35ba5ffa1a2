"""Networks as plain data: there and back, and what a hand-written one leaves out."""

import json
from dataclasses import replace

import pytest

from efficientnet import SpecError, from_plain, get_spec, list_models, to_plain, vary

B0 = get_spec("efficientnet-b0")


def through_json(spec):
    return json.loads(json.dumps(to_plain(spec)))


@pytest.mark.parametrize("name", list_models())
def test_every_published_network_survives_the_round_trip(name):
    spec = get_spec(name)
    assert from_plain(through_json(spec)) == spec


def test_pruned_filters_and_sizes_survive_the_round_trip():
    pruned = replace(B0.blocks[2], expanded_filters=101, squeeze_filters=3)
    spec = replace(B0, blocks=(*B0.blocks[:2], pruned, *B0.blocks[3:]))
    spec = vary(spec, resolution=(64, 96), eval_resolution=128)
    assert from_plain(through_json(spec)) == spec


def test_symmetric_padding_survives_the_round_trip():
    spec = vary(get_spec("efficientnet-b0"), padding="symmetric")
    assert from_plain(to_plain(spec)) == spec


def test_stages_make_the_published_blocks():
    rows = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)]
    rows += [(3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]
    keys = ("repeats", "kernel_size", "stride", "expand_ratio", "output_filters")
    tree = to_plain(B0)
    del tree["blocks"]
    tree["stages"] = [dict(zip(keys, row, strict=True)) for row in rows]
    assert from_plain(tree) == B0


def test_blocks_without_a_stage_begin_one_where_the_shape_changes():
    tree = to_plain(B0)
    tree["blocks"] = [{**block, "stage": None} for block in tree["blocks"]]
    assert from_plain(tree) == B0


def test_a_block_that_changes_the_shape_has_no_identity_to_add():
    tree = to_plain(B0)
    for block in tree["blocks"]:
        block["shortcut"] = "identity"
    assert from_plain(tree) == B0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "swishy"}, "activation is 'swishy'"),
        ({"dropout": 1.0}, "dropout is 1.0, expected 0 <= dropout < 1"),
        ({"blocks": [{**to_plain(B0)["blocks"][0], "block": "resnet"}]}, "blocks[0].block is 'resnet'"),
    ],
)  # fmt: skip
def test_a_network_that_cannot_be_built_is_one_line(change, message):
    with pytest.raises(SpecError) as error:
        from_plain({**to_plain(B0), **change})
    assert message in str(error.value)
    assert "\n" not in str(error.value)
