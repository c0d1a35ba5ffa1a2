"""A run is continued only with what keeps its place in the data."""

import dataclasses
from pathlib import Path

import pytest

from configs.load import load_experiment, save_experiment
from input_pipeline.sources.dataset_info import write_dataset_info
from tests import runs
from training.devices.distribution import connect
from training.job import Job, open_job

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
    """The folder of a run that was started, without a checkpoint yet."""
    return begin(tmp_path)


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
    begin(tmp_path, "optimizer.name=sgd")
    assert f"({change}); a run can only resume" in refusal(
        tmp_path, capsys, "--set=optimizer.name=sgd", f"--set={setting}"
    )
