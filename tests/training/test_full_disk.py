"""A disk that fills up in the midst of a run: one clear line, nothing good lost, and the same end.

Checkpoints have tests of their own in test_checkpoints.py.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import serving.export
from proofs.faults import curve, rows
from run_folder.checkpoints import CheckpointStore
from run_folder.logs import LogError, RunLog
from tests import runs
from tests.full_disk import full_disk
from training.run import Run

pytestmark = pytest.mark.slow

SMALL = 64  # bytes that still fit: less than a row of figures or a curve's point


def checkpoint_files(model_dir: Path) -> dict[Path, bytes]:
    files = (model_dir / "checkpoints").rglob("*")
    return {path: path.read_bytes() for path in files if path.is_file()}


def full_during(
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    when: Callable[..., int | None],
) -> None:
    """Fill the disk during calls of `owner.name` for which `when` gives a size."""
    part = getattr(owner, name)

    def run(*args: object, **kwargs: object) -> object:
        size = when(*args, **kwargs)
        if size is None:
            return part(*args, **kwargs)
        with full_disk(size):
            return part(*args, **kwargs)

    monkeypatch.setattr(owner, name, run)


@pytest.mark.parametrize("what", ["metrics.jsonl", "tensorboard"])
def test_a_disk_that_fills_under_the_log_ends_in_one_line_and_the_restart_in_the_same_end(
    folder: Path,
    uninterrupted: Path,
    command: runs.Command,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    flags, model_dir = runs.flags(folder, what), folder / what
    before: list[dict[Path, bytes]] = []
    save = CheckpointStore.save

    def save_at_once(store: CheckpointStore, *args: Any, **kwargs: Any) -> None:
        save(store, *args, **kwargs)
        store.wait()  # the background would write on while the disk fills

    def at_step_8(step: int) -> int | None:
        if step != 8:
            return None
        before.append(checkpoint_files(model_dir))
        return SMALL

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", save_at_once)
        if what == "metrics.jsonl":
            full_during(patch, Run, "save", lambda run, metrics: at_step_8(run.step))
        else:
            full_during(patch, RunLog, "scalars", lambda log, kind, step, values: at_step_8(step))
        status, _, err = command(*flags)
    assert status == 1
    line = runs.one_line(err)
    assert f"{model_dir / what}: can't be written" in line
    assert "File too large" in line  # the system's reason
    assert "free space and run the same command again" in line
    assert "{{" not in line
    assert checkpoint_files(model_dir) == before[0] != {}
    assert list(model_dir.rglob("*.tmp")) == []
    assert not (model_dir / "run.lock").exists()

    status, out, _ = command(*flags)
    assert status == 0
    assert f"resuming from step 6 of {runs.STEPS}" in out
    runs.assert_same_end(model_dir, uninterrupted)


def test_a_disk_that_fills_under_the_export_leaves_the_one_before_and_the_checkpoints(
    tmp_path: Path, uninterrupted: Path, command: runs.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir = shutil.copytree(uninterrupted, tmp_path / "copy")
    flags = ["--mode=export", f"--model_dir={model_dir}", runs.WITH_EXPORT]
    assert command(*flags)[0] == 0
    exports = model_dir / "export/saved_model"
    before = {p: p.read_bytes() for p in exports.rglob("*") if p.is_file()}
    checkpoints = checkpoint_files(model_dir)
    with monkeypatch.context() as patch:
        full_during(patch, serving.export, "write_model_card", lambda *args: 0)
        status, _, err = command(*flags)
        assert status == 1
        assert "free disk space and run python main.py --mode=export" in runs.one_line(err)
    with monkeypatch.context() as patch:
        saved_model = serving.export.FORMATS["saved_model"]
        full_saved_model = {"saved_model": lambda *args: _full(saved_model, *args)}
        patch.setattr(serving.export, "FORMATS", full_saved_model)
        status, _, err = command(*flags)
        assert status == 1
        assert "File too large" in runs.one_line(err)
    assert {p: p.read_bytes() for p in exports.rglob("*") if p.is_file()} == before
    assert [path.name for path in exports.iterdir()] == [f"{runs.STEPS}"]
    assert checkpoint_files(model_dir) == checkpoints
    assert command(*flags)[0] == 0


def _full(part: Callable[..., str], *args: object) -> str:
    with full_disk(2**12):
        return part(*args)


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    log = RunLog(str(tmp_path), resume_step=0)
    for step in (1, 2):
        log.scalars("train", step, {"loss": 1.0 / step})
    log.flush()
    return log


def test_rows_that_are_no_longer_written_leave_those_before(tmp_path: Path, log: RunLog) -> None:
    with full_disk(SMALL), pytest.raises(LogError, match=r"metrics.jsonl: can't be written"):
        log.flush()
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]


def test_curves_that_can_not_be_cut_back_stay_as_they_were(tmp_path: Path, log: RunLog) -> None:
    log.close()
    before = curve(tmp_path, "train")
    rows_fit = (tmp_path / "metrics.jsonl").stat().st_size
    (events,) = (tmp_path / "tensorboard/train").iterdir()
    size = events.stat().st_size
    # Torn as well, so that all that is good of it has to be written again.
    with events.open("ab") as file:
        file.write(b"a record that was torn")
    assert rows_fit < size - 8
    with full_disk(size - 8), pytest.raises(LogError, match=r"tensorboard: can't be written"):
        RunLog(str(tmp_path), resume_step=2)
    assert [path.name for path in events.parent.iterdir()] == [events.name]
    with full_disk(size + 2**10):
        RunLog(str(tmp_path), resume_step=2).close()
    assert curve(tmp_path, "train") == before


def test_what_a_killed_start_left_of_its_cut_is_no_curve(tmp_path: Path, log: RunLog) -> None:
    log.close()
    (events,) = (tmp_path / "tensorboard/train").iterdir()
    (events.parent / "cut.tmp").write_bytes(events.read_bytes())
    RunLog(str(tmp_path), resume_step=1).close()
    assert [step for step, _, _ in curve(tmp_path, "train")] == [1]
    assert [path.name for path in events.parent.iterdir()] == [events.name]
