"""The command line, from flags to what a user reads and finds."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml

import main
from benchmarks.latency import evaluation_images
from proofs.faults import NETWORK
from run_folder.checkpoints import CheckpointStore
from serving.predictor import find_export, open_predictor
from tests import runs

ROOT = Path(main.__file__).parent
TINY = """
name: tiny
model: {name: NETWORK, dropout: 0.1}
data: {source: digits}
augment: {policy: none, flip: false, crop_area: [0.8, 1.0]}
train: {global_batch_size: 32, duration: 12 steps, steps_per_call: 2}
schedule: {learning_rate: 0.004, warmup: 4 steps, decay_every: 4 steps}
ema: {decay: 0.9}
batch_norm: {epsilon: 0.1, momentum: 0.9}  # not the family's: what is exported must know of it
eval: {every: 6 steps, global_batch_size: 128}
checkpoint: {every: 4 steps}
"""

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(TINY.replace("NETWORK", str(NETWORK)) + f"# {folder}\n")
    return folder


@pytest.fixture
def command(tiny: Path, capsys: pytest.CaptureFixture) -> Command:
    """Return a function that runs main.py in this process: (flags) -> exit status, stdout, stderr."""
    return runs.in_this_process(capsys)


@pytest.fixture(scope="session")
def trained(tiny: Path) -> tuple[Path, str]:
    """Train a run by the command in its own process; return it and what it printed."""
    done = _spawn(tiny, "finished")
    return tiny / "finished", done


def _flags(tiny: Path, name: str) -> list[str]:
    return [
        f"--config={tiny / 'tiny.yaml'}",
        f"--data_dir={tiny / 'digits'}",
        f"--model_dir={tiny / name}",
    ]


def _spawn(tiny: Path, name: str, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *_flags(tiny, name), *flags],
        capture_output=True,
        text=True,
        timeout=runs.TIMEOUT_SECONDS,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no line of TensorFlow's
    return done.stdout


@pytest.mark.slow
def test_training_leaves_everything_and_says_where(trained: tuple[Path, str]) -> None:
    folder, printed = trained
    logs = ("metrics.jsonl", "times.jsonl", "starts.jsonl", "evaluation.json")
    for name in ("experiment.yaml", "dataset_info.json", "report.html", *logs):
        assert (folder / name).exists()
    assert str(folder / "report.html") in printed
    assert list((folder / "tensorboard/train").glob("events*"))
    exported = list((folder / "export/saved_model").iterdir())
    assert len(exported) == 1
    assert exported[0].name.isdigit()
    assert "confusion" in printed
    assert str(exported[0]) in printed


@pytest.mark.slow
def test_what_is_exported_is_what_was_evaluated(trained: tuple[Path, str]) -> None:
    folder = str(trained[0])
    best = CheckpointStore(folder, best_metric="top_1").best()
    assert best is not None
    predictor = open_predictor(find_export(folder))
    images, labels = evaluation_images(folder, predictor)
    probabilities = predictor.from_pixels(images)
    own = np.take_along_axis(probabilities, labels[:, np.newaxis], axis=1)
    assert -np.log(own).mean() == pytest.approx(best.metrics["cross_entropy"], rel=1e-4)
    assert (probabilities.argmax(axis=1) == labels).mean() == pytest.approx(best.metrics["top_1"])


@pytest.mark.slow
def test_metrics_hold_every_step_once(trained: tuple[Path, str]) -> None:
    rows = [json.loads(line) for line in (trained[0] / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["kind"] == "train"] == [2, 4, 6, 8, 10, 12]
    assert [r["step"] for r in rows if r["kind"] == "eval"] == [6, 12]
    assert all(np.isfinite(r["loss"]) for r in rows if r["kind"] == "train")


@pytest.mark.slow
def test_the_resolved_experiment_is_written_down(trained: tuple[Path, str]) -> None:
    resolved = yaml.safe_load((trained[0] / "experiment.yaml").read_text())
    assert resolved["model"]["num_classes"] == 10
    assert resolved["train"]["duration"] == "12 steps"


@pytest.mark.slow
def test_running_again_says_that_it_is_finished(
    trained: tuple[Path, str], tiny: Path, command: Command
) -> None:
    before = sorted(p.name for p in (trained[0] / "checkpoints").iterdir())
    status, out, _ = command(*_flags(tiny, "finished"))
    assert status == 0
    assert "finished already, at step 12 of 12" in out
    assert sorted(p.name for p in (trained[0] / "checkpoints").iterdir()) == before


@pytest.mark.slow
def test_eval_gives_the_accuracy_of_training_to_the_digit(
    trained: tuple[Path, str], command: Command
) -> None:
    status, out, _ = command("--mode=eval", f"--model_dir={trained[0]}")
    assert status == 0
    best = CheckpointStore(str(trained[0]), best_metric="top_1").best()
    assert best is not None
    figures = f"{best.metrics['top_1']:.2%}", f"{best.metrics['cross_entropy']:.4f}"
    for figure in figures:
        assert figure in out
        assert figure in trained[1]


@pytest.mark.slow
def test_export_writes_the_saved_model_again(trained: tuple[Path, str], command: Command) -> None:
    (version,) = (trained[0] / "export/saved_model").iterdir()
    graph = version / "saved_model.pb"
    graph.unlink()
    status, out, _ = command("--mode=export", f"--model_dir={trained[0]}")
    assert status == 0
    assert graph.exists()
    assert str(version) in out


@pytest.mark.slow
def test_a_half_written_checkpoint_is_passed_over_with_a_word(
    trained: tuple[Path, str], tiny: Path, command: Command
) -> None:
    torn = trained[0] / "checkpoints" / "step_00000099"
    torn.mkdir()
    (torn / "values.index").write_bytes(b"half")
    try:
        status, out, _ = command("--mode=eval", f"--model_dir={trained[0]}")
    finally:
        (torn / "values.index").unlink()
        torn.rmdir()
    assert status == 0
    assert "step_00000099: half-written (no manifest); taking an earlier checkpoint" in out


def _one_line(err: str) -> str:
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1, err
    return lines[0]


def test_a_mistyped_model_lists_near_names(tiny: Path, command: Command) -> None:
    status, _, err = command(*_flags(tiny, "none"), "--model=efficientnet-b44")
    assert status == 2
    assert "efficientnet-b4" in _one_line(err)


def test_a_missing_data_dir_says_what_was_looked_for(tiny: Path, command: Command) -> None:
    status, _, err = command(
        "--model=efficientnet-b0", f"--data_dir={tiny / 'nothing'}", f"--model_dir={tiny / 'none'}"
    )
    assert status == 1
    assert str(tiny / "nothing") in _one_line(err)


def test_no_such_tpu_says_what_to_do(tiny: Path, command: Command) -> None:
    status, _, err = command(*_flags(tiny, "none"), "--tpu=local")
    assert status == 2
    assert _one_line(err).startswith("main.py: --tpu=local: ")


def test_a_tpu_address_where_nobody_listens_is_said_at_once(tiny: Path, command: Command) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"grpc://127.0.0.1:{free.getsockname()[1]}"
    status, _, err = command(*_flags(tiny, "none"), f"--tpu={address}")
    assert status == 2
    assert f"--tpu={address}: no such TPU, or it can't be reached" in _one_line(err)


def test_a_batch_that_replicas_cannot_share_names_the_near_ones(
    tiny: Path, command: Command
) -> None:
    status, _, err = command(
        *_flags(tiny, "none"), "--strategy=mirrored", "--set=train.global_batch_size=30"
    )
    assert status == 2
    assert "30 is not divisible by 4 replicas; take 28 or 32" in _one_line(err)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("phi=1", "model: phi scales efficientnet-b0, not efficientnet-b1"),
        ("image_size=64", "model: phi replaces resolution"),
    ],
)
def test_a_model_that_cannot_be_scaled_is_refused(
    setting: str, message: str, tiny: Path, command: Command
) -> None:
    model = "efficientnet-b1" if setting == "phi=1" else "efficientnet-b0"
    flags = [f"--model={model}", "--set=model.phi=1", f"--set=model.{setting}"]
    status, _, err = command(f"--model_dir={tiny / 'none'}", *flags)
    assert status == 2
    assert message in _one_line(err)


@pytest.mark.parametrize("mode", ["train_and_eval", "eval"])
def test_batch_norm_groups_that_do_not_divide_the_replicas_are_refused(
    mode: str, tiny: Path, command: Command
) -> None:
    status, _, err = command(
        *_flags(tiny, "none"), f"--mode={mode}", "--strategy=mirrored", "--set=batch_norm.group=3"
    )
    assert status == 2
    assert "batch_norm.group: groups of 3 do not divide 4 replicas; give" in _one_line(err)


def test_a_class_count_that_is_not_the_datas_is_refused(tiny: Path, command: Command) -> None:
    status, _, err = command(*_flags(tiny, "none"), "--set=model.num_classes=12")
    assert status == 2
    assert "model.num_classes: 12, but the classes of digits are 10" in _one_line(err)


def test_a_model_dir_that_cannot_be_written_is_named(tiny: Path, command: Command) -> None:
    (tiny / "file").write_text("not a folder")
    status, _, err = command(*_flags(tiny, "file/run"))
    assert status == 2
    assert f"--model_dir={tiny / 'file/run'}: can't be written" in _one_line(err)


@pytest.mark.slow
def test_a_resume_with_another_model_is_refused_with_the_difference(
    trained: tuple[Path, str], tiny: Path, command: Command
) -> None:
    status, _, err = command(*_flags(tiny, "finished"), "--set=model.dropout=0.5")
    assert status == 2
    assert "model.dropout: 0.1 -> 0.5" in _one_line(err)


def test_eval_without_a_run_says_so(tiny: Path, command: Command) -> None:
    status, _, err = command(*_flags(tiny, "empty"), "--mode=eval")
    assert status == 1
    assert "no checkpoint here" in _one_line(err)


@pytest.mark.parametrize("flag", ["--mode=trian", "--nonsense=1", "--seed=-1"])
def test_a_bad_flag_is_one_line(flag: str, command: Command) -> None:
    status, _, err = command(flag)
    assert status == 2
    assert flag.split("=")[0].lstrip("-") in _one_line(err)


def test_help_succeeds() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "--help"],
        capture_output=True,
        text=True,
        timeout=runs.TIMEOUT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--model_dir" in done.stdout


def test_an_export_of_a_default_folder_without_a_run_is_usage(tiny: Path, command: Command) -> None:
    status, _, err = command(*_flags(tiny, "empty"), "--mode=export")
    assert status == 2
    assert "no run here" in _one_line(err)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, command: Command) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "learning_rate.png").mkdir()
    status, _, err = command("--mode=plan", "--model=efficientnet-b0", f"--model_dir={tmp_path}")
    assert status == 1
    assert f"check --model_dir={tmp_path}" in _one_line(err)


@pytest.mark.parametrize("mode", ["eval", "eval_loop", "export", "replay"])
def test_what_needs_a_run_says_that_there_is_none(
    mode: str, tmp_path: Path, command: Command
) -> None:
    status, _, err = command(f"--mode={mode}", f"--model_dir={tmp_path}")
    assert status == 2
    assert "no run here" in _one_line(err)


@pytest.mark.slow
def test_an_image_that_is_none_stops_training_with_its_file(tiny: Path, command: Command) -> None:
    broken = tiny / "broken"
    broken.mkdir()
    for split, count in (("train", 40), ("validation", 8)):
        with tf.io.TFRecordWriter(str(broken / f"{split}-00000-of-00001")) as writer:
            for i in range(count):
                features = {
                    "image/encoded": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[b"no image"])
                    ),
                    "image/class/label": tf.train.Feature(
                        int64_list=tf.train.Int64List(value=[i % 2 + 1])
                    ),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
    status, _, err = command(
        f"--config={tiny / 'tiny.yaml'}",
        f"--data_dir={broken}",
        f"--model_dir={tiny / 'unread'}",
        "--set=data.source=tfrecord",
        "--set=model.num_classes=2",
    )
    assert status == 1
    assert "train-00000-of-00001" in _one_line(err)


@pytest.mark.slow
def test_the_report_shows_the_figures_of_the_run(trained: tuple[Path, str]) -> None:
    page = (trained[0] / "report.html").read_text()
    best = CheckpointStore(str(trained[0]), best_metric="top_1").best()
    assert best is not None
    assert f"<b>{best.metrics['top_1']:.2%}</b>top-1" in page
    assert "<b>12 of 12</b>steps" in page
    assert "Left out" not in page
    times = [json.loads(line) for line in (trained[0] / "times.jsonl").read_text().splitlines()]
    assert sum(row.get("steps", 0) for row in times) == 12
    assert {row["phase"] for row in times} == {
        "start",
        "trace",
        "train",
        "evaluation",
        "checkpoint",
    }
    for row in times:
        assert 0 <= row.get("input_seconds", 0) <= row["seconds"]
