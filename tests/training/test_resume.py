"""A run is continued only with what keeps its place in the data."""

import dataclasses
from pathlib import Path

import pytest

from configs.load import load_experiment, save_experiment
from input_pipeline.sources.dataset_info import write_dataset_info
from tests import runs
from training.devices.distribution import connect
from training.job import open_job

pytestmark = pytest.mark.slow


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The folder of a run that was started, without a checkpoint yet."""
    config = runs.flags(tmp_path, "run")[0].removeprefix("--config=")
    experiment = load_experiment(config, overrides=[f"model_dir={tmp_path}/run"])
    job = open_job(experiment, connect("cpu"))
    (tmp_path / "run").mkdir()
    save_experiment(job.experiment, tmp_path / "run/experiment.yaml")
    write_dataset_info(job.data_info, str(tmp_path / "run"))
    return tmp_path


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
        "only resume with the same model, data and batch; give its values, or another --model_dir"
    )


def test_another_number_of_training_images_is_refused(
    begun: Path, capsys: pytest.CaptureFixture
) -> None:
    config = runs.flags(begun, "run")[0].removeprefix("--config=")
    experiment = load_experiment(config)
    info = open_job(experiment, connect("cpu")).data_info
    fewer = {**info.splits, "train": dataclasses.replace(info.splits["train"], num_examples=79)}
    write_dataset_info(dataclasses.replace(info, splits=fewer), str(begun / "run"))
    assert "(training images: 79 -> 80); a run can only resume" in refusal(begun, capsys)
