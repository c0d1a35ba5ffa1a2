"""train.profile_steps: which calls are profiled, and the file that is left."""

from pathlib import Path

import pytest
import tensorflow as tf

from configs.load import ConfigError, load_experiment
from tests import runs
from training.devices.distribution import connect
from training.job import ExperimentError, open_job
from training.loop import train_and_evaluate
from training.profile import Profiler


def profiler(folder: Path, *overrides: str) -> Profiler:
    runs.flags(folder, "run")
    experiment = load_experiment(
        folder / "tiny.yaml", overrides=overrides, values={"model_dir": str(folder / "run")}
    )
    return Profiler(open_job(experiment, connect("cpu")))


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the profiler's calls, in their order."""
    found: list[str] = []
    monkeypatch.setattr(tf.profiler.experimental, "start", lambda folder: found.append("start"))
    monkeypatch.setattr(tf.profiler.experimental, "stop", lambda: found.append("stop"))
    return found


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("[1, 1]", ["start", "0-4", "stop", "4-8", "8-12"]),
        ("[5, 8]", ["0-4", "start", "4-8", "stop", "8-12"]),
        ("[4, 5]", ["start", "0-4", "4-8", "stop", "8-12"]),
        ("[9, 12]", ["0-4", "4-8", "start", "8-12", "stop"]),
        ("null", ["0-4", "4-8", "8-12"]),
    ],
)
def test_whole_calls_are_profiled(
    steps: str, expected: list[str], tmp_path: Path, events: list[str]
) -> None:
    with profiler(tmp_path, f"train.profile_steps={steps}") as profile:
        for step, stop in ((0, 4), (4, 8), (8, 12)):
            with profile.call(step, stop):
                events.append(f"{step}-{stop}")
    assert events == expected


def test_a_run_that_resumes_behind_the_steps_profiles_nothing(
    tmp_path: Path, events: list[str]
) -> None:
    with profiler(tmp_path, "train.profile_steps=[2, 4]") as profile, profile.call(4, 8):
        pass
    assert events == []


def test_a_run_that_fails_ends_its_profile(tmp_path: Path, events: list[str]) -> None:
    profile = profiler(tmp_path, "train.profile_steps=[1, 12]")
    with pytest.raises(ZeroDivisionError), profile, profile.call(0, 4):
        raise ZeroDivisionError
    assert events == ["start", "stop"]


def test_steps_beyond_the_training_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ExperimentError, match=r"train\.profile_steps=\[5, 13\]: the training has 12"
    ):
        profiler(tmp_path, "train.profile_steps=[5, 13]")


@pytest.mark.parametrize("steps", ["[5, 3]", "[0, 3]", "[3]", "7"])
def test_what_is_no_range_of_steps_is_refused(steps: str) -> None:
    with pytest.raises(
        ConfigError, match=r"\[first, last\], steps from 1 on, first not after last"
    ):
        load_experiment(overrides=[f"train.profile_steps={steps}"])


@pytest.mark.slow
def test_a_run_leaves_a_profile(tmp_path: Path) -> None:
    runs.flags(tmp_path, "run")
    experiment = load_experiment(
        tmp_path / "tiny.yaml",
        overrides=["train.profile_steps=[3, 4]", "train.duration=6 steps"],
        values={"model_dir": str(tmp_path / "run")},
    )
    train_and_evaluate(experiment, connect("cpu"), with_evaluation=False)
    found = list((tmp_path / "run/tensorboard/profile").glob("plugins/profile/*/*.xplane.pb"))
    assert [path.stat().st_size > 1000 for path in found] == [True]
