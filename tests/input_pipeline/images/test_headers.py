"""The check of headers inside of pipelines; what it refuses is in test_check.py and test_fuzz_images.py."""

import tensorflow as tf

from input_pipeline.images.headers import check_header_unless_jpeg
from input_pipeline.images.view import EvalView


def test_pipelines_share_one_trace():
    png = tf.io.encode_png(tf.zeros([5, 7, 3], tf.uint8))
    for size in (8, 16):
        view = EvalView(size)
        images = tf.data.Dataset.from_tensors(png).map(lambda content, view=view: view(content))
        assert next(iter(images))["image"].shape == (size, size, 3)
    assert check_header_unless_jpeg.experimental_get_tracing_count() == 1
