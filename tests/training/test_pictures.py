"""The pictures of stages show what training reads."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from configs.load import load_experiment
from training import pictures
from training.devices.distribution import connect
from training.inputs import train_dataset
from training.job import Job, open_job

PAGE = Path(pictures.__file__).parents[1] / "docs/images/progressive.png"
SMOKE = ["--config=configs/smoke.yaml", "--set=data.num_train_examples=40"]
STAGES = "--set=stages=[{duration: 50 %, set: {model.image_size: 16}}, {}]"


def digits(data_dir: Path) -> Job:
    overrides = [f"data.data_dir={data_dir}"]
    return open_job(
        load_experiment("configs/digits_progressive.yaml", overrides=overrides), connect("cpu")
    )


@pytest.mark.slow
def test_the_page_shows_the_first_images_of_every_stage(tmp_path: Path) -> None:
    job = digits(tmp_path)
    kept = tf.io.decode_png(PAGE.read_bytes(), channels=3)
    np.testing.assert_array_equal(kept, pictures.draw_stages(job, job.plan.stages, 12))
    last = job.plan.stages[-1]
    batch = next(iter(train_dataset(job.at(last.first_step), last.first_step)(0, 1)))
    np.testing.assert_array_equal(pictures.stage_images(job, last, 12), batch["image"][:12])


@pytest.mark.slow
def test_one_stage_or_all_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    heights = {}
    for stage in (None, 1, 2):
        file = tmp_path / f"{stage}.png"
        chosen = [] if stage is None else [f"--stage={stage}"]
        flags = [*SMOKE, STAGES, *chosen, "--images=2", f"--output={file}"]
        assert pictures.main(flags) == 0
        heights[stage] = tf.io.decode_png(file.read_bytes()).shape[0]
    # One factor for all stages of a picture.
    assert heights[1] == heights[2]
    assert heights[None] < heights[1] + heights[2]
    capsys.readouterr()


def test_a_stage_that_there_is_not_is_one_line(capsys: pytest.CaptureFixture) -> None:
    assert pictures.main([*SMOKE, STAGES, "--stage=3"]) == 2
    err = capsys.readouterr().err
    assert err == "training.pictures: --stage=3: smoke has 2 stages; expected 1 to 2\n"
