"""Label maps: decode a class for each pixel, and sample it where the pixels of an image come from."""

import zlib

import tensorflow as tf

from input_pipeline.images.headers import check_header
from input_pipeline.images.placement import Placement, Size, height_width

IGNORED = 255  # the class of pixels that count neither in the loss nor in the score

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END, _CHUNK_FRAME = (
    33,
    12,
)  # bytes up to the header's end; a chunk's length, name and checksum
_DEPTH, _COLOUR = 24, 25  # places of the bits of a value and of the colour type
_GREY, _PALETTE = 0, 3  # colour types
# What a header's checksum changes by when the colour type goes from palette to grey. It does not depend on
# the rest of the header, because the checksum is linear in the bits.
_CHECKSUM_CHANGE = (
    zlib.crc32(bytes([0] * 13 + [_GREY ^ _PALETTE] + [0] * 3)) ^ zlib.crc32(bytes(17))
).to_bytes(4, "big")
_BYTES = [bytes([value]) for value in range(256)]


def decode_label_map(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode a PNG whose values are classes: the indices of a palette, or grey.

    TensorFlow turns a palette into colours. Its indices are what the same file holds when it is read as
    grey; and grey values of fewer than 8 bits, which the decoder spreads over 0..255, are put back.

    Args:
      encoded: string [].

    Returns:
      uint8 [h, w], and the problem with the file, string []: "" if there is none. A damaged file raises
      tf.errors.InvalidArgumentError.
    """
    is_png = (tf.strings.length(encoded) >= _HEADER_END) & (
        tf.strings.substr(encoded, 0, len(_SIGNATURE)) == _SIGNATURE
    )

    def png() -> tuple[tf.Tensor, tf.Tensor]:
        depth, colour = (
            tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, place, 1), tf.uint8)[0], tf.int32)
            for place in (_DEPTH, _COLOUR)
        )
        fits = (depth <= 8) & ((colour == _GREY) | (colour == _PALETTE))
        return tf.cond(
            fits,
            lambda: (_decode(encoded, depth, colour), tf.constant("")),
            lambda: (tf.zeros([0, 0], tf.uint8), _unfit(depth, colour)),
        )

    empty = tf.zeros([0, 0], tf.uint8)
    return tf.cond(is_png, png, lambda: (empty, tf.constant("the mask is no PNG file")))


def sample_label_map(labels: tf.Tensor, placement: Placement) -> tf.Tensor:
    """Return the label at the place that each pixel of the result's valid part comes from.

    Pixels of the result are those of the kernel that resized the image: the nearest label is that of the
    pixel of the source in which the centre of the result's pixel is.

    Args:
      labels: uint8 [h, w], those of the whole source.
      placement: of the source in the result.

    Returns:
      uint8 [valid height, valid width].
    """
    for axis in range(2):
        centres = (
            tf.cast(placement.corner[axis] + tf.range(placement.valid[axis]), tf.float32) + 0.5
        )
        position = (centres - placement.offset[axis]) / placement.scale[axis]
        nearest = tf.cast(tf.floor(position), tf.int32)
        labels = tf.gather(
            labels, tf.clip_by_value(nearest, 0, tf.shape(labels)[axis] - 1), axis=axis
        )
    return labels


def pad_label_map(labels: tf.Tensor, corner: tf.Tensor, size: Size) -> tf.Tensor:
    """Put `labels`, uint8 [h, w], at `corner` of a result of `size`; all else is IGNORED."""
    height, width = height_width(size)
    after = tf.constant([height, width]) - corner - tf.shape(labels)
    padded = tf.pad(
        labels, tf.stack([corner, after], axis=1), constant_values=tf.constant(IGNORED, tf.uint8)
    )
    return tf.ensure_shape(padded, [height, width])


def _decode(encoded: tf.Tensor, depth: tf.Tensor, colour: tf.Tensor) -> tf.Tensor:
    content = tf.cond(colour == _PALETTE, lambda: _as_grey(encoded), lambda: encoded)
    values = tf.io.decode_png(check_header(content), channels=1)[..., 0]
    step = tf.cast(255 // (tf.bitwise.left_shift(1, depth) - 1), tf.uint8)
    return tf.cond(depth < 8, lambda: values // step, lambda: values)


def _as_grey(encoded: tf.Tensor) -> tf.Tensor:
    """Return a PNG of a palette as a grey one of the same values, without the palette."""
    size = tf.strings.length(encoded)
    old = tf.strings.substr(encoded, _COLOUR + 4, 4)
    change = tf.constant(list(_CHECKSUM_CHANGE), tf.uint8)
    digits = tf.bitwise.bitwise_xor(tf.io.decode_raw(old, tf.uint8), change)
    checksum = tf.strings.reduce_join(tf.gather(tf.constant(_BYTES), tf.cast(digits, tf.int32)))

    def before_pixels(at: tf.Tensor) -> tf.Tensor:
        # Not tf.logical_and: the second half must not look beyond the end.
        return tf.cond(
            at + _CHUNK_FRAME <= size,
            lambda: tf.strings.substr(encoded, at + 4, 4) != b"IDAT",
            lambda: tf.constant(False),
        )

    def next_chunk(at: tf.Tensor) -> tuple[tf.Tensor]:
        data = tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, at, 4), tf.uint8), tf.int64)
        length = tf.reduce_sum(data * [2**24, 2**16, 2**8, 1])
        following = tf.minimum(
            tf.cast(at, tf.int64) + length + _CHUNK_FRAME, tf.cast(size, tf.int64)
        )
        return (tf.cast(following, tf.int32),)

    (pixels,) = tf.while_loop(before_pixels, next_chunk, (tf.constant(_HEADER_END),))
    pixels = tf.minimum(pixels, size)  # a file that is cut is damaged for the decoder too
    return tf.strings.join(
        [
            tf.strings.substr(encoded, 0, _COLOUR),
            tf.constant(_BYTES[_GREY]),
            tf.strings.substr(encoded, _COLOUR + 1, 3),
            checksum,
            tf.strings.substr(encoded, pixels, size),
        ]
    )


def _unfit(depth: tf.Tensor, colour: tf.Tensor) -> tf.Tensor:
    found = [
        tf.strings.as_string(depth),
        " bits a value, colour type ",
        tf.strings.as_string(colour),
    ]
    return tf.strings.join(
        ["the mask has ", *found, "; expected the classes as 8-bit grey values or as a palette"]
    )
