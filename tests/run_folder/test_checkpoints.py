"""Checkpoints: whole or not counted, the best never lost, nothing good overwritten by something broken."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from run_folder import checkpoints
from run_folder.checkpoints import CheckpointError, CheckpointStore, best_checkpoint
from tests.full_disk import full_disk

ARRAYS = {"step": np.int32(7), "network/stem_conv/kernel": np.arange(6.0, dtype=np.float32)}


def _store(path: Path, **options: object) -> tuple[CheckpointStore, list[str]]:
    logged: list[str] = []
    given = {"best_metric": "top_1", "log": logged.append, **options}
    return CheckpointStore(str(path), **given), logged  # type: ignore[arg-type]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_is_saved_is_read_back_to_the_bit(tmp_path: Path, asynchronous: bool) -> None:
    store, logged = _store(tmp_path, asynchronous=asynchronous)
    store.save(7, ARRAYS, {"top_1": 0.5})
    store.wait()
    checkpoint = store.latest()
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.metrics) == (7, {"top_1": 0.5})
    read = checkpoint.read()
    assert read.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype
    assert logged == []


def test_tensorflow_reads_the_values_by_name(tmp_path: Path) -> None:
    store, _ = _store(tmp_path)
    store.save(7, ARRAYS)
    reader = tf.train.load_checkpoint(str(tmp_path / "checkpoints/step_00000007/values"))
    assert reader.get_variable_to_shape_map()["network/stem_conv/kernel"] == [6]


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    store, _ = _store(tmp_path, keep=2)
    for step, top_1 in ((1, 0.1), (2, 0.9), (3, 0.3), (4, 0.4), (5, 0.5)):
        store.save(step, ARRAYS, {"top_1": top_1})
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["step_00000002", "step_00000004", "step_00000005"]
    best = store.best()
    assert best is not None
    assert best.step == 2


def test_the_best_is_that_of_the_tasks_own_metric(tmp_path: Path) -> None:
    store, _ = _store(tmp_path, keep=1, best_metric="mean_average_precision")
    for step, precision in ((1, 0.1), (2, 0.9), (3, 0.3)):
        store.save(step, ARRAYS, {"mean_average_precision": precision, "top_1": step})
    assert store.steps() == [2, 3]
    best = best_checkpoint(str(tmp_path), "mean_average_precision")
    assert best.step == 2


def test_only_a_verified_best_is_read(tmp_path: Path) -> None:
    store, logged = _store(tmp_path)
    for step, top_1 in ((1, 0.1), (2, 0.9), (3, 0.3)):
        store.save(step, ARRAYS, {"top_1": top_1})
    (tmp_path / "checkpoints/step_00000002/values.index").write_bytes(b"damaged")
    best = store.best(verify=False)
    assert best is not None
    assert best.step == 2
    assert logged == []
    best = store.best()
    assert best is not None
    assert best.step == 3
    assert "damaged" in logged[0]


def test_the_later_of_equally_good_ones_is_the_best(tmp_path: Path) -> None:
    store, _ = _store(tmp_path)
    for step in (1, 2):
        store.save(step, ARRAYS, {"top_1": 0.5})
    best = store.best()
    assert best is not None
    assert best.step == 2


def test_the_best_knows_since_when_nothing_was_better(tmp_path: Path) -> None:
    store, _ = _store(tmp_path, keep=1)
    for step, figure in enumerate((0.4, 0.5, 0.3, 0.5), start=1):
        store.save(step, ARRAYS, {"top_1": figure})
    assert store.best().best_since == 2
    store.save(5, ARRAYS)
    store.add_metrics(store.latest(), {"top_1": 0.5})
    assert (store.best().step, store.best().best_since) == (5, 2)
    store.save(6, ARRAYS, {"top_1": 0.6})
    assert store.best().best_since == 6


@pytest.mark.parametrize(
    ("damage", "logged"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "half-written (no manifest)"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "half-written (no manifest)"),
        (lambda folder: (folder / "values.index").unlink(), "unreadable"),
        (
            lambda folder: (folder / "values.data-00000-of-00001").write_bytes(b"short"),
            "damaged (values.data-00000-of-00001 does not match its checksum)",
        ),
    ],
    ids=["torn", "torn manifest", "file gone", "file cut"],
)
def test_a_broken_checkpoint_is_passed_over_with_one_line(
    tmp_path: Path, damage: object, logged: str
) -> None:
    store, lines = _store(tmp_path)
    store.save(1, ARRAYS)
    store.save(2, ARRAYS)
    damage(tmp_path / "checkpoints/step_00000002")  # type: ignore[operator]
    checkpoint = store.latest()
    assert checkpoint is not None
    assert checkpoint.step == 1
    (line,) = lines
    assert "step_00000002" in line
    assert logged in line
    assert line.endswith("taking an earlier checkpoint")


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    store, lines = _store(tmp_path)
    store.save(1, ARRAYS)
    file = tmp_path / "checkpoints/step_00000001/values.data-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    assert store.latest() is None
    assert "does not match its checksum" in lines[0]


def test_a_torn_checkpoint_never_pushes_out_good_ones(tmp_path: Path) -> None:
    store, _ = _store(tmp_path, keep=1)
    store.save(1, ARRAYS)
    store.save(3, ARRAYS)
    (tmp_path / "checkpoints/step_00000003/manifest.json").unlink()
    store.save(2, ARRAYS)
    latest = store.latest()
    assert latest is not None
    assert latest.step == 2


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_write_that_fails_says_how_much_is_needed_and_harms_nothing(
    tmp_path: Path, asynchronous: bool
) -> None:
    store, _ = _store(tmp_path, asynchronous=asynchronous)
    store.save(1, ARRAYS)
    store.wait()
    (tmp_path / "elsewhere").write_text("a file where a folder should be")
    elsewhere = str(tmp_path / "elsewhere")
    blocked = CheckpointStore(elsewhere, best_metric="top_1", asynchronous=asynchronous)

    def save_and_wait() -> None:
        blocked.save(2, ARRAYS)
        blocked.wait()

    with pytest.raises(CheckpointError, match=r"can't be written .* MiB are needed"):
        save_and_wait()
    latest = store.latest()
    assert latest is not None
    assert latest.step == 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_full_disk_leaves_earlier_checkpoints_and_nothing_half_written(
    tmp_path: Path, asynchronous: bool
) -> None:
    store, lines = _store(tmp_path, asynchronous=asynchronous)
    store.save(1, ARRAYS)
    store.wait()
    large = {"network/kernel": np.ones(2**20, np.float32)}

    def save_and_wait() -> None:
        store.save(2, large)
        store.wait()

    with full_disk(2**20), pytest.raises(CheckpointError) as caught:
        save_and_wait()
    failure = str(caught.value)
    assert "step_00000002: can't be written" in failure
    assert "4 MiB are needed" in failure
    assert "earlier checkpoints are untouched" in failure
    assert len(failure.splitlines()) == 1
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]
    assert store.latest() is not None
    store.save(2, large)  # once there is space again
    store.wait()
    latest = store.latest()
    assert latest is not None
    assert latest.step == 2
    assert lines == []


def test_training_goes_on_during_one_write_and_waits_with_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = _store(tmp_path, asynchronous=True)
    write, wait, events = checkpoints._write_checkpoint, store.wait, []
    begun, waited_for = threading.Event(), threading.Event()

    def slow_write(path: str, step: int, *args: object) -> None:
        events.append(f"{step} begins")
        begun.set()
        assert waited_for.wait(60)
        write(path, step, *args)  # type: ignore[arg-type]
        events.append(f"{step} is written")

    def wait_and_tell() -> None:
        if events:
            waited_for.set()  # only now does the first write go on
        wait()

    monkeypatch.setattr(checkpoints, "_write_checkpoint", slow_write)
    monkeypatch.setattr(store, "wait", wait_and_tell)
    store.save(1, ARRAYS)
    assert begun.wait(60)
    assert events == ["1 begins"]
    store.save(2, ARRAYS)
    store.wait()
    assert events == ["1 begins", "1 is written", "2 begins", "2 is written"]
    assert store.steps() == [1, 2]


def test_metrics_can_be_added_to_a_checkpoint_that_is_there(tmp_path: Path) -> None:
    store, _ = _store(tmp_path)
    store.save(1, ARRAYS)
    checkpoint = store.latest()
    assert checkpoint is not None
    store.add_metrics(checkpoint, {"top_1": 0.5})
    best = store.best()
    assert best is not None
    assert best.metrics == {"top_1": 0.5}
    shutil.rmtree(checkpoint.path)
    with pytest.raises(CheckpointError, match="its metrics can't be written"):
        store.add_metrics(checkpoint, {"top_1": 0.6})
    with pytest.raises(CheckpointError, match="can't be read"):
        checkpoint.read()


def test_a_manifest_that_was_changed_is_no_manifest(tmp_path: Path) -> None:
    store, lines = _store(tmp_path)
    store.save(1, ARRAYS, {"top_1": 0.5})
    manifest = tmp_path / "checkpoints/step_00000001/manifest.json"
    manifest.write_text(manifest.read_text().replace("0.5", "0.9"))
    assert store.best() is None
    assert "half-written" in lines[0]


def test_an_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    store, _ = _store(tmp_path)
    assert store.latest() is None
    assert store.best() is None


def test_the_manifest_holds_size_and_checksum_of_each_file(tmp_path: Path) -> None:
    store, _ = _store(tmp_path)
    store.save(1, ARRAYS)
    folder = tmp_path / "checkpoints/step_00000001"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == {p.name for p in folder.iterdir()} - {"manifest.json"}
    for name, file in manifest["files"].items():
        assert file["bytes"] == (folder / name).stat().st_size
