"""metrics.jsonl and TensorBoard: after a resume, no step twice and none missing."""

import json
from pathlib import Path

import tensorflow as tf
from tensorboard.plugins.hparams import metadata

from run_folder.logs import METRICS, TIMES, RunLog, read_log, write_hyperparameters


def _steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]


def _event_steps(path: Path) -> list[int]:
    found = []
    for file in sorted((path / "tensorboard/train").glob("events*")):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            found += [event.step for value in event.summary.value if value.tag == "loss"]
    return sorted(found)


def _log(path: Path, resume_step: int, steps: range) -> None:
    log = RunLog(str(path), resume_step=resume_step)
    for step in steps:
        log.scalars("train", step, {"loss": float(step)})
    log.close()


def test_a_resumed_run_logs_each_step_once(tmp_path: Path) -> None:
    _log(tmp_path, 0, range(1, 8))
    _log(tmp_path, 4, range(5, 11))
    assert _steps(tmp_path) == list(range(1, 11))
    assert _event_steps(tmp_path) == list(range(1, 11))


def test_a_line_that_was_cut_off_counts_for_nothing(tmp_path: Path) -> None:
    _log(tmp_path, 0, range(1, 4))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    _log(tmp_path, 3, range(4, 6))
    assert _steps(tmp_path) == [1, 2, 3, 4, 5]


def test_a_torn_event_file_keeps_what_is_whole(tmp_path: Path) -> None:
    _log(tmp_path, 0, range(1, 4))
    (file,) = (tmp_path / "tensorboard/train").glob("events*")
    file.write_bytes(file.read_bytes()[:-5])
    _log(tmp_path, 2, range(3, 5))
    assert _event_steps(tmp_path) == [1, 2, 3, 4]


def test_another_run_in_the_same_folder_starts_a_clean_log(tmp_path: Path) -> None:
    _log(tmp_path, 0, range(1, 4))
    _log(tmp_path, 0, range(1, 3))
    assert _steps(tmp_path) == [1, 2]
    assert _event_steps(tmp_path) == [1, 2]


def test_times_have_a_file_of_their_own_and_are_cut_back_too(tmp_path: Path) -> None:
    for resume_step, steps in ((0, (2, 4, 6)), (4, (6, 8))):
        log = RunLog(str(tmp_path), resume_step=resume_step)
        for step in steps:
            log.time("train", step, 0.12345, images=32)
            log.curve("speed", step, {"images_per_second": 260.0})
        log.close()
    rows = read_log(str(tmp_path), TIMES)
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert rows[0] == {"phase": "train", "step": 2, "seconds": 0.1235, "images": 32}
    assert read_log(str(tmp_path), METRICS) == []
    assert list((tmp_path / "tensorboard/speed").glob("events*"))


def test_a_log_without_times_has_no_file_of_them(tmp_path: Path) -> None:
    _log(tmp_path, 0, range(1, 3))
    assert not (tmp_path / TIMES).exists()
    assert read_log(str(tmp_path), TIMES) == []


def test_the_hyperparameters_of_the_last_training_are_kept_with_its_best_metric(
    tmp_path: Path,
) -> None:
    write_hyperparameters(str(tmp_path), {"seed": 1}, 5, {"top_1": 0.5})
    settings = {"seed": 2, "ema.decay": 0.9, "optimizer.name": "sgd", "ema.ramp": True}
    write_hyperparameters(str(tmp_path), settings, 7, {"top_1": 0.75})
    (file,) = (tmp_path / "tensorboard/hparams").glob("events*")
    records = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    events = [tf.compat.v1.Event.FromString(record) for record in records]
    values = {value.tag: (event.step, value) for event in events for value in event.summary.value}
    data = values[metadata.SESSION_START_INFO_TAG][1].metadata.plugin_data
    started = metadata.parse_session_start_info_plugin_data(data.content).hparams
    found = {name: getattr(x, x.WhichOneof("kind")) for name, x in started.items()}
    assert found == settings
    step, best = values["best/top_1"]
    assert (step, float(tf.make_ndarray(best.tensor))) == (7, 0.75)
