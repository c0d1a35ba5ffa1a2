"""A batch that does not fit is one line: what was tried, and what to set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from configs.load import load_experiment
from tests import runs
from training import build
from training.devices.distribution import connect
from training.evaluator import Evaluator
from training.failures import TrainingError
from training.job import open_job

pytestmark = pytest.mark.slow

TOO_MANY = 2**46  # float32 values: more bytes than a processor can address


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that ask for more memory than there can be before their first layer."""
    normalize: Callable[..., tf.Tensor] = build.normalize_images

    def exhaust(images: tf.Tensor, *options: Any) -> tf.Tensor:
        # As many as an image's value decides: the graph's optimizer must not compute it while tracing.
        count = tf.constant(TOO_MANY, tf.int64) + tf.cast(tf.reduce_max(images), tf.int64)
        return normalize(images, *options) + tf.reduce_sum(tf.fill([count], 1.0))

    monkeypatch.setattr(build, "normalize_images", exhaust)


def test_training_names_its_batch_and_what_to_set(
    tmp_path: Path, no_memory: None, capsys: pytest.CaptureFixture
) -> None:
    command = runs.in_this_process(capsys)
    flags = ["--mode=train", "--set=train.accumulation_steps=2"]
    status, _, err = command(*runs.flags(tmp_path, "run"), *flags)
    assert status == 1
    line = runs.one_line(err)
    assert line.startswith(
        "main.py: out of memory: training with train.global_batch_size=8 and "
        "train.accumulation_steps=2, which is 4 images at a time on each replica (OOM when allocating"
    )
    assert line.endswith(
        "; raise train.accumulation_steps, or start a run with a smaller train.global_batch_size"
    )


def test_an_evaluation_names_its_batch_and_what_to_set(tmp_path: Path, no_memory: None) -> None:
    config = runs.flags(tmp_path, "run")[0].removeprefix("--config=")
    experiment = load_experiment(config, overrides=["eval.global_batch_size=4"])
    job = open_job(experiment, connect("cpu"))
    state, _ = build.make_state(job)
    evaluator = Evaluator(job, state)
    with pytest.raises(TrainingError) as error:
        evaluator()
    line = str(error.value)
    assert line.startswith(
        "out of memory: evaluating with eval.global_batch_size=4, which is 4 images on each replica "
        "(OOM when allocating"
    )
    assert line.endswith("; set a smaller eval.global_batch_size")
    assert len(line.splitlines()) == 1
