"""Published sizes of every model: from the specification for all, from the network for a few."""

from math import prod

import keras
import pytest

from efficientnet import build_model, complexity, get_spec, list_models
from efficientnet.blocks import IMAGES, Layers
from efficientnet.complexity import count
from efficientnet.layer_kinds import Concatenate, Conv, Endpoint

# Trainable parameters, and all of them with batch norm's statistics.
GOLDEN_COUNTS = {
    "efficientnet-b0": (5_288_548, 5_330_564),
    "efficientnet-b1": (7_794_184, 7_856_232),
    "efficientnet-b2": (9_109_994, 9_177_562),
    "efficientnet-b3": (12_233_232, 12_320_528),
    "efficientnet-b4": (19_341_616, 19_466_816),
    "efficientnet-b5": (30_389_784, 30_562_520),
    "efficientnet-b6": (43_040_704, 43_265_136),
    "efficientnet-b7": (66_347_960, 66_658_680),
    "efficientnet-b8": (87_413_142, 87_793_174),
    "efficientnet-l2": (480_309_308, 481_399_996),
    "efficientnet-lite0": (4_652_008, None),
    "efficientnet-lite1": (5_416_680, None),
    "efficientnet-lite2": (6_092_072, None),
    "efficientnet-lite3": (8_197_096, None),
    "efficientnet-lite4": (13_006_568, None),
    "efficientnetv2-b0": (7_139_704, 7_200_312),
    "efficientnetv2-b1": (8_141_052, 8_212_124),
    "efficientnetv2-b2": (10_096_086, 10_178_374),
    "efficientnetv2-b3": (14_358_406, 14_467_622),
    "efficientnetv2-s": (21_458_488, 21_612_360),
    "efficientnetv2-m": (54_139_356, 54_431_388),
    "efficientnetv2-l": (118_515_272, 119_027_848),
    "efficientnetv2-xl": (208_119_808, 208_896_832),
}
WITHOUT_CLASSIFIER = {  # all parameters
    "efficientnetv2-b0": 5_919_312,
    "efficientnetv2-b1": 6_931_124,
    "efficientnetv2-b2": 8_769_374,
    "efficientnetv2-b3": 12_930_622,
    "efficientnetv2-s": 20_331_360,
    "efficientnetv2-m": 53_150_388,
    "efficientnetv2-l": 117_746_848,
    "efficientnetv2-xl": 207_615_832,
}
# Blocks, filters of stem and head.
GOLDEN_SHAPES = {
    "efficientnet-b0": (16, 32, 1280),
    "efficientnet-b1": (23, 32, 1280),
    "efficientnet-b2": (23, 32, 1408),
    "efficientnet-b3": (26, 40, 1536),
    "efficientnet-b4": (32, 48, 1792),
    "efficientnet-b5": (39, 48, 2048),
    "efficientnet-b6": (45, 56, 2304),
    "efficientnet-b7": (55, 64, 2560),
    "efficientnet-b8": (61, 72, 2816),
    "efficientnet-l2": (88, 136, 5504),
    "efficientnetv2-b0": (21, 32, 1280),
    "efficientnetv2-b1": (27, 32, 1280),
    "efficientnetv2-b2": (28, 32, 1408),
    "efficientnetv2-b3": (32, 40, 1536),
    "efficientnetv2-s": (40, 24, 1280),
    "efficientnetv2-m": (57, 24, 1280),
    "efficientnetv2-l": (79, 32, 1280),
    "efficientnetv2-xl": (100, 32, 1280),
}
# Filters and repeats of the scaled stages: rounding without V1's 10 % rule.
GOLDEN_STAGES = {
    "efficientnetv2-b1": ((16, 32, 48, 96, 112, 192), (2, 3, 3, 4, 6, 9)),
    "efficientnetv2-b2": ((16, 32, 56, 104, 120, 208), (2, 3, 3, 4, 6, 10)),
    "efficientnetv2-b3": ((16, 40, 56, 112, 136, 232), (2, 3, 3, 5, 7, 12)),
}
# Billions of multiply-adds at the evaluation size, in the digits of the code's README (xl: of the paper).
V2_BILLIONS = {
    "efficientnetv2-b0": "0.72",
    "efficientnetv2-b1": "1.2",
    "efficientnetv2-b2": "1.7",
    "efficientnetv2-b3": "3.0",
    "efficientnetv2-s": "8.4",
    "efficientnetv2-m": "24.7",
    "efficientnetv2-l": "56.3",
    "efficientnetv2-xl": "94",
}
# Billions of multiply-adds: what the paper prints, at the model's own resolution ...
PAPER_BILLIONS = {
    "efficientnet-b0": 0.39,
    "efficientnet-b1": 0.70,
    "efficientnet-b2": 1.0,
    "efficientnet-b3": 1.8,
    "efficientnet-b4": 4.2,
    "efficientnet-b5": 9.9,
    "efficientnet-b6": 19.0,
    "efficientnet-b7": 37.0,
}
# ... and what torchvision counted for the same networks, at the image size given.
TORCHVISION_BILLIONS = {
    "efficientnet-b0": (224, 0.386),
    "efficientnet-b1": (240, 0.687),
    "efficientnet-b2": (288, 1.088),
    "efficientnet-b3": (300, 1.827),
    "efficientnet-b4": (380, 4.394),
    "efficientnet-b5": (456, 10.266),
    "efficientnet-b6": (528, 19.068),
    "efficientnet-b7": (600, 37.746),
}


