"""A signal ends a run in good order, and the same command brings it to the same end."""

import os
import signal
from pathlib import Path

import pytest

from proofs.faults import CONFIG, Life, rows
from run_folder.logs import RunLog
from tests import runs
from training import evaluator
from training.preemption import stop_signals

pytestmark = pytest.mark.slow


def signal_at(monkeypatch: pytest.MonkeyPatch, number: signal.Signals, step: int) -> None:
    """Send this process a signal when it has logged the training step."""
    log = RunLog.scalars

    def log_and_signal(self: RunLog, kind: str, at: int, values: dict) -> None:
        log(self, kind, at, values)
        if (kind, at) == ("train", step):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(RunLog, "scalars", log_and_signal)


@pytest.mark.parametrize(
    ("number", "status", "step"),
    [
        (signal.SIGTERM, 75, 2),  # nothing else is due there
        (signal.SIGINT, 130, 8),  # a checkpoint is
        (signal.SIGTERM, 75, 12),  # the last checkpoint and evaluation are
    ],
    ids=["SIGTERM-2", "SIGINT-8", "SIGTERM-12"],
)
def test_a_signalled_run_saves_its_step_and_resumes_to_the_same_end(
    folder: Path,
    uninterrupted: Path,
    command: runs.Command,
    number: signal.Signals,
    status: int,
    step: int,
) -> None:
    flags = runs.flags(folder, f"{number.name}-{step}")
    with pytest.MonkeyPatch.context() as monkeypatch:
        signal_at(monkeypatch, number, step)
        found, _, err = command(*flags)
    assert found == status
    line = runs.one_line(err)
    assert f"{number.name}: stopped at step {step} of {runs.STEPS}, which is saved" in line
    model_dir = folder / f"{number.name}-{step}"
    assert runs.latest(model_dir).step == step
    assert not (model_dir / "run.lock").exists()

    found, out, _ = command(*flags)
    assert found == 0
    assert f"resuming from step {step} of {runs.STEPS}" in out
    runs.assert_same_end(model_dir, uninterrupted)


def test_a_signal_within_an_evaluation_leaves_it_for_the_restart(
    folder: Path, uninterrupted: Path, command: runs.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [*runs.flags(folder, "evaluating"), "--set=eval.global_batch_size=2"]
    evaluate = evaluator.evaluate
    batches = []

    def evaluate_and_signal(*args: object, on_step: object, **kwargs: object) -> object:
        def after_batch(step: int) -> None:
            batches.append(step)
            os.kill(os.getpid(), signal.SIGTERM)
            on_step(step)

        return evaluate(*args, on_step=after_batch, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(evaluator, "evaluate", evaluate_and_signal)
        status, _, err = command(*flags)
    assert (status, batches) == (75, [1])
    assert f"stopped at step 6 of {runs.STEPS}" in runs.one_line(err)
    assert runs.latest(folder / "evaluating").metrics == {}

    assert command(*flags)[0] == 0
    steps = [(row["kind"], row["step"]) for row in rows(folder / "evaluating")]
    assert steps == [(row["kind"], row["step"]) for row in rows(uninterrupted)]
    figures = {"top_1", "top_5", "cross_entropy", "mean_per_class"}
    assert runs.latest(folder / "evaluating").metrics.keys() == figures


def two_workers(folder: Path, name: str) -> Life:
    """Two processes that train the run in FOLDER/NAME together, for 12 steps."""
    shorter = ["train.duration=12 steps", "stages=[]", "export.formats=[]"]  # fewer traces
    flags = [f"--config={CONFIG}", *(f"--set={setting}" for setting in shorter)]
    return Life([*flags, "--strategy=multi_worker", f"--model_dir={folder / name}"], workers=2)


def test_two_workers_stop_at_the_same_step_and_resume_to_the_same_end(folder: Path) -> None:
    model_dir, before = folder / "stopped", 0
    for signalled in ([1], [0, 1]):  # first one that is not the chief, then both
        life = two_workers(folder, "stopped")
        for index in signalled:
            assert "step" in life.places(index)  # from here on a signal is noted
            life.processes[index].terminate()
        assert life.end() == [75, 75], life.output()
        step = runs.latest(model_dir).step
        assert before < step < 12
        for printed in map("".join, life.printed):
            assert f"SIGTERM: stopped at step {step} of 12, which is saved" in printed
            assert not before or f"resuming from step {before} of 12" in printed
        assert not (model_dir / "run.lock").exists()
        before = step

    for name in ("stopped", "left alone"):
        life = two_workers(folder, name)
        assert life.end() == [0, 0], life.output()
        assert (name == "stopped") == (f"resuming from step {before} of 12" in life.output())
    runs.assert_same_end(model_dir, folder / "left alone")


def test_a_second_interrupt_ends_at_once_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_signals() as asked:
        assert asked() is None
        os.kill(os.getpid(), signal.SIGINT)
        assert asked() is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)  # a second signal
        assert asked() is signal.SIGINT
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
