"""Names, variations and the errors for those that can't be."""

import pytest

from efficientnet import UnknownModelError, complexity, get_spec, list_models, vary


def test_part_of_a_name_is_taken_for_those_that_contain_it():
    with pytest.raises(UnknownModelError, match=r"'b4': did you mean efficientnet-b4\?$"):
        get_spec("b4")


def test_a_name_without_a_similar_one_gets_the_list():
    with pytest.raises(UnknownModelError) as raised:
        get_spec("nonsense")
    expected = ", ".join(list_models())
    assert str(raised.value) == f"unknown model 'nonsense': expected one of {expected}"


def test_models_are_listed_by_pattern_in_the_papers_order():
    assert list_models("efficientnet-b*") == [f"efficientnet-b{i}" for i in range(9)]
    assert list_models("*lite*") == [f"efficientnet-lite{i}" for i in range(5)]
    assert list_models("resnet*") == []


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("efficientnet-b9", "efficientnet-b"),
        ("efficientnetb3", "efficientnet-b3"),
        ("B4", "efficientnet-b4"),
        ("EfficientNet-B4", "efficientnet-b4"),
        ("lite", "efficientnet-lite0"),
        ("", "efficientnet-b0"),
        ("resnet", "efficientnet-b0"),
    ],
)
def test_an_unknown_name_is_one_line_with_near_names(name, near):
    with pytest.raises(UnknownModelError) as error:
        get_spec(name)
    assert repr(name) in str(error.value)
    assert near in str(error.value)
    assert "\n" not in str(error.value)
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    ("name", "resolution", "dropout"),
    [
        ("efficientnet-b0", 224, 0.2),
        ("efficientnet-b1", 240, 0.2),
        ("efficientnet-b2", 260, 0.3),
        ("efficientnet-b3", 300, 0.3),
        ("efficientnet-b4", 380, 0.4),
        ("efficientnet-b5", 456, 0.4),
        ("efficientnet-b6", 528, 0.5),
        ("efficientnet-b7", 600, 0.5),
        ("efficientnet-b8", 672, 0.5),
        ("efficientnet-l2", 800, 0.5),
        ("efficientnet-lite0", 224, 0.2),
        ("efficientnet-lite1", 240, 0.2),
        ("efficientnet-lite2", 260, 0.3),
        ("efficientnet-lite3", 280, 0.3),
        ("efficientnet-lite4", 300, 0.3),
    ],
)
def test_every_model_has_its_published_resolution_and_dropout(name, resolution, dropout):
    spec = get_spec(name)
    assert (spec.name, spec.resolution, spec.dropout) == (name, resolution, dropout)
    assert (spec.batch_norm_momentum, spec.batch_norm_epsilon) == (0.99, 1e-3)
    assert spec.survival_probability == 0.8


def test_families_normalise_and_activate_their_own_way():
    v1, lite = get_spec("efficientnet-b0"), get_spec("efficientnet-lite0")
    assert v1.mean_rgb == pytest.approx((123.675, 116.28, 103.53))
    assert v1.stddev_rgb == pytest.approx((58.395, 57.12, 57.375))
    assert (lite.mean_rgb, lite.stddev_rgb) == ((127.0,) * 3, (128.0,) * 3)
    assert (v1.activation, lite.activation) == ("silu", "relu6")
    assert all(block.squeeze_filters for block in v1.blocks)
    assert not any(block.squeeze_filters for block in lite.blocks)


def test_squeeze_filters_are_a_quarter_of_the_blocks_input():
    squeeze = [block.squeeze_filters for block in get_spec("efficientnet-b0").blocks]
    assert squeeze == [8, 4, 6, 6, 10, 10, 20, 20, 20, 28, 28, 28, 48, 48, 48, 48]


def test_survival_falls_linearly_from_one_and_is_counted_over_all_blocks():
    spec = get_spec("efficientnet-b0")
    survival = [spec.block_survival_probability(block.index) for block in spec.blocks]
    assert survival == pytest.approx([1.0 - 0.2 * i / 16 for i in range(16)])
    off = get_spec("efficientnet-b0", survival_probability=1.0)
    assert {off.block_survival_probability(block.index) for block in off.blocks} == {1.0}


def test_coefficients_replace_the_published_ones():
    spec = get_spec(
        "efficientnet-b0", width=0.25, depth=0.5, resolution=64, dropout=0.0,
        survival_probability=0.5,
    )  # fmt: skip
    assert (spec.stem.filters, spec.head.filters, len(spec.blocks)) == (8, 320, 10)
    assert [stage[0].output_filters for stage in spec.stages] == [8, 8, 16, 24, 32, 48, 80]
    assert (spec.resolution, spec.dropout, spec.survival_probability) == (64, 0.0, 0.5)
    assert spec.name == "efficientnet-b0"


def test_lite_keeps_its_ends_whatever_the_coefficients():
    spec = get_spec("efficientnet-lite0", width=2.0, depth=3.0)
    assert (spec.stem.filters, spec.head.filters) == (32, 1280)
    assert [len(stage) for stage in spec.stages] == [1, 6, 6, 9, 9, 12, 1]
    assert spec.blocks[0].input_filters == 32
    assert spec.blocks[0].output_filters == 32


def test_phi_zero_is_the_base_and_phi_one_costs_about_twice_as_much():
    base, scaled = get_spec("efficientnet-b0"), get_spec("efficientnet-b0", phi=1.0)
    assert get_spec("efficientnet-b0", phi=0.0) == base
    assert scaled == get_spec("efficientnet-b0", width=1.1, depth=1.2, resolution=256)
    ratio = complexity(scaled).multiply_adds / complexity(base).multiply_adds
    assert 1.8 < ratio < 2.6  # rounding up repeats costs more than the paper's 1.92


def test_phi_excludes_coefficients_and_other_models_than_a_base():
    with pytest.raises(ValueError, match=r"phi replaces width, resolution"):
        get_spec("efficientnet-b0", phi=1.0, width=1.0, resolution=224)
    with pytest.raises(ValueError, match=r"phi scales efficientnet-b0, not efficientnet-b3"):
        get_spec("efficientnet-b3", phi=1.0)


@pytest.mark.parametrize(
    "variation",
    [
        {"width": 0.0},
        {"depth": -1.0},
        {"resolution": 0},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"survival_probability": 0.0},
        {"survival_probability": 1.1},
    ],
)
def test_an_impossible_value_is_one_line_naming_it(variation):
    with pytest.raises(ValueError, match=next(iter(variation))) as error:
        get_spec("efficientnet-b0", **variation)
    assert "\n" not in str(error.value)


def test_normalization_and_evaluation_size_can_be_given():
    normalization = ((127.5,) * 3, (128.0,) * 3)
    spec = get_spec("efficientnet-b0", normalization=normalization, eval_resolution=288)
    assert (spec.mean_rgb, spec.stddev_rgb) == normalization
    assert (spec.resolution, spec.eval_resolution) == (224, 288)
    assert vary(spec, resolution=192).eval_resolution == 192
    assert vary(spec) == spec
