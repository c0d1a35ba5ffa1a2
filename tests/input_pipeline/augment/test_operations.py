"""Operations against the published code's outputs, eagerly and inside tf.data."""

import math
from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.augment import operations

# Every operation with golden figures; the argument's name in them.
ARGUMENTS = {
    "autocontrast": None,
    "brightness": "factor",
    "color": "factor",
    "contrast": "factor",
    "equalize": None,
    "invert": None,
    "posterize": "bits",
    "rotate": "degrees",
    "sharpness": "factor",
    "shear_x": "level",
    "shear_y": "level",
    "solarize": "threshold",
    "solarize_add": "addition",
    "translate_x": "pixels",
    "translate_y": "pixels",
}
# One call of every operation, cutout too, for tests of what must hold for all of them.
CALLS = {
    name: partial(getattr(operations, name), **arguments)
    for name, arguments in {
        "autocontrast": {},
        "brightness": {"factor": 1.72},
        "color": {"factor": 0.28},
        "contrast": {"factor": 1.36},
        "cutout": {"half_size": 2, "centre": np.float32([0.5, 0.2])},
        "equalize": {},
        "invert": {},
        "posterize": {"bits": 3},
        "rotate": {"degrees": -27.0},
        "sharpness": {"factor": 0.1},
        "shear_x": {"level": 0.27},
        "shear_y": {"level": -0.3},
        "solarize": {"threshold": 102},
        "solarize_add": {"addition": 77},
        "translate_x": {"pixels": -2.5},
        "translate_y": {"pixels": 3.0},
    }.items()
}


@pytest.fixture(scope="module")
def golden(goldens):
    with np.load(goldens / "augment_ops.npz") as file:
        return dict(file)


def images(golden):
    return {key.split("/")[1]: image for key, image in golden.items() if key.startswith("image/")}


def entries(golden, operation):
    """(image name, argument or None, expected pixels) of one operation."""
    found = []
    for key, expected in golden.items():
        kind, name, *rest = key.split("/")
        if kind == "op" and rest[0] == operation:
            found.append((name, float(rest[1].split("=")[1]) if rest[1] else None, expected))
    return found


def call(operation, image, argument):
    function = getattr(operations, operation)
    return function(image) if argument is None else function(image, argument)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def in_dataset(function, image):
    """The image through `function` inside tf.data, its shape known there."""
    return next(iter(tf.data.Dataset.from_tensors(image).map(function))).numpy()


def test_every_golden_operation_is_tested(golden):
    found = {}
    for key in golden:
        if key.startswith("op/"):
            _, _, operation, argument = key.split("/")
            found[operation] = argument.split("=")[0] or None
    assert found == ARGUMENTS
    assert sum(len(entries(golden, operation)) for operation in ARGUMENTS) == 295


@pytest.mark.parametrize("operation", ARGUMENTS)
def test_pixels_are_the_published_ones(golden, operation):
    for name, argument, expected in entries(golden, operation):
        result = call(operation, tf.constant(images(golden)[name]), argument)
        np.testing.assert_array_equal(result, expected, f"{name} {argument}")


@pytest.mark.slow
@pytest.mark.parametrize("operation", ARGUMENTS)
def test_pixels_are_the_published_ones_in_a_dataset_of_any_shapes(golden, operation):
    """Arguments are tensors and shapes unknown, as nothing can be computed when the graph is built."""
    expected = entries(golden, operation)

    def generate():
        for name, argument, _ in expected:
            yield images(golden)[name], np.float32(argument or 0)

    signature = (tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([], tf.float32))
    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    if ARGUMENTS[operation] is None:
        dataset = dataset.map(lambda image, _: getattr(operations, operation)(image))
    else:
        dataset = dataset.map(getattr(operations, operation))
    for (name, argument, pixels), result in zip(expected, dataset, strict=True):
        np.testing.assert_array_equal(result, pixels, f"{name} {argument}")


@pytest.mark.parametrize("operation", ARGUMENTS)
def test_pixels_are_the_published_ones_when_all_but_the_image_is_constant(golden, operation):
    """Shape and argument are known to TensorFlow, which then rewrites the arithmetic most freely."""
    chosen = [entry for entry in entries(golden, operation) if entry[0] == "flower"]
    results = next(
        iter(
            tf.data.Dataset.from_tensors(images(golden)["flower"]).map(
                lambda image: tuple(call(operation, image, argument) for _, argument, _ in chosen)
            )
        )
    )
    for (_, argument, expected), result in zip(chosen, results, strict=True):
        np.testing.assert_array_equal(result, expected, f"{argument}")


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (7, 5)])
def test_odd_shapes_keep_shape_and_agree_with_eager_in_a_dataset(shape):
    image = noise(*shape)

    def apply_all(image):
        return {name: function(image) for name, function in CALLS.items()}

    results = next(iter(tf.data.Dataset.from_tensors(image).map(apply_all)))
    for name, function in CALLS.items():
        eager = function(tf.constant(image))
        assert eager.shape == image.shape, name
        assert eager.dtype == tf.uint8, name
        np.testing.assert_array_equal(results[name], eager, name)


