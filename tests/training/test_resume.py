"""A run is continued only with what keeps its place in the data."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from configs.load import load_experiment, save_experiment
from input_pipeline.sources.dataset_info import write_dataset_info
from run_folder.checkpoints import CheckpointStore
from tests import runs
from training.devices.distribution import connect
from training.job import Job, open_job
from training.model_dir import exclusive_model_dir

pytestmark = pytest.mark.slow


def begin(folder: Path, *overrides: str) -> Path:
    """Start a run in FOLDER/run that has no checkpoint yet."""
    job = open_run(folder, *overrides)
    (folder / "run").mkdir()
    save_experiment(job.experiment, folder / "run/experiment.yaml")
    write_dataset_info(job.data_info, str(folder / "run"))
    return folder


def open_run(folder: Path, *overrides: str) -> Job:
    """Open the job of `overrides` in FOLDER/run."""
    config = runs.flags(folder, "run")[0].removeprefix("--config=")
    experiment = load_experiment(config, overrides=[f"model_dir={folder}/run", *overrides])
    return open_job(experiment, connect("cpu"))


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The folder of a run with a checkpoint."""
    save_step(begin(tmp_path), 2)
    return tmp_path


def test_a_run_without_a_checkpoint_starts_anew_with_other_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    begin(tmp_path)
    flags = [*runs.flags(tmp_path, "run"), "--set=train.global_batch_size=16", "--mode=train"]
    status, out, err = runs.in_this_process(capsys)(*flags)
    assert status == 0, err
    assert "resuming" not in out
    assert load_experiment(tmp_path / "run/experiment.yaml").train.global_batch_size == 16
    # Missing exports would be written with the new settings.
    others = ["--set=optimizer.momentum=0.5", "--set=export.report=true"]
    status, out, _ = runs.in_this_process(capsys)(*flags, *others)
    assert status == 0
    assert "without effect on a run that has ended: optimizer.momentum: 0.9 -> 0.5\n" in out
    assert load_experiment(tmp_path / "run/experiment.yaml").optimizer.momentum == 0.9
    (tmp_path / "run/experiment.yaml").unlink()
    status, _, err = runs.in_this_process(capsys)(*flags)
    assert status == 0, err
    assert (tmp_path / "run/experiment.yaml").exists()


def refusal(folder: Path, capsys: pytest.CaptureFixture, *flags: str) -> str:
    before = (folder / "run/experiment.yaml").read_bytes()
    status, _, err = runs.in_this_process(capsys)(*runs.flags(folder, "run"), *flags)
    assert status == 2
    assert (folder / "run/experiment.yaml").read_bytes() == before
    return runs.one_line(err)


def test_another_batch_is_refused(begun: Path, capsys: pytest.CaptureFixture) -> None:
    line = refusal(begun, capsys, "--set=train.global_batch_size=16")
    assert line == (
        f"main.py: {begun}/run holds a run with other values (train.global_batch_size: 8 -> 16); a run can "
        "only resume with the same model, data, batch and optimizer; give its values, or another --model_dir"
    )


def test_another_number_of_training_images_is_refused(
    begun: Path, capsys: pytest.CaptureFixture
) -> None:
    info = open_run(begun).data_info
    fewer = {**info.splits, "train": dataclasses.replace(info.splits["train"], num_examples=79)}
    write_dataset_info(dataclasses.replace(info, splits=fewer), str(begun / "run"))
    assert "(training images: 79 -> 80); a run can only resume" in refusal(begun, capsys)


@pytest.mark.parametrize(
    ("setting", "change"),
    [
        ("optimizer.name=lars", "optimizer.name: sgd -> lars"),
        ("optimizer.rate_in_velocity=true", "optimizer.rate_in_velocity: false -> true"),
    ],
)
def test_another_optimizer_whose_slots_have_the_same_names_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, setting: str, change: str
) -> None:
    save_step(begin(tmp_path, "optimizer.name=sgd"), 2)
    assert f"({change}); a run can only resume" in refusal(
        tmp_path, capsys, "--set=optimizer.name=sgd", f"--set={setting}"
    )


# Of 12 steps: 6, 3 and 3.
FIRST, SECOND, THIRD = (
    "{duration: 6 steps, set: {model.image_size: 16}}",
    "{duration: 3 steps, set: {train.trainable: head}}",
    "{set: {eval.every: 2 steps}}",
)


def stages(*each: str) -> str:
    return f"stages=[{', '.join(each)}]"


@pytest.fixture
def in_second_stage(tmp_path: Path) -> Path:
    """The folder of a run with a checkpoint in its second stage of three."""
    begin(tmp_path, stages(FIRST, SECOND, THIRD))
    save_step(tmp_path, 8)
    return tmp_path


def save_step(folder: Path, step: int) -> None:
    CheckpointStore(str(folder / "run"), best_metric="top_1").save(step, {"step": np.array(step)})


@pytest.mark.parametrize(
    ("changed", "change"),
    [
        (
            [stages(FIRST.replace("16", "24, train.trainable: head"), SECOND, THIRD)],
            "stage 1: model.image_size: 16 -> 24; stage 1: train.trainable: all -> head",
        ),
        (
            [stages(FIRST, SECOND.replace("head", "blocks>=1"), THIRD)],
            "stage 2: train.trainable: head -> blocks>=1",
        ),
        (
            [stages(FIRST, SECOND, THIRD), "schedule.learning_rate=0.05"],
            "stage 1: schedule.learning_rate: 0.1 -> 0.05; stage 2: schedule.learning_rate: 0.1 -> 0.05",
        ),
    ],
)
def test_other_settings_of_a_stage_that_has_begun_are_refused(
    in_second_stage: Path, capsys: pytest.CaptureFixture, changed: list[str], change: str
) -> None:
    line = refusal(in_second_stage, capsys, *(f"--set={each}" for each in changed))
    assert line.endswith(
        f"({change}); a run can only resume with the same model, data, batch and optimizer, and the settings"
        " of stages that have begun; give its values, end the last of these stages at step 8 and add one with"
        " others, or another --model_dir"
    )


@pytest.mark.parametrize(
    "changed",
    [
        [stages(FIRST, SECOND, "{set: {train.trainable: blocks>=1, augment.flip: false}}")],
        [stages(FIRST, SECOND.replace("head", "head, eval.every: 1 steps"), THIRD)],
        [stages(FIRST, SECOND, THIRD), "train.accumulation_steps=2", "checkpoint.every=1 steps"],
        [stages(FIRST, SECOND.replace("3", "2"), "{set: {schedule.learning_rate: 0.01}}")],
    ],
)
def test_coming_stages_and_the_way_of_computing_may_change(
    in_second_stage: Path, changed: list[str]
) -> None:
    with exclusive_model_dir(open_run(in_second_stage, *changed)):
        pass


def test_stages_without_a_checkpoint_may_change(tmp_path: Path) -> None:
    begin(tmp_path, stages(FIRST, SECOND, THIRD))
    other = stages(FIRST.replace("16", "24"), SECOND, THIRD)
    with exclusive_model_dir(open_run(tmp_path, other)):
        pass


def test_a_run_may_go_on_in_stages(tmp_path: Path) -> None:
    begin(tmp_path)
    save_step(tmp_path, 6)
    lower = stages("{duration: 6 steps}", "{set: {schedule.learning_rate: 0.01}}")
    with exclusive_model_dir(open_run(tmp_path, lower)):
        pass
