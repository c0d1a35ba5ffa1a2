"""A batch that does not fit is one line: what was tried, and what to set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

import main
from configs.load import load_experiment
from tests import runs
from training import build, inputs, loop, pictures
from training.devices.distribution import connect
from training.evaluator import Evaluator
from training.failures import TrainingError, training_memory
from training.job import Job, open_job

TOO_MANY = 2**46  # float32 values: more bytes than a processor can address
TRAINING = "out of memory: training with train.global_batch_size=8 and train.accumulation_steps="
EVALUATING = (
    "out of memory: evaluating with eval.global_batch_size=8, which is 8 images on each replica"
)


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that ask for more memory than there can be before their first layer."""
    normalize: Callable[..., tf.Tensor] = build.normalize_images

    def exhaust(images: tf.Tensor, *options: Any) -> tf.Tensor:
        return normalize(images, *options) + exhausting_sum(images)

    monkeypatch.setattr(build, "normalize_images", exhaust)


@pytest.fixture
def no_memory_for_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training batches that do not fit into the host's memory."""
    make: Callable[..., tf.data.Dataset] = inputs.make_train_dataset

    def exhaust(*arguments: Any, **options: Any) -> tf.data.Dataset:
        dataset = make(*arguments, **options)

        def fill(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            # TensorFlow itself tries for ten seconds to allocate.
            index = tf.numpy_function(out_of_memory, [batch["index"]], batch["index"].dtype)
            return {**batch, "index": tf.ensure_shape(index, batch["index"].shape)}

        return dataset.map(fill)

    monkeypatch.setattr(inputs, "make_train_dataset", exhaust)


def exhausting_sum(images: tf.Tensor) -> tf.Tensor:
    """Return a sum of more numbers than memory can hold."""
    # As many as an image's value decides: the graph's optimizer must not compute it while tracing.
    count = tf.constant(TOO_MANY, tf.int64) + tf.cast(tf.reduce_max(images), tf.int64)
    return tf.reduce_sum(tf.fill([count], 1.0))


def out_of_memory(*arguments: Any, **options: Any) -> None:
    raise MemoryError("Unable to allocate 9 GiB")


def tiny_job(folder: Path, *overrides: str) -> Job:
    config = runs.flags(folder, "run")[0].removeprefix("--config=")
    return open_job(load_experiment(config, overrides=overrides), connect("cpu"))


@pytest.mark.slow
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
        "; raise train.accumulation_steps, or start a run with a smaller train.global_batch_size, network or "
        "model.image_size"
    )


@pytest.mark.slow
def test_a_batch_of_images_that_does_not_fit_is_one_line(
    tmp_path: Path, no_memory_for_batches: None, capsys: pytest.CaptureFixture
) -> None:
    command = runs.in_this_process(capsys)
    status, _, err = command(*runs.flags(tmp_path, "run"), "--mode=train")
    assert status == 1
    assert runs.one_line(err).startswith(
        f"main.py: {TRAINING}1, which is 8 images at a time on each replica (MemoryError: Unable to allocate"
    )


@pytest.mark.slow
def test_pictures_of_a_batch_that_does_not_fit_are_one_line(
    tmp_path: Path, no_memory_for_batches: None, capsys: pytest.CaptureFixture
) -> None:
    config = runs.flags(tmp_path, "run")[0]
    assert pictures.main([config, f"--output={tmp_path / 'sheet.png'}"]) == 1
    assert runs.one_line(capsys.readouterr().err).startswith(f"training.pictures: {TRAINING}1, ")


@pytest.mark.parametrize(
    ("mode", "line"),
    [("train", TRAINING), ("lr_range", TRAINING), ("eval", EVALUATING), ("eval_loop", EVALUATING)],
)
def test_a_network_that_does_not_fit_is_one_line(
    mode: str,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(build, "build_network", out_of_memory)
    monkeypatch.setattr(loop, "best_checkpoint", lambda *_, **__: None)  # read before the network
    command = runs.in_this_process(capsys)
    flags = [f"--mode={mode}", "--set=eval.global_batch_size=8"]
    status, _, err = command(*runs.flags(tmp_path, "run"), *flags)
    assert status == 1
    assert runs.one_line(err).startswith(f"main.py: {line}")
    assert "(Unable to allocate 9 GiB)" in err


@pytest.mark.slow
def test_predictions_that_do_not_fit_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(loop, "write_predictions", out_of_memory)
    command = runs.in_this_process(capsys)
    flags = ["--set=eval.global_batch_size=8", "--set=train.duration=2 steps"]
    status, _, err = command(*runs.flags(tmp_path, "run"), *flags)
    assert status == 1
    assert runs.one_line(err).startswith(f"main.py: {EVALUATING} (Unable to allocate 9 GiB)")


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, "{{node x}} OOM when allocating"),
        MemoryError("OOM when allocating"),
    ],
)
def test_any_other_lack_of_memory_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(main, "run", fail)
    status, _, err = runs.in_this_process(capsys)("--config=configs/smoke.yaml")
    assert status == 1
    assert runs.one_line(err).startswith(
        "main.py: out of memory (OOM when allocating); set a smaller"
    )


def test_the_allocation_is_named_and_not_the_hint(tmp_path: Path) -> None:
    hint = "Hint: If you want to see a list of allocated tensors when OOM happens, add options"
    job = tiny_job(tmp_path)
    for text, named in {
        f"Graph execution error\n{hint}\nOOM when allocating tensor [4]": "OOM when allocating tensor [4]",
        f"failed to allocate 4 bytes\n{hint}": "failed to allocate 4 bytes",
    }.items():
        with pytest.raises(TrainingError) as raised, training_memory(job):
            raise tf.errors.ResourceExhaustedError(None, None, text)
        assert f"({named});" in str(raised.value)


def test_a_full_disk_is_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    job = tiny_job(tmp_path)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="No space"), training_memory(job):
        raise tf.errors.ResourceExhaustedError(None, None, "/dev/full; No space left on device")


@pytest.mark.slow
def test_an_evaluation_names_its_batch_and_what_to_set(tmp_path: Path, no_memory: None) -> None:
    job = tiny_job(tmp_path, "eval.global_batch_size=4")
    state, _ = build.make_state(job)
    evaluator = Evaluator(job, state)
    with pytest.raises(TrainingError) as error:
        evaluator()
    line = str(error.value)
    assert line.startswith(
        "out of memory: evaluating with eval.global_batch_size=4, which is 4 images on each replica "
        "(OOM when allocating"
    )
    assert line.endswith(
        "; set a smaller eval.global_batch_size, or take a smaller network or image size"
    )
    assert len(line.splitlines()) == 1
