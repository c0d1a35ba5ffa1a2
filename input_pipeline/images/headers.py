"""Check the size in an image's header before a decoder allocates memory for it.

A file of a few hundred bytes can declare any number of pixels, and decoders trust it. A decoder reads
all frames of an animated GIF, each of any size, though only the first is used: so the file is cut
after that one.
"""

from collections.abc import Sequence

import tensorflow as tf

MOST_PIXELS = 2**27  # 134 megapixels; a header that declares more is a mistake or an attack

_GIF_HEADER, _GIF_EXTENSION, _GIF_IMAGE = 13, 0x21, 0x2C


def check_header(image_bytes: tf.Tensor) -> tf.Tensor:
    """Check the declared size of an image, and return its bytes; a GIF is cut after its first frame.

    Args:
      image_bytes: string []; JPEG, PNG, BMP, GIF, WebP or anything else.

    Returns:
      string [], the bytes to decode.

    Raises:
      tf.errors.InvalidArgumentError: more than MOST_PIXELS, or a truncated header.
    """

    def jpeg() -> tf.Tensor:
        with tf.control_dependencies([jpeg_shape(image_bytes)]):
            return tf.identity(image_bytes)

    return tf.cond(tf.io.is_jpeg(image_bytes), jpeg, lambda: check_header_unless_jpeg(image_bytes))


def jpeg_shape(image_bytes: tf.Tensor) -> tf.Tensor:
    """Return height, width and channels of a JPEG, int32 [3]; raises as `check_header`."""
    shape = tf.io.extract_jpeg_shape(image_bytes)
    return _check_pixels(shape, shape[0], shape[1])


# Traced once in a process: it is a large graph, and a run has many pipelines that decode images.
@tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.string)])
def check_header_unless_jpeg(image_bytes: tf.Tensor) -> tf.Tensor:
    """Check the header of an image that is not a JPEG, as `check_header` does."""

    # substr must not start past the end: its error quotes the bytes, which Python cannot decode.
    def starts(with_what: bytes) -> tf.Tensor:
        return tf.strings.substr(image_bytes, 0, len(with_what)) == with_what

    is_webp = tf.cond(
        tf.strings.length(image_bytes) > 12,
        lambda: starts(b"RIFF") & (tf.strings.substr(image_bytes, 8, 4) == b"WEBP"),
        lambda: tf.constant(False),
    )
    return tf.case(
        [
            (starts(b"\x89PNG"), lambda: _png(image_bytes)),
            (starts(b"GIF8"), lambda: _gif(image_bytes)),
            (starts(b"BM"), lambda: _bmp(image_bytes)),
            (is_webp, lambda: _webp(image_bytes)),
        ],
        default=lambda: tf.identity(image_bytes),  # no decoder takes it
    )


