"""The line of a run in a log, its text and how often it comes; the bar on a terminal."""

import io

import pytest
from rich.console import Console

from configs.load import load_experiment
from training import progress
from training.plan import Plan, make_plan


class Clock:
    """Seconds that pass when the test lets them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def start(clock: Clock):
    """A run of 50 steps of 32 images that resumes from step 10; an epoch is 20 steps."""
    return progress.training_progress(plan(), first_step=10, clock=clock)


def plan(*overrides: str) -> Plan:
    settings = ["train.global_batch_size=32", "train.duration=50 steps", *overrides]
    return make_plan(load_experiment(overrides=settings), 640)


def test_the_line_names_the_stage_and_its_own_speed(capsys: pytest.CaptureFixture) -> None:
    clock = Clock()
    stages = "stages=[{duration: 20 steps}, {set: {train.global_batch_size: 64}}]"
    with progress.training_progress(plan(stages), first_step=10, clock=clock) as update:
        for seconds, step in ((110.0, 20), (121.0, 21), (131.0, 23)):
            clock.now = seconds
            update(step, 2.0, 0.01)
    # Another network is traced before the first step of a stage: that does not count, and a line without a
    # speed is not printed.
    assert capsys.readouterr().out.splitlines() == [
        "step 20/35  stage 1/2  epoch 1.0  32 images/s  loss 2.000  rate 0.01  0:00:30 left",
        "step 23/35  stage 2/2  epoch 1.3  13 images/s  loss 2.000  rate 0.01  0:01:00 left",
    ]


def test_a_log_gets_the_first_line_one_every_ten_seconds_and_the_last(
    capsys: pytest.CaptureFixture,
) -> None:
    clock = Clock()
    with start(clock) as update:
        for seconds, step in ((105.0, 20), (110.0, 25), (115.0, 30), (115.5, 31), (3715.5, 40)):
            clock.now = seconds
            update(step, 2.3456, 0.01)
        update(50, 2.0, 1e-5)
    assert capsys.readouterr().out.splitlines() == [
        "step 20/50  epoch 1.0  64 images/s  loss 2.346  rate 0.01  0:00:15 left",
        "step 31/50  epoch 1.6  43 images/s  loss 2.346  rate 0.01  0:00:14 left",
        "step 40/50  epoch 2.0  0 images/s  loss 2.346  rate 0.01  0:20:05 left",
        "step 50/50  epoch 2.5  0 images/s  loss 2.000  rate 1e-05  0:00:00 left",
    ]


def test_no_time_and_no_step_divide_by_nothing(capsys: pytest.CaptureFixture) -> None:
    with start(Clock()) as update:
        update(10, 1.0, 0.1)
    assert capsys.readouterr().out == (
        "step 10/50  epoch 0.5  0 images/s  loss 1.000  rate 0.1  0:00:00 left\n"
    )


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of 120 columns is sent."""
    sent = io.StringIO()
    monkeypatch.setattr(
        progress, "console", Console(file=sent, force_terminal=True, width=120, highlight=False)
    )
    return sent


def test_a_terminal_gets_a_bar_and_no_lines(
    terminal: io.StringIO, capsys: pytest.CaptureFixture
) -> None:
    clock = Clock()
    with start(clock) as update:
        clock.now = 105.0
        update(20, 2.3456, 0.01)
    for text in ("train", "20/50", "epoch 1.0  64 images/s  loss 2.346  rate 0.01"):
        assert text in terminal.getvalue()
    assert "left" not in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_an_evaluation_is_a_bar_on_a_terminal(terminal: io.StringIO) -> None:
    with progress.step_progress("eval", 7) as update:
        update(3)
    assert "eval" in terminal.getvalue()
    assert "3/7" in terminal.getvalue()


def test_an_evaluation_is_nothing_in_a_log(capsys: pytest.CaptureFixture) -> None:
    with progress.step_progress("eval", 7) as update:
        update(3)
    assert capsys.readouterr().out == ""
