"""The sixteen operations of AutoAugment and RandAugment on uint8 [H, W, 3] images.

Pixel for pixel those of the published EfficientNet code (tensorflow/tpu, efficientnet/autoaugment.py),
including its quirks; `quirks=False`, where a function takes it, does what the papers mean instead.
Each function takes its argument as a Python number or a scalar tensor, and runs eagerly or in a graph.
With a number, and an image whose shape is known, whatever does not depend on pixels is computed
when the graph is built.

How they are made fast is measured, not assumed (`python -m benchmarks.input_pipeline`). On the 150,528
bytes of a 224-pixel image, a vector operation takes 20 us on bytes read eight at a time and 30 us on
float32; a gather from a 256-entry table 650 us; `tf.where` on bytes 900 us; and whatever broadcasts
along a channel axis of 3 up to 700 us. So values are computed instead of looked up, masks replace
selections, and per-channel numbers are spread over whole rows. Only equalize, whose table can be
anything, counts and looks up byte by byte; XLA compiles that where it can, which halves the
time. (For the others XLA gains nothing; it also fuses multiplications with additions, which rounds
differently.)
"""

import functools
import itertools

import numpy as np
import tensorflow as tf

from input_pipeline.augment.geometry import (
    FILL,
    replace_rectangle,
    rotate,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
)
from input_pipeline.augment.layout import (
    Scalar,
    Size,
    in_groups,
    like,
    out_of_groups,
    rows_of,
    size_of,
    when_known,
)

__all__ = [
    "autocontrast",
    "brightness",
    "color",
    "contrast",
    "cutout",
    "equalize",
    "invert",
    "posterize",
    "rotate",
    "sharpness",
    "shear_x",
    "shear_y",
    "solarize",
    "solarize_add",
    "translate_x",
    "translate_y",
]

# Luma weights of the grey that `color` and `contrast` blend towards (ITU-R BT.601, as in TensorFlow).
RED, GREEN, BLUE = 0.2989, 0.587, 0.114

IMAGE = tf.TensorSpec([None, None, 3], tf.uint8)
PAIRS_PER_ROW = 384  # of bytes looked up together; a multiple of 3

THRICE = np.kron(np.eye(8), np.ones([1, 3]))  # 8 pixels to 8 * 3 channels


# -- one value to another, the same everywhere --------------------------------------------------


def invert(image: tf.Tensor) -> tf.Tensor:
    """Invert every value: 255 - value."""
    return _bytes(tf.bitwise.invert(_words(image)), image)


def posterize(image: tf.Tensor, bits: Scalar, *, quirks: bool = True) -> tf.Tensor:
    """Keep the highest `bits` of every value, clear the others.

    Quirk: the reference shifts by 8 - bits in uint8, clamped to 7. So 0 bits keep the top bit, and more
    than 8 bits (levels above 22) wrap round to a shift of 7 as well. With quirks=False: 0 bits leave
    black, more than 8 leave the image.
    """

    def highest_bits(bits: Scalar) -> tf.Tensor:
        bits = tf.cast(bits, tf.int32)
        if quirks:
            shift = tf.minimum(tf.math.floormod(8 - bits, 256), 7)
        else:
            shift = tf.clip_by_value(8 - bits, 0, 8)
        return _in_every_byte(tf.bitwise.left_shift(255, shift) % 256)

    return _bytes(tf.bitwise.bitwise_and(_words(image), when_known(highest_bits, bits)), image)


def solarize(image: tf.Tensor, threshold: Scalar, *, quirks: bool = True) -> tf.Tensor:
    """Invert the values at or above the threshold.

    Quirk: the reference's threshold is a uint8, so 256 (level 10) is 0 and inverts everything.
    With quirks=False: 256 and above leave the image.
    """

    def limit(threshold: Scalar) -> tf.Tensor:
        threshold = tf.cast(threshold, tf.int32)
        return tf.cast(threshold % 256 if quirks else tf.minimum(threshold, 255), tf.uint8)

    inverted = _mask(image >= when_known(limit, threshold))
    if not quirks:
        inverted *= when_known(lambda t: tf.cast(t < 256, tf.int64), threshold)
    return _bytes(tf.bitwise.bitwise_xor(_words(image), inverted), image)


