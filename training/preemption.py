"""Stopping in good order: SIGTERM (a preempted machine) and SIGINT (Ctrl-C) are obeyed between steps.

Python sees a signal when the call that runs `train.steps_per_call` steps returns, and an evaluation after
each of its batches; then a checkpoint is written and the program ends with the signal's status.
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
    """A run that ended early on a signal; its last step is in a checkpoint."""

    def __init__(self, message: str, by: signal.Signals) -> None:
        super().__init__(message)
        self.status = EXIT_STATUS[by]


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], signal.Signals | None]]:
    """Within the block SIGTERM and SIGINT are noted: yields what returns the first one, or None.

    A second SIGINT raises KeyboardInterrupt, for whoever does not want to wait. Outside the main thread,
    where Python allows no handlers, nothing is ever noted.
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