def _check_pixels(value: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Return `value`; raise tf.errors.InvalidArgumentError for more than MOST_PIXELS."""
    size = [tf.cast(n, tf.int64) for n in (width, height)]

    def refuse() -> tf.Operation:
        size_text = [tf.strings.as_string(size[0]), " x ", tf.strings.as_string(size[1])]
        message = tf.strings.join([*size_text, f" pixels, more than {MOST_PIXELS}"])
        return tf.debugging.Assert(False, [message])

    allowed = tf.abs(size[0] * size[1]) <= MOST_PIXELS
    with tf.control_dependencies([tf.cond(allowed, tf.no_op, refuse)]):
        return tf.identity(value)


def _png(image_bytes: tf.Tensor) -> tf.Tensor:
    data = tf.io.decode_raw(image_bytes, tf.uint8)
    return _check_pixels(
        image_bytes, _number(data, [23, 22, 21, 20]), _number(data, [19, 18, 17, 16])
    )


def _bmp(image_bytes: tf.Tensor) -> tf.Tensor:
    data = tf.io.decode_raw(image_bytes, tf.uint8)
    width, height = _number(data, range(18, 22)), _number(data, range(22, 26))
    height = tf.minimum(height, 2**32 - height)  # a negative one means: from the top
    return _check_pixels(image_bytes, height, width)


def _webp(image_bytes: tf.Tensor) -> tf.Tensor:
    data, kind = tf.io.decode_raw(image_bytes, tf.uint8), tf.strings.substr(image_bytes, 12, 4)

    def lossy() -> tf.Tensor:
        return tf.stack(
            [_number(data, range(26, 28)) % 2**14, _number(data, range(28, 30)) % 2**14]
        )

    def lossless() -> tf.Tensor:
        bits = _number(data, range(21, 25))
        return tf.stack([bits % 2**14 + 1, bits // 2**14 % 2**14 + 1])

    def extended() -> tf.Tensor:
        return tf.stack([_number(data, range(24, 27)) + 1, _number(data, range(27, 30)) + 1])

    size = tf.case([(kind == b"VP8 ", lossy), (kind == b"VP8L", lossless)], default=extended)
    return _check_pixels(image_bytes, size[1], size[0])


def _gif(image_bytes: tf.Tensor) -> tf.Tensor:
    data = tf.io.decode_raw(image_bytes, tf.uint8)
    length = tf.size(data, tf.int64)
    flags = _number(data, range(10, 11))
    start = _GIF_HEADER + _table_bytes(flags)

    def after_blocks(position: tf.Tensor) -> tf.Tensor:
        """Return where a chain of blocks ends; the length precedes each block."""

        def inside(at: tf.Tensor) -> tf.Tensor:
            # Not tf.logical_and: the second half must not look beyond the end.
            return tf.cond(
                at < length, lambda: _number_at(data, at, [0]) > 0, lambda: tf.constant(False)
            )

        (end,) = tf.while_loop(
            inside, lambda at: (at + 1 + _number_at(data, at, [0]),), (position,)
        )
        return end + 1

    def is_extension(at: tf.Tensor) -> tf.Tensor:
        return tf.cond(
            at < length,
            lambda: _number_at(data, at, [0]) == _GIF_EXTENSION,
            lambda: tf.constant(False),
        )

    (image,) = tf.while_loop(is_extension, lambda at: (after_blocks(at + 2),), (start,))
    with tf.control_dependencies(
        [
            tf.debugging.Assert(
                _number_at(data, image, [0]) == _GIF_IMAGE, ["a GIF without an image"]
            )
        ]
    ):
        width, height = _number_at(data, image + 5, range(2)), _number_at(data, image + 7, range(2))
    pixels = image + 10 + _table_bytes(_number_at(data, image + 9, range(1))) + 1
    end = after_blocks(pixels)
    first = tf.strings.substr(image_bytes, 0, tf.cast(tf.minimum(end, length), tf.int32))
    cut = tf.where(end <= length, tf.strings.join([first, b";"]), first)
    screen = _check_pixels(cut, _number(data, range(8, 10)), _number(data, range(6, 8)))
    return _check_pixels(screen, height, width)


def _table_bytes(flags: tf.Tensor) -> tf.Tensor:
    """Return the length in bytes of the colour table that a GIF's flags declare."""
    size = 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8)
    return tf.where(flags >= 128, size, tf.zeros_like(size))


def _number(data: tf.Tensor, places: Sequence[int]) -> tf.Tensor:
    """Decode an unsigned integer from bytes, lowest first: int64 []; raises beyond the end."""
    return _number_at(data, places[0], [place - places[0] for place in places])


def _number_at(data: tf.Tensor, position: tf.Tensor | int, offsets: Sequence[int]) -> tf.Tensor:
    places = tf.cast(position, tf.int64) + tf.constant(list(offsets), tf.int64)
    digits = tf.cast(tf.gather(data, places), tf.int64)
    return tf.reduce_sum(digits * [256**i for i in range(len(offsets))])
