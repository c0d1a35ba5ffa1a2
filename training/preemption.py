"""Graceful stop: SIGTERM (a preempted machine) and SIGINT (Ctrl-C) are handled between steps.

Python sees a signal when the call that runs `train.steps_per_call` steps returns, or after a batch of an
evaluation. Then a checkpoint is written and the program exits with the status of the signal.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from system.errors import UserError

# Exit statuses: 75 is EX_TEMPFAIL, "try again"; 130 is what shells give to Ctrl-C.
EXIT_STATUS = {signal.SIGTERM: 75, signal.SIGINT: 130}


class Stopped(UserError):  # noqa: N818 - nothing is wrong
    """A run was stopped by a signal; its last step is in a checkpoint."""

    def __init__(self, message: str, by: signal.Signals) -> None:
        super().__init__(message)
        self.status = EXIT_STATUS[by]


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], signal.Signals | None]]:
    """Record SIGTERM and SIGINT within the block; yield a function that returns the first one, or None.

    A second SIGINT raises KeyboardInterrupt, to stop without waiting. Outside the main thread, where Python
    allows no signal handlers, no signal is recorded.
    """
    noted: list[signal.Signals] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and signal.SIGINT in noted:
            raise KeyboardInterrupt
        noted.append(signal.Signals(number))

    def first() -> signal.Signals | None:
        return noted[0] if noted else None

    if threading.current_thread() is not threading.main_thread():
        yield first
        return
    before = {number: signal.signal(number, note) for number in EXIT_STATUS}
    try:
        yield first
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
