"""Training in stages: one run, one state, and the same end wherever it is interrupted."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from configs.load import load_experiment
from run_folder.checkpoints import CheckpointStore
from serving.model_card import read_model_card
from tests import runs
from tests.training.test_preemption import signal_at
from training.devices.distribution import connect
from training.inputs import train_dataset
from training.job import open_job
from training.model_dir import exclusive_model_dir

pytestmark = pytest.mark.slow

# 48 examples in steps of 4 and half the size, with a frozen body; then 48 in steps of 8, without dropout.
STAGES = (
    "--set=stages=[{duration: 50 %, set: {model.image_size: 16, train.global_batch_size: 4,"
    " train.trainable: head, augment.mixup_alpha: 0.2}},"
    " {set: {model.dropout: 0, model.survival_probability: 1}}]"
)
BOUNDARY, END = 12, 18


def flags(folder: Path, name: str) -> list[str]:
    return [*runs.flags(folder, name), STAGES, "--set=model.dropout=0.2", "--set=checkpoint.keep=9"]


@pytest.fixture
def undisturbed(folder: Path, command: runs.Command) -> Path:
    """A run in two stages that was left alone."""
    if not (folder / "undisturbed").exists():
        status, _, err = command(*flags(folder, "undisturbed"))
        assert status == 0, err
    return folder / "undisturbed"


@pytest.mark.parametrize("step", [BOUNDARY, BOUNDARY + 2])
def test_a_run_stopped_between_two_stages_or_after_the_first_steps_of_one_ends_with_the_same_bits(
    folder: Path, undisturbed: Path, command: runs.Command, step: int
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        signal_at(monkeypatch, signal.SIGTERM, step)
        status, _, err = command(*flags(folder, f"stopped-{step}"))
    assert status == 75, err
    assert f"stopped at step {step} of {END}" in err
    status, out, err = command(*flags(folder, f"stopped-{step}"))
    assert status == 0, err
    assert f"resuming from step {step} of {END}" in out
    runs.assert_same_end(folder / f"stopped-{step}", undisturbed)


def test_a_frozen_body_keeps_its_bits_through_its_stage_and_learns_in_the_next(
    undisturbed: Path,
) -> None:
    start, boundary, end = (_network(undisturbed, step) for step in (4, BOUNDARY, END))
    body = [name for name in start if "classifier" not in name]
    assert len(body) > 10
    for name in body:
        np.testing.assert_array_equal(boundary[name], start[name], err_msg=name)
    assert any((end[name] != boundary[name]).any() for name in body)
    assert (boundary["network/classifier/kernel"] != start["network/classifier/kernel"]).any()


def _network(model_dir: Path, step: int) -> dict[str, np.ndarray]:
    checkpoint = CheckpointStore(str(model_dir), best_metric="top_1").find(step)
    assert checkpoint is not None, step
    return {k: v for k, v in checkpoint.read().items() if k.startswith("network/")}


def test_pictures_of_every_stage_are_in_tensorboard(undisturbed: Path) -> None:
    found: dict[int, bytes] = {}
    for path in (undisturbed / "tensorboard/train").glob("events*"):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                if value.tag == "augmented training images":
                    found[event.step] = value.tensor.string_val[0]
    assert found == {0: b"16", BOUNDARY + 1: b"32"}  # their widths


def test_a_later_stage_that_trains_nothing_is_refused_before_the_first_step(
    tmp_path: Path, command: runs.Command
) -> None:
    other = STAGES.replace("model.dropout: 0,", "model.dropout: 0, train.trainable: blocks,")
    status, _, err = command(*flags(tmp_path, "nothing"), other)
    assert status == 2
    assert "train.trainable=blocks: no variable of" in runs.one_line(err)
    assert not (tmp_path / "nothing" / "checkpoints").exists()


def test_past_stages_cannot_be_changed_and_coming_ones_can(
    undisturbed: Path, tmp_path: Path, command: runs.Command
) -> None:
    shutil.copytree(undisturbed, tmp_path / "copy")
    other = STAGES.replace("global_batch_size: 4", "global_batch_size: 2")
    status, _, err = command(*flags(tmp_path, "copy"), other)
    assert status == 2
    assert (
        f"stages up to step {END}: 4 images from step 0, 8 images from step 12 -> 2 images" in err
    )
    longer = [STAGES.replace("50 %", "48 examples"), "--set=train.duration=144 examples"]
    given = [flag.removeprefix("--set=") for flag in [*flags(tmp_path, "copy"), *longer][2:]]
    experiment = load_experiment(
        tmp_path / "tiny.yaml", overrides=given, values={"model_dir": str(tmp_path / "copy")}
    )
    with exclusive_model_dir(open_job(experiment, connect("cpu"))):
        pass


def test_a_step_that_is_not_finite_is_replayed_in_its_stage(
    folder: Path, command: runs.Command
) -> None:
    wild = STAGES.replace(
        "{set: {", "{set: {schedule.learning_rate: 1.0e+30, schedule.warmup: 0 steps, "
    )
    status, _, err = command(*flags(folder, "wild"), wild)
    assert status == 1
    line = runs.one_line(err)
    step = int(line.partition("step ")[2].partition(":")[0])
    assert BOUNDARY < step < END
    assert "not finite" in line
    status, out, err = command("--mode=replay", f"--model_dir={folder / 'wild'}")
    assert status == 0, err
    assert f"step {step}: largest magnitude, or how many values are not finite" in out


def test_evaluations_and_exports_name_the_stage_of_their_step(
    undisturbed: Path, tmp_path: Path, command: runs.Command
) -> None:
    copy = shutil.copytree(undisturbed, tmp_path / "copy")
    status, out, err = command("--mode=eval", f"--model_dir={copy}")
    assert status == 0, err
    step = CheckpointStore(str(copy), best_metric="top_1").best().step
    stage = 1 if step <= BOUNDARY else 2
    assert f"step {step}, stage {stage} of 2 on " in out
    assert command("--mode=export", f"--model_dir={copy}", runs.WITH_EXPORT)[0] == 0
    card = read_model_card(str(copy / f"export/saved_model/{step}"))
    assert (card.step, card.stage) == (step, stage)


@pytest.mark.parametrize("hosts", [1, 2])
def test_every_epoch_over_all_stages_shows_every_image_once(hosts: int) -> None:
    overrides = [
        "data.num_train_examples=40",
        "model.image_size=8",
        "train.global_batch_size=6",
        "train.duration=3 epochs",
        "stages=[{duration: 30 %, set: {train.global_batch_size: 4}}, {duration: 50 examples},"
        " {set: {train.global_batch_size: 2, model.image_size: 16}}]",
    ]
    job = open_job(load_experiment("configs/smoke.yaml", overrides=overrides), connect("cpu"))
    seen: list[np.ndarray] = []
    for stage in job.plan.stages:
        make = train_dataset(job.at(stage.first_step), stage.first_step)
        parts = [make(host, hosts).take(stage.end_step - stage.first_step) for host in range(hosts)]
        for batches in zip(*(part.as_numpy_iterator() for part in parts), strict=True):
            seen.append(np.concatenate([batch["index"] for batch in batches]))
    index = np.concatenate(seen)
    assert len(index) >= 118
    for epoch in (index[:40], index[40:80]):
        assert sorted(epoch) == list(range(40))
    assert len(set(index[80:])) == len(index[80:])
