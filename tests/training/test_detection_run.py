"""A run on boxes, from scenes to predictions, with the command line."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.sources import digit_scenes
from proofs.faults import CONFIG, rows
from tests import runs

COUNTS = {"train": 16, "validation": 6}
EXPERIMENT = """
model: {name: NETWORK, image_size: 64}
task: {name: detection, filters: 8, cells: 1, head_repeats: 1, anchor_scale: 3.0}
data: {source: digit_scenes, data_dir: scenes}
augment: {policy: none, framing: scale_jitter, scale_range: [0.8, 1.2], resize: bilinear}
train: {global_batch_size: 8, duration: 6 steps, steps_per_call: 2, label_smoothing: 0.0}
schedule: {learning_rate: 0.05, warmup: 0 steps}
ema: {decay: 0.5}
eval: {every: 2 steps, framing: letterbox, alignment: top_left}
checkpoint: {every: 2 steps}
export: {formats: []}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a few scenes and an experiment, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(digit_scenes, "NUM_SCENES", COUNTS)
    digit_scenes.write_digit_scenes("scenes")
    network = str(CONFIG.with_name("five_blocks.yaml"))
    Path("boxes.yaml").write_text(EXPERIMENT.replace("NETWORK", network))
    return tmp_path


@pytest.mark.slow
def test_a_run_on_boxes_trains_and_evaluates(here: Path, capsys: pytest.CaptureFixture) -> None:
    command = runs.in_this_process(capsys)
    status, out, err = command("--config=boxes.yaml", "--strategy=cpu", "--model_dir=run")
    assert status == 0, err
    assert "AP50" in out
    assert "predictions" in out
    picture = tf.io.decode_png(Path("run/predictions.png").read_bytes())
    assert picture.shape == (COUNTS["validation"] * 68, 2 * 68, 3)
    assert "Left out" not in Path("run/report.html").read_text()
    evaluated = [row for row in rows(here / "run") if row["kind"] == "eval"]
    assert [row["step"] for row in evaluated] == [2, 4, 6]
    assert all(0 <= row["ap"] <= row["ap_50"] <= 1 for row in evaluated)
    trained = [row for row in rows(here / "run") if row["kind"] == "train"]
    assert all(np.isfinite(row["class_loss"]) and row["positives"] > 0 for row in trained)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("augment.cutmix_alpha=0.2", "set augment.mixup_alpha=0 and augment.cutmix_alpha=0"),
        ("model.dropout=0.1", "model.dropout=0.1 has no effect with task.name=detection"),
        ("eval.framing=center_crop", "set eval.framing=letterbox or squash"),
        ("task.nms_iou=0.4", "task.nms_iou=0.4 has no effect without task.nms=hard"),
        ("task.iou_loss_weight=2.0", "has no effect without task.iou_loss"),
        ("task.detector=efficientdet-d9", "efficientdet-d7x"),
        ("task.anchor_scale=[1.0, 2.0]", "task.anchor_scale has 2 numbers, expected 5"),
        ("task.anchor_scale=0.0", "a number above 0"),
        ("data.source=image_folder", "data source image_folder holds classes of whole images"),
        pytest.param("task.max_boxes=1", "more than task.max_boxes=1", marks=pytest.mark.slow),
    ],
)
def test_what_does_not_fit_is_one_line(here: Path, capsys, setting: str, expected: str) -> None:
    command = runs.in_this_process(capsys)
    flags = ["--config=boxes.yaml", "--strategy=cpu", "--model_dir=run", f"--set={setting}"]
    status, _, err = command(*flags)
    assert status != 0
    assert expected in runs.one_line("\n".join(err.splitlines()[-1:]))


@pytest.mark.slow
def test_a_step_that_is_not_finite_is_diagnosed_and_replayed(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    command = runs.in_this_process(capsys)
    explode = "--set=schedule.learning_rate=1e30"
    status, _, err = command("--config=boxes.yaml", "--strategy=cpu", "--model_dir=run", explode)
    assert status == 1
    first = runs.one_line(err).partition("first in the ")[2].partition(";")[0]
    assert first
    status, out, err = command("--mode=replay", "--model_dir=run")
    assert status == 0, err
    assert f"first in the {first}" in out