def test_no_model_lacks_a_golden_count():
    assert list_models() == list(GOLDEN_COUNTS)


@pytest.mark.parametrize("name", GOLDEN_COUNTS)
def test_specification_has_the_published_number_of_parameters(name):
    trainable, everything = GOLDEN_COUNTS[name]
    counted = complexity(get_spec(name))
    assert counted.trainable_parameters == trainable
    if everything is not None:
        assert counted.all_parameters == everything


@pytest.mark.parametrize("name", GOLDEN_SHAPES)
def test_specification_has_the_published_blocks_stem_and_head(name):
    spec = get_spec(name)
    assert (len(spec.blocks), spec.stem.filters, spec.head.filters) == GOLDEN_SHAPES[name]


@pytest.mark.parametrize("name", GOLDEN_STAGES)
def test_scaled_stages_have_the_published_filters_and_repeats(name):
    stages = get_spec(name).stages
    found = tuple(s[0].output_filters for s in stages), tuple(map(len, stages))
    assert found == GOLDEN_STAGES[name]


@pytest.mark.parametrize("name", WITHOUT_CLASSIFIER)
def test_v2_without_its_classifier_has_the_published_number_of_parameters(name):
    counted = complexity(get_spec(name), num_classes=None).all_parameters
    assert counted == WITHOUT_CLASSIFIER[name]


def profiled_billions(name: str) -> float:
    """Half of what TensorFlow's profiler counts, which the published code of V2 calls multiply-adds.

    Beside convolutions it counts a silu as two products, squeeze-and-excite as a mean and a product over its
    input, the last pooling as a mean, and a shortcut as a sum. Biases are left out.
    """
    spec = get_spec(name)
    counted = complexity(spec, image_size=spec.eval_resolution)
    operations = {"activation": 2, "excite": 2, "add": 1}
    others = sum(
        prod(layer.output_shape) * operations.get(layer.name.rpartition("_")[2], 0)
        for layer in counted.layers
    )
    (head,) = (layer for layer in counted.layers if layer.name == "head_activation")
    return (counted.multiply_adds + (others + prod(head.output_shape)) / 2) / 1e9


@pytest.mark.parametrize("name", V2_BILLIONS)
def test_v2s_multiply_adds_are_the_published_ones_at_the_evaluation_size(name):
    published = V2_BILLIONS[name]
    digits = len(published.partition(".")[2])
    assert f"{profiled_billions(name):.{digits}f}" == published


def test_v2_s_has_the_multiply_adds_that_the_published_code_logs():
    # Convolutions and the classifier are 8.366 billion; 1.4 million of the logged figure stay unexplained.
    spec = get_spec("efficientnetv2-s")
    alone = complexity(spec, image_size=spec.eval_resolution).multiply_adds
    assert alone / 1e9 == pytest.approx(8.3656, abs=5e-5)
    assert profiled_billions("efficientnetv2-s") == pytest.approx(8.411, rel=2e-4)


def test_forms_without_classifier_have_the_published_number_of_parameters():
    spec = get_spec("efficientnet-b0")
    assert complexity(spec, include="features").trainable_parameters == 3_595_388
    assert complexity(spec, include="pooled").trainable_parameters == 4_007_548
    assert complexity(spec, num_classes=None).trainable_parameters == 4_007_548


@pytest.mark.parametrize("name", TORCHVISION_BILLIONS)
def test_multiply_adds_equal_an_independent_count(name):
    image_size, billions = TORCHVISION_BILLIONS[name]
    counted = complexity(get_spec(name), image_size=image_size).multiply_adds
    assert counted / 1e9 == pytest.approx(billions, abs=0.0006)


