"""The U-Net on any backbone, at any size."""

import dataclasses

import keras
import numpy as np
import pytest

from efficientnet import get_spec
from efficientnet.builder import build_network
from efficientnet.complexity import count
from efficientnet.layers import NearestUpsampling
from efficientnet.segmentation.unet import UNet, unet_layers
from efficientnet.spec import SpecError, StemSpec
from efficientnet.weights.initialize import initialize

SMALL = UNet((12, 10, 8, 6, 4))


def narrow(name: str, **variation):
    return get_spec(name, width=0.25, depth=0.25, survival_probability=1.0, **variation)


def build(spec, decoder=SMALL, image_size=None, classes=3):
    layers = unet_layers(spec, decoder, classes)
    return build_network(layers, name=spec.name, image_size=image_size)


@pytest.mark.parametrize("size", [(64, 64), (33, 47), (50, 96)])
def test_the_logits_have_the_size_of_the_image(size):
    network = build(narrow("efficientnet-b0"))
    logits = network(np.zeros([2, *size, 3], np.float32))
    assert logits.shape == (2, *size, 3)


@pytest.mark.parametrize("name", ["efficientnet-b0", "efficientnet-lite0", "efficientnetv2-s"])
@pytest.mark.parametrize("skips", ["reductions", "expanded"])
def test_the_cost_is_that_of_the_network_built_from_the_same_list(name: str, skips):
    spec, decoder = narrow(name), UNet(SMALL.filters, skips)
    network = build(spec, decoder, (32, 64))
    costs = count(unet_layers(spec, decoder, 3), (32, 64))
    assert costs.variable_shapes == {v.path: tuple(v.shape) for v in network.weights}
    assert costs.layers[-1].output_shape == (32, 64, 3) == network.output.shape[1:]


def test_lite_has_relu6_everywhere_and_no_activation_of_another_kind():
    network = build(narrow("efficientnet-lite0"))
    found = {x.activation.__name__ for x in network.layers if hasattr(x, "activation")}
    assert found <= {"relu6", "linear"}


def test_expanded_skips_are_those_that_enter_the_strided_convolutions():
    layers = {
        layer.name: inputs
        for layer, inputs, _ in unet_layers(get_spec("efficientnet-b0"), UNet(skips="expanded"), 1)
    }
    skips = [layers[f"decoder_{n}_concatenate"][1] for n in range(4)]
    assert skips == [f"block_{n}_expand_activation" for n in (11, 5, 3, 1)]
    assert layers["decoder_0_upsample"][0] == "head_activation"


def test_reductions_are_the_outputs_of_the_last_blocks_and_there_is_no_head():
    layers = {
        layer.name: inputs
        for layer, inputs, _ in unet_layers(get_spec("efficientnet-b0"), UNet(), 1)
    }
    skips = [layers[f"decoder_{n}_concatenate"][1] for n in range(4)]
    assert skips == ["reduction_4", "reduction_3", "reduction_2", "reduction_1"]
    assert layers["decoder_0_upsample"] == ("reduction_5", "reduction_4")
    assert not any(name.startswith("head") for name in layers)


def test_a_pooled_stem_is_undone_in_one_step():
    spec = dataclasses.replace(narrow("efficientnet-b0"), stem=StemSpec(8, pooling="max"))
    blocks = (dataclasses.replace(spec.blocks[0], input_filters=8), *spec.blocks[1:])
    network = build(dataclasses.replace(spec, blocks=blocks))
    assert network(np.zeros([1, 70, 66, 3], np.float32)).shape == (1, 70, 66, 3)


def test_filters_for_another_number_of_strides_are_one_line():
    with pytest.raises(SpecError, match=r"filters \[8, 4\], but efficientnet-b0 has 5 strides"):
        unet_layers(narrow("efficientnet-b0"), UNet((8, 4)), 3)


@pytest.mark.parametrize(("factor", "size"), [(2, (6, 8)), (2, (5, 7)), (4, (11, 9))])
def test_upsampling_repeats_pixels_and_crops(factor: int, size):
    height, width = (-(-side // factor) for side in size)
    x = np.random.default_rng(0).normal(size=[2, height, width, 3]).astype(np.float32)
    found = NearestUpsampling(factor)([x, np.zeros([2, *size, 1], np.float32)])
    expected = x.repeat(factor, 1).repeat(factor, 2)[:, : size[0], : size[1]]
    np.testing.assert_array_equal(found, expected)


def test_a_classifier_gives_the_backbone_its_weights_and_the_decoder_starts_fresh():
    spec = narrow("efficientnet-b0")
    from efficientnet import build_model

    keras.utils.set_random_seed(1)
    classifier = build_model(spec, num_classes=7)
    weights = {v.path: v.numpy() for v in classifier.weights}
    network = build(spec)
    before = {v.path: v.numpy() for v in network.weights}
    report = initialize(network, weights, "classifier")
    for variable in network.weights:
        expected = weights.get(variable.path, before[variable.path])
        np.testing.assert_array_equal(variable.numpy(), expected)
    assert all(path.startswith(("decoder_", "segmentation_logits/")) for path in report.fresh)
    assert "start fresh" in str(report)


def test_other_classes_start_fresh_and_the_decoder_is_kept():
    spec = narrow("efficientnet-b0")
    weights = {v.path: v.numpy() for v in build(spec, classes=5).weights}
    report = initialize(build(spec, classes=3), weights, "another run")
    assert set(report.fresh) == {"segmentation_logits/kernel", "segmentation_logits/bias"}