def solarize_add(image: tf.Tensor, addition: Scalar) -> tf.Tensor:
    """Add `addition` (at least 0) to the values below 128, ending at 255."""

    def saturate(addition: Scalar) -> tf.Tensor:
        return tf.cast(tf.minimum(tf.cast(addition, tf.int32), 255), tf.uint8)

    room = _words(tf.minimum(255 - image, when_known(saturate, addition)))
    # No byte overflows into the next: the sum ends at 255.
    dark = tf.bitwise.bitwise_and(room, _mask(image < 128))
    return _bytes(_words(image) + dark, image)


def brightness(image: tf.Tensor, factor: Scalar) -> tf.Tensor:
    """Blend with black: 0 is black, 1 the image, 2 twice as bright."""
    return _saturate(tf.cast(image, tf.float32) * tf.cast(factor, tf.float32))


def contrast(image: tf.Tensor, factor: Scalar, *, quirks: bool = True) -> tf.Tensor:
    """Blend with a flat grey: 0 is that grey, 1 the image.

    Quirk: the reference means the mean grey level but computes the mean of the histogram's 256 bins,
    H * W / 256, whatever the image shows (196 at 224 x 224, 255 from 256 x 256 on).
    With quirks=False: the image's mean grey level, rounded.
    """
    if quirks:

        def mean_of_bins(height: Size, width: Size) -> tf.Tensor:
            return tf.floor(tf.minimum(tf.cast(height * width, tf.float32) / 256.0, 255.0))

        mean = when_known(mean_of_bins, *size_of(image))
    else:
        mean = tf.floor(tf.reduce_mean(_grey(tf.cast(image, tf.float32))) + 0.5)
    return _blend(mean, tf.cast(image, tf.float32), factor)


# -- values seen together with their neighbours or the rest of the image ------------------------


def color(image: tf.Tensor, factor: Scalar) -> tf.Tensor:
    """Blend with the grey image: 0 is grey, 1 the image, more is more vivid."""
    values = tf.cast(image, tf.float32)
    return _blend(_in_every_channel(_grey(values), image), values, factor)


def sharpness(image: tf.Tensor, factor: Scalar) -> tf.Tensor:
    """Blend with a blur by ((1,1,1), (1,5,1), (1,1,1)) / 13: 0 is blurred, 1 the image.

    The outermost pixels have no whole neighbourhood and stay as they are.
    """
    rows = rows_of(image)
    height, width = (_inside(*pair) for pair in zip(size_of(rows), (2, 6), strict=True))
    values = tf.cast(rows, tf.float32)
    outer, centre = values * (-1.0 / 13.0), values * (-5.0 / 13.0)
    # Every tap is rounded, then added, row by row: truncation shows any other order. Written as
    # subtractions, because TensorFlow's graph rewriting takes the liberty to reorder additions.
    blurred = 0.0
    for row, column in itertools.product(range(3), range(3)):
        taps = centre if (row, column) == (1, 1) else outer
        blurred -= taps[row : row + height, 3 * column : 3 * column + width]
    blurred = tf.floor(tf.minimum(blurred, 255.0))
    inner = _blend(blurred, values[1 : 1 + height, 3 : 3 + width], factor)
    middle = rows[1 : 1 + height]
    middle = tf.concat([middle[:, :3], inner, middle[:, 3:][:, width:]], axis=1)
    return like(image, tf.concat([rows[:1], middle, rows[1:][height:]], axis=0))


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretch every channel from its lowest and highest value to 0 .. 255; a flat one stays."""
    rows = tf.cast(rows_of(image), tf.float32)
    lowest = tf.reduce_min(tf.reshape(tf.reduce_min(rows, axis=0), [-1, 3]), axis=0)
    highest = tf.reduce_max(tf.reshape(tf.reduce_max(rows, axis=0), [-1, 3]), axis=0)
    flat = tf.equal(lowest, highest)
    scale = tf.where(flat, 1.0, 255.0 / (highest - lowest))
    offset = tf.where(flat, 0.0, -lowest * scale)
    _, width = size_of(image)
    return like(image, _saturate(rows * tf.tile(scale, [width]) + tf.tile(offset, [width])))


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Flatten every channel's histogram; a channel whose histogram has no step to take stays."""
    flattened = _equalize_compiled(image) if _can_compile() else _equalize_by_kernels(image)
    return tf.ensure_shape(flattened, image.shape)


