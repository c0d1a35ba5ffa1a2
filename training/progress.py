"""Progress of a run: step, epoch, images per second, loss, learning rate and time left.

A progress bar on a terminal; elsewhere a line every SECONDS_BETWEEN_LINES.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from system.console import console, log

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def training_progress(
    *,
    first_step: int,
    total_steps: int,
    global_batch_size: int,
    steps_per_epoch: float,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int, float, float], None]]:
    """Yield a function (step, loss, learning rate) to call after each group of steps.

    `clock` returns seconds.
    """
    started, printed = clock(), [-math.inf]

    def describe(step: int, loss: float, learning_rate: float) -> str:
        seconds = max(clock() - started, 1e-9)
        rate = (step - first_step) * global_batch_size / seconds
        return (
            f"epoch {step / steps_per_epoch:.1f}  {rate:.0f} images/s  "
            f"loss {loss:.3f}  rate {learning_rate:.2g}"
        )

    with _bar("train", total_steps, first_step) as advance:

        def update(step: int, loss: float, learning_rate: float) -> None:
            now = clock()
            text = describe(step, loss, learning_rate)
            advance(step, text)
            due = now - printed[0] > SECONDS_BETWEEN_LINES or step == total_steps
            if not console.is_terminal and due:
                printed[0] = now
                left = (now - started) / max(step - first_step, 1) * (total_steps - step)
                log(f"step {step}/{total_steps}  {text}  {_duration(left)} left")

        yield update


@contextmanager
def evaluation_progress(num_steps: int) -> Iterator[Callable[[int], None]]:
    """Yield a function (step) to call after each batch of an evaluation."""
    with _bar("eval", num_steps, 0) as advance:
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
