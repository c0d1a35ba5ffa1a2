"""Blocks, stems and heads as data: what is built is what is counted, and what the numbers mean."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from efficientnet import HeadSpec, SpecError, StageSpec, StemSpec, build_model, complexity, get_spec
from efficientnet.blocks import BLOCKS
from efficientnet.scaling import compound_coefficients
from efficientnet.spec import Coefficients, expand_stages

BASE = get_spec("efficientnet-b0", width=0.25, depth=0.1, dropout=0.0)
STEM, HEAD = StemSpec(8), HeadSpec(16)


def network(*stages, stem=STEM, head=HEAD, **changes):
    blocks = expand_stages(stages, stem.filters if stem else 3)
    return replace(BASE, stem=stem, blocks=blocks, head=head, **changes)


def images(height=16, width=16, batch=3):
    random = np.random.default_rng(0)
    return random.normal(size=(batch, height, width, 3)).astype("float32")


def layer(model, name, x):
    """What a layer of `model` computes from an array in inference."""
    return model.get_layer(name)(x, training=False)


def value(model, name, x):
    return keras.Model(model.input, model.get_layer(name).output)(x, training=False)


def assert_built_as_counted(spec, image_size):
    model = build_model(spec, num_classes=5, image_size=image_size)
    counted = complexity(spec, num_classes=5, image_size=image_size)
    unlisted = (keras.layers.InputLayer, keras.layers.Identity)
    layers = [layer for layer in model.layers if not isinstance(layer, unlisted)]
    assert {layer.name: layer.output.shape[1:] for layer in layers} == {
        cost.name: cost.output_shape for cost in counted.layers
    }
    assert {v.path: v.shape for v in model.weights} == counted.variable_shapes
    assert model.count_params() == counted.all_parameters


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("shortcut", ["identity", "projection", "none"])
def test_every_kind_of_block_is_built_as_counted(block, shortcut):
    spec = network(
        StageSpec(2, 3, 1, 1, 8, se_ratio=0.0, block=block, shortcut=shortcut),
        StageSpec(2, 5, 2, 4, 12, se_ratio=0.25, block=block, shortcut=shortcut),
    )
    assert_built_as_counted(spec, (33, 20))


@pytest.mark.parametrize(
    ("stem", "head"),
    [
        (StemSpec(8, kernel_size=5, stride=1), HeadSpec(None)),
        (StemSpec(8, pooling="max"), HeadSpec(24, kernel_size=3, pooling="max")),
        (None, HeadSpec(None, pooling="max")),
    ],
)
def test_every_stem_and_head_is_built_as_counted(stem, head):
    assert_built_as_counted(network(StageSpec(1, 3, 2, 1, 8), stem=stem, head=head), (31, 44))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("size", [16, 15])
def test_symmetric_padding_is_built_as_counted_with_the_same_shapes(block, size):
    stages = StageSpec(1, 5, 2, 4, 12, block=block), StageSpec(1, 3, 1, 4, 12, block=block)
    spec = network(*stages, padding="symmetric")
    assert_built_as_counted(spec, size)
    same = complexity(replace(spec, padding="same"), num_classes=5, image_size=size)
    symmetric = complexity(spec, num_classes=5, image_size=size)
    assert symmetric.variable_shapes == same.variable_shapes
    assert symmetric.multiply_adds == same.multiply_adds


def test_symmetric_padding_adds_as_much_at_either_side_of_strided_convolutions_alone():
    stages = StageSpec(1, 5, 2, 4, 12), StageSpec(1, 3, 1, 4, 12)
    model = build_model(network(*stages, padding="symmetric"), num_classes=5)
    pads = {x.name: x.padding for x in model.layers if "pad" in x.name}
    assert pads == {"stem_pad": ((1, 1),) * 2, "block_0_depthwise_pad": ((2, 2),) * 2}
    x = images()
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    kernel = model.get_layer("stem_conv").kernel
    expected = keras.ops.conv(padded, kernel, strides=2, padding="valid")
    np.testing.assert_allclose(value(model, "stem_conv", x), expected, rtol=1e-5, atol=1e-6)


def test_a_rectangle_is_height_by_width_in_network_and_count():
    model = build_model(BASE, num_classes=None, image_size=(64, 96))
    assert model.input.shape == (None, 64, 96, 3)
    assert model.get_layer("stem_conv").output.shape[1:] == (32, 48, 8)
    assert_built_as_counted(BASE, (64, 97))
    square, wide = (
        complexity(BASE, image_size=size, include="features") for size in (64, (64, 128))
    )
    squeeze = sum(
        c.multiply_adds for c in square.layers if c.name.endswith(("se_reduce", "se_expand"))
    )
    # Squeeze-and-excite sees one value a filter, whatever the size.
    assert wide.multiply_adds - squeeze == 2 * (square.multiply_adds - squeeze)


def test_a_specification_counts_and_keeps_its_own_rectangle():
    spec = get_spec("efficientnet-b0", width=0.25, depth=0.1, resolution=(64, 96))
    assert (spec.resolution, spec.eval_resolution) == ((64, 96), (64, 96))
    assert complexity(spec).layers[0].output_shape == (32, 48, 8)


def test_phi_scales_training_and_evaluation_sizes():
    base = Coefficients(1.0, 1.0, (224, 448), 0.2, eval_resolution=300)
    scaled = compound_coefficients(1.0, base)
    assert (scaled.resolution, scaled.eval_resolution) == ((256, 512), 344)


def test_fused_mbconv_without_expansion_is_one_convolution_with_activation():
    stage = StageSpec(1, 3, 2, 1, 12, se_ratio=0.0, block="fused_mbconv")
    model = build_model(network(stage), num_classes=5)
    x = value(model, "stem_activation", images())
    x = layer(model, "block_0_project_bn", layer(model, "block_0_project_conv", x))
    assert model.get_layer("block_0_project_conv").kernel.shape == (3, 3, 8, 12)
    expected = keras.ops.silu(x)
    assert expected.shape == (3, 4, 4, 12)
    np.testing.assert_array_equal(value(model, "reduction_1", images()), expected)


def test_fused_mbconv_expands_with_the_large_kernel_and_projects_without_activation():
    stage = StageSpec(1, 3, 2, 4, 12, se_ratio=0.0, block="fused_mbconv")
    model = build_model(network(stage), num_classes=5)
    names = [x.name for x in model.layers if x.name.startswith("block_0")]
    assert names == [
        f"block_0_{part}"
        for part in ("expand_conv", "expand_bn", "expand_activation", "project_conv", "project_bn")
    ]
    assert model.get_layer("block_0_expand_conv").kernel.shape == (3, 3, 8, 32)
    assert model.get_layer("block_0_expand_conv").strides == (2, 2)
    assert model.get_layer("block_0_project_conv").kernel.shape == (1, 1, 32, 12)


def test_a_projected_shortcut_is_added_and_survives_stochastic_depth():
    stages = (
        StageSpec(1, 3, 1, 1, 8, shortcut="none"),
        StageSpec(1, 3, 2, 1, 12, shortcut="projection"),
    )
    model = build_model(
        network(*stages, survival_probability=0.5),
        num_classes=5,
        uniform=lambda shape, index: keras.ops.ones(shape),  # every branch is dropped
    )
    inputs = value(model, "reduction_1", images())
    projected = layer(model, "block_1_shortcut_bn", layer(model, "block_1_shortcut_conv", inputs))
    branch = value(model, "block_1_project_bn", images())
    np.testing.assert_array_equal(value(model, "block_1_add", images()), branch + projected)
    for norm in model.layers:
        if isinstance(norm, keras.layers.BatchNormalization):
            norm.trainable = False  # training mode without the batch's statistics
    block = keras.Model(model.input, model.get_layer("block_1_add").output)
    np.testing.assert_array_equal(block(images(), training=True), projected)


def test_a_stage_that_keeps_the_shape_adds_its_input_without_projecting_it():
    blocks = expand_stages([StageSpec(3, 3, 2, 6, 16, shortcut="projection")], 8)
    assert [block.shortcut for block in blocks] == ["projection", "identity", "identity"]
    blocks = expand_stages([StageSpec(3, 3, 2, 6, 16)], 8)
    assert [block.shortcut for block in blocks] == ["none", "identity", "identity"]
    blocks = expand_stages([StageSpec(2, 3, 1, 6, 8, shortcut="none")], 8)
    assert [block.shortcut for block in blocks] == ["none", "none"]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("filters", [7, 8])
def test_one_block_can_have_its_own_expanded_filters(block, filters):
    spec = network(StageSpec(3, 3, 1, 4, 8, block=block))
    first, second, third = spec.blocks
    pruned = replace(spec, blocks=(first, replace(second, expanded_filters=filters), third))
    assert_built_as_counted(pruned, 16)
    before, after = (complexity(x, num_classes=5).variable_shapes for x in (spec, pruned))
    changed = {name for name in before if before[name] != after[name]}
    assert list(before) == list(after)  # the expansion stays, even to as many filters as enter
    assert {name.split("_")[1] for name in changed} == {"1"}
    assert after["block_1_expand_conv/kernel"][-2:] == (8, filters)
    assert after["block_1_project_conv/kernel"][-2:] == (filters, 8)


def test_a_stem_of_stride_one_keeps_the_size():
    spec = network(StageSpec(1, 3, 1, 1, 8), stem=StemSpec(8, stride=1), head=HeadSpec(None))
    model = build_model(spec, num_classes=5, image_size=32)
    assert model.get_layer("reduction_1").output.shape[1:] == (32, 32, 8)
    assert model.get_layer("pooled").output.shape[1:] == (8,)
    assert not [x.name for x in model.layers if x.name.startswith("head")]


B0 = get_spec("efficientnet-b0").blocks


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(B0[3], kernel_size=0), "blocks[3].kernel_size is 0, expected 1 or more"),
        (lambda: replace(B0[3], expanded_filters=0), "blocks[3].expanded_filters is 0"),
        (lambda: replace(B0[1], shortcut="identity"), "from 16 to 24 filters at stride 2"),
        (
            lambda: replace(B0[1], shortcut="skip"),
            "blocks[1].shortcut is 'skip', expected identity",
        ),
        (lambda: replace(BASE, blocks=()), "blocks is (), expected 1 or more"),
        (lambda: replace(BASE, blocks=BASE.blocks[1:]), "block 0 is numbered 1"),
        (lambda: replace(BASE, stem=StemSpec(16)), "block 0 is numbered 0 and takes 8 filters"),
        (lambda: StemSpec(0), "stem.filters is 0, expected 1 or more"),
        (lambda: StemSpec(8, pooling="average"), "stem.pooling is 'average', expected none, max"),
        (lambda: HeadSpec(8, pooling="none"), "head.pooling is 'none', expected average, max"),
        (lambda: replace(BASE, stddev_rgb=(1.0, 0.0, 1.0)), "expected numbers above 0"),
        (lambda: replace(BASE, resolution=(0, 8)), "resolution is (0, 8), expected 1 or more"),
        (lambda: expand_stages([StageSpec(0, 3, 1, 6, 8)], 8), "stages[0].repeats is 0"),
        (lambda: complexity(network(StageSpec(1, 3, 1, 6, 8, block="resnet"))), "'resnet'"),
    ],
)
def test_an_impossible_network_is_one_line_that_names_the_key(make, message):
    with pytest.raises(SpecError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
