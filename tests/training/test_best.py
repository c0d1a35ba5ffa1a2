"""When a run stops waiting for a better evaluation."""

import math

import pytest

from configs.load import load_experiment
from proofs.faults import rows
from run_folder.checkpoints import Checkpoint, CheckpointStore
from tests import runs
from training import evaluator
from training.best import BestSoFar
from training.devices.distribution import connect
from training.job import Job, open_job


@pytest.fixture
def job() -> Job:
    overrides = ["train.duration=100 steps", "eval.every=10 steps", "train.patience=3"]
    return open_job(load_experiment("configs/smoke.yaml", overrides=overrides), connect("cpu"))


def best(job: Job, step: int, figure: float, since: int | None = None) -> BestSoFar:
    return BestSoFar(job, Checkpoint("", step, {"top_1": figure}, since or step))


def test_an_equal_evaluation_is_as_good_and_a_worse_one_is_not(job: Job) -> None:
    found = best(job, 20, 0.5)
    assert not found.takes(30, {"top_1": 0.4})
    assert not found.takes(30, {})
    assert found.takes(40, {"top_1": 0.5})
    assert (found.step, found.figure) == (40, 0.5)


def test_a_figure_that_is_no_number_is_never_the_best(job: Job) -> None:
    found = BestSoFar(job, None)
    assert not found.takes(10, {"top_1": math.nan})
    assert found.takes(20, {"top_1": -0.5})


def test_only_the_last_stage_ends_early() -> None:
    overrides = ["train.duration=100 steps", "eval.every=10 steps", "train.patience=3"]
    overrides += ["stages=[{duration: 60 steps}, {set: {train.label_smoothing: 0.2}}]"]
    job = open_job(load_experiment("configs/smoke.yaml", overrides=overrides), connect("cpu"))
    found = best(job, 20, 0.5)
    assert not found.is_final(60)
    assert not found.is_final(89)
    assert found.is_final(90)


def test_patience_counts_scheduled_evaluations_since_the_best(job: Job) -> None:
    found = best(job, 20, 0.5)
    assert not found.is_final(49)
    assert found.is_final(50)
    assert not BestSoFar(job, None).is_final(29)
    assert BestSoFar(job, None).is_final(30)


def test_equal_evaluations_end_a_run_whether_it_resumes_or_not(job: Job) -> None:
    found = best(job, 20, 0.5)
    for step in (30, 40):
        assert not found.is_final(step)
        assert found.takes(step, {"top_1": 0.5})
    assert found.is_final(50)
    assert best(job, 40, 0.5, since=20).is_final(50)
    assert not best(job, 40, 0.5, since=40).is_final(50)


@pytest.mark.slow
def test_a_run_without_a_better_evaluation_ends_and_stays_ended(
    folder, command: runs.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([0.5, 0.4, 0.3, 0.2])
    evaluate = evaluator.evaluate

    def worse_and_worse(*args, **kwargs):
        found = evaluate(*args, **kwargs)
        found.figures["top_1"] = next(figures, 0.5)
        return found

    monkeypatch.setattr(evaluator, "evaluate", worse_and_worse)
    flags = [*runs.flags(folder, "patient"), "--set=eval.every=2 steps", "--set=train.patience=2"]
    status, out, err = command(*flags, runs.WITH_EXPORT)
    assert status == 0, err
    assert "step 6: not above top_1 0.5000 of step 2" in out
    assert [row["step"] for row in rows(folder / "patient") if row["kind"] == "eval"] == [2, 4, 6]
    assert runs.latest(folder / "patient").step == 6
    assert (folder / "patient/export/saved_model/2").exists()
    status, out, _ = command(*flags)
    assert status == 0
    assert "finished already, at step 6 of 12" in out
    status, _, _ = command("--mode=eval_loop", f"--model_dir={folder / 'patient'}")
    assert status == 0
    # Somebody who waits longer goes on.
    status, out, _ = command(*flags, "--set=train.patience=9")
    assert "resuming from step 6 of 12" in out
    assert CheckpointStore(str(folder / "patient"), best_metric="top_1").steps()[-1] == 12


def test_patience_without_evaluations_is_refused(tmp_path, command: runs.Command) -> None:
    status, _, err = command(*runs.flags(tmp_path, "x"), "--mode=train", "--set=train.patience=2")
    assert status == 2
    assert "train.patience counts evaluations, and --mode=train makes none" in runs.one_line(err)
