"""The separate evaluator: each checkpoint once, whatever happens to it, until training has ended."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.load import load_experiment
from proofs.faults import curve, rows
from tests import runs
from training import eval_loop
from training.devices.distribution import connect
from training.failures import TrainingError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that was not evaluated, with checkpoints at steps 4, 8 and 12."""
    folder = tmp_path_factory.mktemp("trained")
    flags = runs.flags(folder, "run")
    assert runs.run_here(*flags, "--mode=train", "--set=export.formats=[]") == 0
    return folder / "run"


def without(trained: Path, folder: Path, *steps: int) -> Path:
    """A copy of the run as it was before it wrote the checkpoints of `steps`."""
    copy = Path(shutil.copytree(trained, folder / "run"))
    for step in steps:
        shutil.rmtree(checkpoint(copy, step))
    return copy


def checkpoint(model_dir: Path, step: int) -> Path:
    return model_dir / "checkpoints" / f"step_{step:08d}"


def follow(
    model_dir: Path, pause: Callable[[], None], now: Callable[[], float] = lambda: 0.0
) -> int:
    experiment = load_experiment(
        str(model_dir / "experiment.yaml"), overrides=[f"model_dir={model_dir}"]
    )
    return eval_loop.follow(experiment, connect("cpu"), pause=pause, now=now)


def evaluated(model_dir: Path) -> list[int]:
    return [row["step"] for row in rows(model_dir / "eval_loop")]


def never() -> None:
    raise AssertionError("there was something to do")


def test_checkpoints_are_evaluated_as_they_come_until_training_has_ended(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model_dir = without(trained, tmp_path, 8, 12)
    pauses = []

    def train_on() -> None:
        assert evaluated(model_dir) == [4, 8][: len(pauses) + 1]
        step = (8, 12)[len(pauses)]
        pauses.append(step)
        shutil.copytree(checkpoint(trained, step), checkpoint(model_dir, step))

    assert follow(model_dir, train_on) == 3
    assert evaluated(model_dir) == [4, 8, 12]
    assert sorted({point[0] for point in curve(model_dir / "eval_loop", "eval")}) == [4, 8, 12]
    assert "training has ended at step 12" in capsys.readouterr().out
    # Nothing of the run itself was touched.
    assert (model_dir / "metrics.jsonl").read_text() == (trained / "metrics.jsonl").read_text()
    # Started again, it has nothing left to do.
    assert follow(model_dir, never) == 0
    assert evaluated(model_dir) == [4, 8, 12]


def test_checkpoints_that_are_removed_or_damaged_are_said_and_passed_over(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir = without(trained, tmp_path)
    (checkpoint(model_dir, 4) / "values.index").write_bytes(b"damaged")
    find = eval_loop.CheckpointStore.find

    def find_and_remove(store: eval_loop.CheckpointStore, step: int) -> object:
        found = find(store, step)
        if step == 8:
            shutil.rmtree(checkpoint(model_dir, 8))
        return found

    monkeypatch.setattr(eval_loop.CheckpointStore, "find", find_and_remove)
    assert follow(model_dir, never) == 1
    assert evaluated(model_dir) == [12]
    out = capsys.readouterr().out
    assert "step 4, epoch 0.4: not evaluated: the checkpoint was deleted or is damaged" in out
    assert "step 8, epoch 0.8: not evaluated: " in out


def test_no_new_checkpoint_for_too_long_is_one_line(trained: Path, tmp_path: Path) -> None:
    model_dir = without(trained, tmp_path, 4, 8, 12)
    clock = [0.0]

    def pause() -> None:
        clock[0] += 1000.0

    with pytest.raises(TrainingError) as ended:
        follow(model_dir, pause, lambda: clock[0])
    assert "no new checkpoint for 60 min; the last was at step 0 of 12" in str(ended.value)
    assert "eval.timeout_minutes" in str(ended.value)
    assert clock == [4000.0]


@pytest.mark.parametrize("mode", ["eval_loop", "replay"])
def test_without_a_run_there_is_nothing_to_follow_or_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture, mode: str
) -> None:
    run = runs.in_this_process(capsys)
    status, _, err = run(f"--mode={mode}", f"--model_dir={tmp_path}")
    assert status == 2
    assert "no run here" in runs.one_line(err)


def test_the_command_follows_a_run_that_has_ended(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model_dir = without(trained, tmp_path, 4, 8)
    status, out, _ = runs.in_this_process(capsys)("--mode=eval_loop", f"--model_dir={model_dir}")
    assert status == 0
    assert evaluated(model_dir) == [12]
    assert "step 12, epoch 1.2: top-1" in out
