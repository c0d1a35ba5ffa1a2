"""Progress of a run: step, epoch, images per second, loss, learning rate and time left.

A progress bar on a terminal; elsewhere a line every SECONDS_BETWEEN_LINES.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from system.console import console, log
from training.plan import Plan

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def training_progress(
    plan: Plan, *, first_step: int, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, float, float], None]]:
    """Yield a function (step, loss, learning rate) to call after each group of steps.

    The speed, and the time left by it, are those of the current stage. `clock` returns seconds.
    """
    total_steps, printed = plan.total_steps, -math.inf
    stage, started, since = plan.stage_at(first_step), clock(), plan.examples_at(first_step)

    def describe(step: int, loss: float, learning_rate: float, speed: float) -> str:
        count = len(plan.stages)
        number = f"stage {stage.number + 1}/{count}  " if count > 1 else ""
        return (
            f"{number}epoch {plan.epochs_at(step):.1f}  {speed:.0f} images/s  "
            f"loss {loss:.3f}  rate {learning_rate:.2g}"
        )

    with _bar("train", total_steps, first_step) as advance:

        def update(step: int, loss: float, learning_rate: float) -> None:
            nonlocal stage, started, since, printed
            now, seen = clock(), plan.examples_at(step)
            current = plan.stage_until(step)
            is_timed = current == stage
            if not is_timed:
                # The time up to here was spent on tracing, too.
                stage, started, since = current, now, seen
            speed = (seen - since) / max(now - started, 1e-9)
            text = describe(step, loss, learning_rate, speed)
            advance(step, text)
            has_news = is_timed and now - printed > SECONDS_BETWEEN_LINES
            if not console.is_terminal and (has_news or step == total_steps):
                printed = now
                left = plan.examples_at(total_steps) - seen
                seconds = left * (now - started) / max(seen - since, 1)
                log(f"step {step}/{total_steps}  {text}  {_duration(seconds)} left")

        yield update


@contextmanager
def step_progress(title: str, num_steps: int) -> Iterator[Callable[[int], None]]:
    """Yield a function (step) to call after each step of something short, such as an evaluation."""
    with _bar(title, num_steps, 0) as advance:
        yield lambda step: advance(step, "")


@contextmanager
def _bar(title: str, total: int, done: int) -> Iterator[Callable[[int, str], None]]:
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=total, completed=done)
        yield lambda step, text: progress.update(task, completed=step, description=text)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