@functools.cache
def _can_compile() -> bool:
    """Whether XLA compiles for the processor; in tensorflow-tpu, it compiles for the TPU alone."""
    with tf.init_scope(), tf.device("CPU"):
        try:
            _equalize_compiled(tf.zeros([1, 1, 3], tf.uint8))
        except tf.errors.OpError:
            return False
    return True


@tf.function(jit_compile=True, autograph=False, input_signature=[IMAGE])
def _equalize_compiled(image: tf.Tensor) -> tf.Tensor:
    channels = [tf.cast(channel, tf.int32) for channel in tf.unstack(image, axis=-1)]
    tables = _equalizing(tf.stack([_count_values(channel) for channel in channels]))
    # Scattered in place, which changes nothing but that the tables are computed before they are
    # looked into: otherwise XLA would compute them again for every byte.
    places = tf.reshape(tf.range(3 * 256), [3 * 256, 1])
    tables = tf.tensor_scatter_nd_update(
        tf.zeros([3 * 256], tf.uint8), places, tf.reshape(tables, [-1])
    )
    tables = tf.unstack(tf.reshape(tables, [3, 256]))
    looked_up = [tf.gather(*pair) for pair in zip(tables, channels, strict=True)]
    return tf.stack(looked_up, axis=-1)


def _equalize_by_kernels(image: tf.Tensor) -> tf.Tensor:
    histograms = [
        tf.histogram_fixed_width(tf.cast(channel, tf.int32), [0, 256], nbins=256)
        for channel in tf.unstack(image, axis=-1)
    ]
    return _look_up_pairs(image, _equalizing(tf.stack(histograms)))


def _count_values(channel: tf.Tensor) -> tf.Tensor:
    """Count the values of int32 [H, W] in 0 .. 255: int32 [256]."""
    values = tf.reshape(channel, [-1, 1])
    ones = tf.ones(tf.shape(values)[:1], tf.int32)
    return tf.tensor_scatter_nd_add(tf.zeros([256], tf.int32), values, ones)