@pytest.mark.parametrize("name", PAPER_BILLIONS)
def test_multiply_adds_are_close_to_the_papers(name):
    # The paper's own figures are low for b4 (4.2; its network has 4.39), b5 (9.9; 10.27) and b7
    # (37; 37.7), and high for b1 (.70; .687): the test above holds the exact ones.
    assert complexity(get_spec(name)).multiply_adds / 1e9 == pytest.approx(
        PAPER_BILLIONS[name], rel=0.05
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("efficientnet-b0", 64),
        ("efficientnet-b1", 75),
        ("efficientnet-b2", 64),
        ("efficientnet-b3", 97),
        ("efficientnet-lite0", 64),
        ("efficientnetv2-b1", 75),
    ],
)
def test_built_model_is_what_the_specification_says_layer_by_layer(name, image_size):
    model = build_model(name, image_size=image_size)
    expected = complexity(get_spec(name), image_size=image_size)
    unlisted = (keras.layers.InputLayer, keras.layers.Identity)
    layers = [layer for layer in model.layers if not isinstance(layer, unlisted)]

    trainable, everything = GOLDEN_COUNTS[name]
    assert sum(v.value.shape.num_elements() for v in model.trainable_variables) == trainable
    assert model.count_params() == (everything or expected.all_parameters)
    assert {layer.name: layer.output.shape[1:] for layer in layers} == {
        cost.name: cost.output_shape for cost in expected.layers
    }
    assert {v.path: v.shape for v in model.weights} == expected.variable_shapes
    assert {v.path for v in model.trainable_variables} == {
        f"{cost.name}/{variable}" for cost in expected.layers for variable in cost.weights
    }


def test_a_training_step_computes_gradients_from_the_first_layer_that_trains_on():
    counted = complexity(get_spec("efficientnet-b0"))
    stem = next(layer for layer in counted.layers if layer.name == "stem_conv")
    # The gradient of the images is not needed.
    assert counted.training_multiply_adds() == 3 * counted.multiply_adds - stem.multiply_adds
    paths = {f"{layer.name}/{name}" for layer in counted.layers for name in layer.weights}
    body = {path for path in paths if not path.startswith("classifier/")}
    assert counted.trained_parameters(body) == 1_281_000
    assert counted.training_multiply_adds(body) == counted.multiply_adds + 1_280_000
    # Above a first layer that trains, the gradients of all inputs are.
    rest = paths - {"stem_conv/kernel"}
    whole = 2 * counted.multiply_adds
    assert counted.training_multiply_adds(rest) == whole
    assert counted.training_multiply_adds(paths) == counted.multiply_adds


def _frozen(counted, trained):
    """Return the paths of all variables but those of the layers whose name starts with `trained`."""
    return {path for path in counted.variable_shapes if not path.startswith(trained)}


def test_a_network_that_trains_as_a_whole_keeps_every_output():
    counted = complexity(get_spec("efficientnet-b0"))
    outputs = sum(prod(layer.output_shape) for layer in counted.layers)
    assert counted.activation_bytes() == 4 * outputs
    assert counted.activation_bytes(2, _frozen(counted, "stem_conv/")) == 2 * outputs


@pytest.mark.parametrize("trained", [("classifier/",), ()])
def test_a_frozen_network_needs_its_largest_working_set(trained):
    counted = complexity(get_spec("efficientnet-b0"))
    # The expansion of block 1 before and after batch norm.
    expected = 2 * 112 * 112 * 96 * 2
    assert counted.activation_bytes(2, _frozen(counted, trained or "nothing")) == expected


def test_activations_are_kept_from_the_first_layer_that_trains_on():
    counted = complexity(get_spec("efficientnet-b0"))
    names = [layer.name for layer in counted.layers]
    first = names.index("block_3_expand_conv")
    # Its input too, which is the output of the layer before.
    kept = sum(prod(layer.output_shape) for layer in counted.layers[first - 1 :])
    trained = tuple(f"{name}/" for name in names[first:])
    assert counted.activation_bytes(4, _frozen(counted, trained)) == 4 * kept
    # One layer that trains is enough: the gradient passes those above it.
    assert counted.activation_bytes(4, _frozen(counted, names[first] + "/")) == 4 * kept


def test_what_a_later_layer_reads_stays_in_memory_under_whatever_name():
    layers = Layers(get_spec("efficientnet-b0"))
    low = layers.add(Conv("low", 4, 1), IMAGES)
    named = layers.add(Endpoint("reduction_1"), low)
    middle = layers.add(Conv("middle", 6, 1), named)
    high = layers.add(Conv("high", 5, 1), middle)
    layers.add(Concatenate("both"), high, named)
    counted = count(layers.nodes, 10)
    # When "high" is computed: low, middle, high; then low, high and both, which has 9 channels.
    frozen = _frozen(counted, "nothing")
    assert counted.activation_bytes(1, frozen) == 100 * (4 + 5 + 9)
    assert counted.activation_bytes(1, frozen - {"high/kernel"}) == 100 * (4 + 6 + 5 + 9)
    assert counted.activation_bytes(1) == 100 * (4 + 6 + 5 + 9)
