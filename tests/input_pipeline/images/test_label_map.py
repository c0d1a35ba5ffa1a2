"""Label maps: read exactly as they were written, and sampled where the image's pixels come from."""

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from PIL import Image

from input_pipeline.images.framing import Letterbox, RandomCrop, ScaleJitter, Squash, frame_train
from input_pipeline.images.label_map import (
    IGNORED,
    decode_label_map,
    pad_label_map,
    sample_label_map,
)
from tests.fuzz import bounded, damaged

LABELS = np.random.default_rng(0).integers(0, 256, [13, 17]).astype(np.uint8)


def palette(labels: np.ndarray, colours: int = 256, **options) -> bytes:
    picture = Image.fromarray(labels)
    random = np.random.default_rng(1).integers(0, 256, 3 * colours)
    picture.putpalette(random.tolist())
    return saved(picture, **options)


def saved(picture, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def decode(encoded: bytes) -> tuple[np.ndarray, str]:
    labels, problem = decode_label_map(tf.constant(encoded))
    return labels.numpy(), problem.numpy().decode()


def test_grey_values_are_classes():
    found, problem = decode(tf.io.encode_png(LABELS[..., np.newaxis]).numpy())
    np.testing.assert_array_equal(found, LABELS)
    assert problem == ""


def test_the_indices_of_a_palette_are_classes_not_its_colours():
    found, problem = decode(palette(LABELS))
    np.testing.assert_array_equal(found, LABELS)
    assert problem == ""


def test_chunks_before_the_pixels_do_not_matter():
    options = {"transparency": 3, "dpi": (72, 72), "icc_profile": b"x" * 300}
    np.testing.assert_array_equal(decode(palette(LABELS, **options))[0], LABELS)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_values_of_few_bits_are_not_spread_over_the_grey_levels(bits: int):
    few = LABELS % 2**bits
    np.testing.assert_array_equal(decode(palette(few, 2**bits, bits=bits))[0], few)
    if bits == 1:
        grey = saved(Image.fromarray(few * 255).convert("1"))
        np.testing.assert_array_equal(decode(grey)[0], few)


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (saved(Image.fromarray(np.zeros([4, 4, 3], np.uint8))), "8 bits a value, colour type 2"),
        (saved(Image.fromarray(np.zeros([4, 4], np.uint16))), "16 bits a value, colour type 0"),
        (tf.io.encode_jpeg(np.zeros([4, 4, 3], np.uint8)).numpy(), "no PNG file"),
        (b"", "no PNG file"),
        (b"\x89PNG", "no PNG file"),
        (palette(LABELS)[:30], "no PNG file"),
    ],
)
def test_a_file_that_holds_no_classes_is_one_line(encoded: bytes, expected: str):
    assert expected in decode(encoded)[1]


@pytest.mark.parametrize("length", [33, 40, 60, 200])
def test_a_cut_file_is_an_error_and_never_a_mask(length: int):
    for encoded in (palette(LABELS), tf.io.encode_png(LABELS[..., np.newaxis]).numpy()):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(encoded[:length])


@pytest.mark.parametrize("resize", ["bilinear", "bicubic", "bilinear_half_pixel"])
@pytest.mark.parametrize(
    "framing", [Squash(), RandomCrop((0.2, 0.6)), ScaleJitter((0.5, 1.8)), Letterbox()]
)
def test_labels_are_where_the_kernel_takes_the_pixels_from(framing, resize):
    """Where an image of flat regions has a flat colour after resizing, the label must be that region's."""
    regions = np.kron(np.arange(12).reshape(3, 4), np.ones([20, 20])).astype(np.uint8)
    colours = np.random.default_rng(3).integers(0, 256, [12, 3]).astype(np.uint8)
    image = tf.io.encode_png(colours[regions]).numpy()
    for number in range(6):
        seed = tf.constant([7, number], tf.int64)
        framed = frame_train(image, seed, framing, (41, 57), resize=resize)
        labels = sample_label_map(tf.constant(regions), framed.placement).numpy()
        found = framed.image.numpy()[:, :, np.newaxis].astype(int)
        same = (np.abs(found - colours) <= 1).all(axis=-1)  # bicubic may truncate 100 to 99
        flat = same.any(axis=-1)
        assert labels.shape == flat.shape
        assert flat.mean() > 0.5
        np.testing.assert_array_equal(labels[flat], same.argmax(axis=-1)[flat])


def test_a_mirrored_map_is_the_mirror_of_the_map():
    image = tf.io.encode_png(np.repeat(LABELS[..., np.newaxis], 3, axis=-1)).numpy()
    found = {}
    for number in range(20):
        seed = tf.constant([0, number], tf.int64)
        framed = frame_train(image, seed, Squash(), (26, 34))
        mirrored = bool(framed.placement.scale[1] < 0)
        found[mirrored] = sample_label_map(tf.constant(LABELS), framed.placement).numpy()
    np.testing.assert_array_equal(found[True], found[False][:, ::-1])


def test_padding_is_ignored():
    padded = pad_label_map(tf.constant(LABELS), tf.constant([2, 1]), (20, 30)).numpy()
    np.testing.assert_array_equal(padded[2:15, 1:18], LABELS)
    padded[2:15, 1:18] = IGNORED
    assert (padded == IGNORED).all()


@bounded(20)
@given(damaged({"palette": palette(LABELS), "grey": saved(Image.fromarray(LABELS))}))
def test_fuzz_a_damaged_mask_is_refused_or_read(encoded: bytes):
    try:
        labels, _ = decode(encoded)
    except tf.errors.InvalidArgumentError:
        return
    assert labels.dtype == np.uint8