@pytest.mark.parametrize("name", CALLS)
def test_the_shape_stays_known_in_a_graph(name):
    image = tf.TensorSpec([8, 10, 3], tf.uint8)
    result = tf.function(CALLS[name]).get_concrete_function(image).structured_outputs
    assert result.shape == [8, 10, 3]


def test_too_small_an_image_to_blur_stays_as_it_is():
    for shape in [(1, 1), (2, 9), (9, 2)]:
        image = noise(*shape)
        np.testing.assert_array_equal(operations.sharpness(tf.constant(image), 0.1), image)


# -- geometry -------------------------------------------------------------------------------------


def projected(image, transform):
    """The same by TensorFlow's own kernel, which is what the reference's became."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=tf.cast(tf.stack(transform), tf.float32)[tf.newaxis],
        output_shape=image.shape[:2],
        fill_value=128.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )[0]


def rotated(image, degrees):
    radians = tf.cast(degrees, tf.float32) * (math.pi / 180)
    bottom, right = (tf.constant(side - 1.0) for side in image.shape[:2])
    cosine, sine = tf.cos(radians), tf.sin(radians)
    x_offset = (right - (cosine * right - sine * bottom)) / 2
    y_offset = (bottom - (sine * right + cosine * bottom)) / 2
    return projected(image, [cosine, -sine, x_offset, sine, cosine, y_offset, 0, 0])


TRANSFORMS = {
    "rotate": (rotated, [*range(-90, 91, 15), *np.linspace(-31.7, 55.3, 23)]),
    "shear_x": (lambda i, v: projected(i, [1, v, 0, 0, 1, 0, 0, 0]), np.linspace(-0.9, 0.9, 25)),
    "shear_y": (lambda i, v: projected(i, [1, 0, 0, v, 1, 0, 0, 0]), np.linspace(-0.9, 0.9, 25)),
    "translate_x": (
        lambda i, v: projected(i, [1, 0, v, 0, 1, 0, 0, 0]),
        [-300, -22.5, -1.5, -0.5, 0, 0.5, 1.25, 2.5, 63.5, 99],
    ),
    "translate_y": (
        lambda i, v: projected(i, [1, 0, 0, 0, 1, v, 0, 0]),
        [-300, -22.5, -1.5, -0.5, 0, 0.5, 1.25, 2.5, 63.5, 99],
    ),
}


@pytest.mark.parametrize("operation", TRANSFORMS)
@pytest.mark.parametrize("shape", [(64, 64), (97, 130)])
def test_every_pixel_comes_from_where_tensorflows_kernel_takes_it(operation, shape):
    """Ties included (multiples of 45 degrees, of 1/8), and inside tf.data, where sums get reordered."""
    reference, arguments = TRANSFORMS[operation]
    image = tf.constant(noise(*shape))
    arguments = np.array(arguments, np.float32)
    dataset = tf.data.Dataset.from_tensor_slices(arguments)
    results = dataset.map(lambda argument: getattr(operations, operation)(image, argument))
    for argument, result in zip(arguments, results, strict=True):
        np.testing.assert_array_equal(result, reference(image, argument), f"{argument}")


def test_a_constant_angle_turns_as_a_drawn_one():
    image = noise(97, 130)
    for degrees in (-45.0, 9.0, 30.0):
        result = in_dataset(lambda x, a=degrees: operations.rotate(x, a), image)
        np.testing.assert_array_equal(result, rotated(tf.constant(image), degrees))


def test_positive_degrees_turn_counter_clockwise():
    image = np.zeros((21, 21, 3), np.uint8)
    image[10, 15] = 255  # right of the centre
    result = operations.rotate(tf.constant(image), 90.0).numpy()
    assert np.argwhere(result[..., 0] == 255).tolist() == [[5, 10]]  # above it


@pytest.mark.parametrize(("half_size", "y", "x"), [(0, 0.5, 0.5), (3, 0.0, 0.99), (2, 0.4, 0.3)])
def test_cutout_greys_the_square_that_fits(half_size, y, x):
    image = noise(12, 9)
    row, column = int(y * 12), int(x * 9)
    expected = image.copy()
    expected[
        max(row - half_size, 0) : row + half_size, max(column - half_size, 0) : column + half_size
    ] = 128
    result = operations.cutout(tf.constant(image), half_size, tf.constant([y, x]))
    np.testing.assert_array_equal(result, expected)


# -- colours --------------------------------------------------------------------------------------


def test_grey_is_tensorflows_grey_for_every_fifth_of_all_colours():
    levels = np.array([*range(0, 256, 3), 254], np.uint8)
    image = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(87, -1, 3)
    grey = in_dataset(lambda x: operations.color(x, 0.0), image)
    np.testing.assert_array_equal(grey, tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image)))


@pytest.mark.parametrize("name", ["brightness", "color", "contrast", "sharpness"])
def test_factor_one_is_the_image(name):
    image = noise(20, 31)
    np.testing.assert_array_equal(getattr(operations, name)(tf.constant(image), 1.0), image)


def test_equalize_follows_its_definition_on_a_skewed_image():
    image = (noise(33, 41) // 3 + noise(33, 41, 1) // 5).astype(np.uint8)
    image[..., 2] = 7  # nothing to flatten
    expected = image.copy()
    for channel in range(2):
        counts = np.bincount(image[..., channel].ravel(), minlength=256)
        step = (counts.sum() - counts[counts > 0][-1]) // 255
        table = (np.cumsum(counts) - counts + step // 2) // step
        expected[..., channel] = np.minimum(table, 255)[image[..., channel]]
    np.testing.assert_array_equal(operations.equalize(tf.constant(image)), expected)


# -- quirks, kept and fixed ----------------------------------------------------------------------


def test_solarize_at_256_inverts_everything_by_default_and_nothing_when_mended():
    image = noise(6, 7)
    np.testing.assert_array_equal(operations.solarize(tf.constant(image), 256), 255 - image)
    fixed = operations.solarize(tf.constant(image), 256, quirks=False)
    np.testing.assert_array_equal(fixed, image)
    wrapped = operations.solarize(tf.constant(image), 716)  # level 28: 716 - 2 * 256
    np.testing.assert_array_equal(wrapped, np.where(image < 204, image, 255 - image))


@pytest.mark.parametrize("threshold", [0, 1, 128, 255])
def test_solarize_below_256_has_no_quirk(threshold):
    image = tf.constant(noise(16, 16))
    expected = np.where(image < threshold, image, 255 - image)
    for quirks in (True, False):
        result = operations.solarize(image, threshold, quirks=quirks)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("bits", "kept", "fixed"),
    [(0, 0x80, 0x00), (4, 0xF0, 0xF0), (8, 0xFF, 0xFF), (11, 0x80, 0xFF)],
)
def test_posterize_out_of_range_keeps_the_top_bit_or_means_what_it_says(bits, kept, fixed):
    image = noise(6, 7)
    np.testing.assert_array_equal(operations.posterize(tf.constant(image), bits), image & kept)
    result = operations.posterize(tf.constant(image), bits, quirks=False)
    np.testing.assert_array_equal(result, image & fixed)


def test_contrast_blends_with_the_pixel_count_by_default_and_the_mean_when_mended():
    image = tf.constant(noise(20, 30) // 4)
    assert (operations.contrast(image, 0.0).numpy() == 20 * 30 // 256).all()
    grey = tf.image.rgb_to_grayscale(image).numpy()
    fixed = operations.contrast(image, 0.0, quirks=False).numpy()
    assert (fixed == int(grey.mean() + 0.5)).all()


def test_solarize_add_ends_at_white():
    image = np.arange(256).repeat(3).reshape(16, 16, 3)
    for addition in (0, 110, 200, 308):
        expected = np.where(image < 128, np.minimum(image + addition, 255), image)
        result = operations.solarize_add(tf.constant(image, tf.uint8), addition)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 7, 3), (224, 224, 3)])
def test_equalize_is_the_same_compiled_and_by_kernels(shape):
    values = np.random.default_rng(3).normal(100, 40, shape)
    image = tf.constant(np.clip(values * [1.0, 0.2, 2.0], 0, 255), tf.uint8)
    np.testing.assert_array_equal(
        operations._equalize_compiled(image), operations._equalize_by_kernels(image)
    )


@pytest.mark.slow
def test_equalize_does_without_a_compiler(monkeypatch):
    def no_compiler(image):
        raise tf.errors.NotFoundError(None, None, "no registered transfer manager")

    image = tf.constant(np.random.default_rng(4).integers(0, 200, [9, 9, 3]), tf.uint8)
    expected = operations.equalize(image)
    monkeypatch.setattr(operations, "_equalize_compiled", no_compiler)
    operations._can_compile.cache_clear()
    try:
        (found,) = tf.data.Dataset.from_tensors(image).map(operations.equalize)
    finally:
        operations._can_compile.cache_clear()
    np.testing.assert_array_equal(found, expected)