def _equalizing(histogram: tf.Tensor) -> tf.Tensor:
    """Histograms, int32 [3, 256], to the tables that flatten them, uint8 [3, 256]."""
    up_to = tf.cumsum(histogram, axis=1)
    pixels = up_to[:, -1:]
    below_highest = tf.reduce_max(up_to * tf.cast(up_to < pixels, tf.int32), axis=1, keepdims=True)
    step = below_highest // 255
    table = (up_to - histogram + step // 2) // tf.maximum(step, 1)
    return tf.cast(tf.where(step > 0, tf.minimum(table, 255), tf.range(256)), tf.uint8)


def _look_up_pairs(image: tf.Tensor, tables: tf.Tensor) -> tf.Tensor:
    """Replace every value by its entry in its channel's table, uint8 [H, W, 3] by uint8 [3, 256].

    A gather costs by the index, not by what it fetches. So bytes are looked up in pairs, from tables of
    65,536 pairs; along the row of bytes RGBRGB... the pairs are RG, BR, GB in turn.
    """
    tables = tf.cast(tables, tf.uint16)
    second = tf.roll(tables, -1, axis=0) * 256  # the byte after a red one is green, and so on
    first = tf.gather(tables, [0, 2, 1])
    pairs = tf.gather(second, [0, 2, 1])[:, :, tf.newaxis] + first[:, tf.newaxis, :]
    rows = tf.reshape(in_groups(image, PAIRS_PER_ROW * 2), [-1, PAIRS_PER_ROW, 2])
    words = tf.cast(tf.bitcast(rows, tf.uint16), tf.int32)
    which = tf.tile([0, 1 << 16, 2 << 16], [PAIRS_PER_ROW // 3])
    found = tf.gather_nd(tf.reshape(pairs, [-1]), (words + which)[..., tf.newaxis])
    return out_of_groups(image, tf.bitcast(found, tf.uint8))


def cutout(image: tf.Tensor, half_size: Scalar, centre: tf.Tensor) -> tf.Tensor:
    """Grey out a square of 2 * half_size pixels; what lies outside the image is cut off.

    Args:
      image: uint8 [H, W, 3].
      half_size: pixels.
      centre: float32 [2], where the square lies: (y, x) as shares of height and width, 0 <= . < 1.
    """
    size = size_of(image)
    half_size = tf.cast(half_size, tf.int32)
    middle = tf.cast(centre * tf.cast(size, tf.float32), tf.int32)
    first = tf.maximum(middle - half_size, 0)
    last = tf.minimum(middle + half_size, size)
    return replace_rectangle(image, tf.constant(FILL, tf.uint8), first, last)


# -- what they are made of ----------------------------------------------------------------------


def _words(image: tf.Tensor) -> tf.Tensor:
    """Pack the bytes of an image (or its flags) into int64 [N]: bitwise arithmetic is by word."""
    return tf.bitcast(in_groups(image, 8), tf.int64)


def _bytes(words: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Back from `_words` to the shape of `image`."""
    return out_of_groups(image, tf.bitcast(words, tf.uint8))


def _mask(flags: tf.Tensor) -> tf.Tensor:
    """Bool [H, W, 3] to `_words` of all ones where true, all zeros elsewhere."""
    return _words(tf.cast(flags, tf.uint8)) * 255


def _in_every_byte(value: tf.Tensor) -> tf.Tensor:
    """int32 0 .. 255 to an int64 that holds it eight times."""
    return tf.bitcast(tf.fill([8], tf.cast(value, tf.uint8)), tf.int64)


def _saturate(values: tf.Tensor) -> tf.Tensor:
    """float32 to uint8 by truncation, as the reference does."""
    return tf.cast(tf.clip_by_value(values, 0.0, 255.0), tf.uint8)


def _blend(degenerate: tf.Tensor, image: tf.Tensor, factor: Scalar) -> tf.Tensor:
    """From degenerate (0) over image (1) and beyond; float32 in, uint8 out.

    Quirk: truncates. The reference's short cuts at factors 0 and 1 give the same values as this.
    """
    blended = degenerate + tf.cast(factor, tf.float32) * (image - degenerate)
    if not tf.is_tensor(factor) and 0.0 <= factor <= 1.0:
        return tf.cast(blended, tf.uint8)  # between the two: nothing to clip
    return _saturate(blended)


def _grey(values: tf.Tensor) -> tf.Tensor:
    """float32 [H, W, 3] to whole grey levels, float32 [H, W].

    Scaled to 0 .. 1, weighted, added, scaled back and truncated in the reference's order, which decides
    ties. (As in `sharpness`, subtractions keep the order from being rewritten.)
    """
    red, green, blue = tf.unstack(values * (1.0 / 255.0), axis=-1)
    return tf.floor((red * RED - green * -GREEN - blue * -BLUE) * 255.5)


def _in_every_channel(plane: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """float32 [H, W] to [H, W, 3]: a product with ones and zeros, which is exact, is fastest."""
    spread = tf.matmul(in_groups(plane, len(THRICE)), tf.constant(THRICE, tf.float32))
    return out_of_groups(image, spread)


def _inside(size: Size, border: int) -> Size:
    """Return the size inside a border, at least 0."""
    return tf.maximum(size - border, 0) if tf.is_tensor(size) else max(size - border, 0)
