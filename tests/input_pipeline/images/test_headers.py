"""The check of headers inside of pipelines; what it refuses is in test_check.py and test_fuzz_images.py."""

import tensorflow as tf

from input_pipeline.images.headers import check_header_unless_jpeg
from input_pipeline.images.view import EvalView


def test_a_second_pipeline_uses_the_trace_of_the_first():
    traces = _traces_after_a_pipeline(size=8)
    assert traces > 0
    assert _traces_after_a_pipeline(size=16) == traces


def _traces_after_a_pipeline(size: int) -> int:
    png, view = tf.io.encode_png(tf.zeros([5, 7, 3], tf.uint8)), EvalView(size)
    images = tf.data.Dataset.from_tensors(png).map(lambda content: view(content))
    assert next(iter(images))["image"].shape == (size, size, 3)
    return check_header_unless_jpeg.experimental_get_tracing_count()
