"""Random requests: each image is classified or marked invalid, whatever else is in the batch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from efficientnet import ModelSpec
from input_pipeline.images.view import EvalView
from serving.saved_model import Servable, export_saved_model
from tests.crops import eval_crop_uint8
from tests.fuzz import bounded, damaged, peak_mib
from tests.hostile_images import BOMBS, IMAGES, MOST_MIB

pytestmark = pytest.mark.slow

CLASSES, SIZE = 7, 32
ROUNDING = 1e-5  # batches of other sizes are summed in another order
SOUND = IMAGES["png"]

Serve = Callable[..., dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def signatures(
    tmp_path_factory: pytest.TempPathFactory,
    spec: ModelSpec,
    values: dict[str, list[np.ndarray]],
) -> dict[str, Serve]:
    """The exported model's signatures that take bytes: (list of bytes) -> arrays by name."""
    folder: Path = tmp_path_factory.mktemp("fuzzed")
    servable = Servable(spec, CLASSES, **values, view=EvalView(SIZE))
    path = export_saved_model(str(folder), servable, version=1)
    loaded = tf.saved_model.load(path)

    def server(name: str) -> Serve:
        signature = loaded.signatures[name]

        def serve(contents: list[bytes]) -> dict[str, np.ndarray]:
            answer = signature(image_bytes=tf.constant(contents, tf.string))
            return {key: value.numpy() for key, value in answer.items()}

        return serve

    return {name: server(name) for name in ("serving_default", "features", "explain")}


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def evaluated(image_bytes: tf.Tensor) -> tf.Tensor:
    return eval_crop_uint8(image_bytes, image_size=SIZE)


def is_image(content: bytes) -> bool:
    """Whether the evaluation could crop it."""
    try:
        evaluated(tf.constant(content))
    except tf.errors.InvalidArgumentError:
        return False
    return True


@bounded(60)
@given(contents=st.lists(damaged(IMAGES) | st.binary(max_size=64), max_size=4))
def test_fuzz_of_requests(signatures: dict[str, Serve], contents: list[bytes]) -> None:
    serve = signatures["serving_default"]
    answer, alone = serve([SOUND, *contents]), serve([SOUND])
    assert answer["valid"].tolist() == [True, *map(is_image, contents)]
    for key in ("probabilities", "scores"):
        np.testing.assert_allclose(answer[key][0], alone[key][0], atol=ROUNDING)
    valid = answer["valid"]
    np.testing.assert_allclose(answer["probabilities"][valid].sum(axis=1), 1.0, rtol=1e-5)
    assert (answer["classes"][valid] >= 0).all()
    assert (answer["classes"][valid] < CLASSES).all()
    assert (answer["probabilities"][~valid] == 0).all()
    assert (answer["classes"][~valid] == -1).all()
    assert (answer["labels"][~valid] == b"").all()


@bounded(15)
@given(content=damaged(IMAGES) | st.binary(max_size=64))
def test_fuzz_of_requests_for_features_and_heatmaps(
    signatures: dict[str, Serve], content: bytes
) -> None:
    for name, key in (("features", "features"), ("explain", "heatmaps")):
        answer = signatures[name]([SOUND, content])
        assert answer["valid"].tolist() == [True, is_image(content)]
        assert np.isfinite(answer[key]).all()
        assert answer["valid"][1] or not answer[key][1].any()


def test_every_sound_image_in_one_request_is_valid(signatures: dict[str, Serve]) -> None:
    contents = [content for kind, content in IMAGES.items() if kind != "nothing"]
    assert signatures["serving_default"](contents)["valid"].all()


def test_bombs_in_a_request_are_told_and_cost_no_memory(signatures: dict[str, Serve]) -> None:
    serve = signatures["serving_default"]
    serve([SOUND] * (len(BOMBS) + 1))  # what a batch of this size costs anyway
    before = peak_mib()
    answer = serve([SOUND, *BOMBS.values()])
    assert answer["valid"].tolist() == [True] + [False] * len(BOMBS)
    assert peak_mib() - before < MOST_MIB
