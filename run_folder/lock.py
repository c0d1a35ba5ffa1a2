"""One run per model_dir: a file that says who trains there, renewed while they do.

On the same machine the lock of a process that is gone is stale at once, so a run that was killed is
restarted without waiting. Another machine's is stale when it has not been renewed for EXPIRY_SECONDS.
On an object store two processes that start in the same instant may both find the folder free; each looks
again after it has written, and before every checkpoint, so that only one of them goes on.
"""

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import posixpath
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

from system.errors import UserError
from system.files import is_remote, write_text

LOCK_FILE = "run.lock"
RENEWAL_SECONDS = 20.0
EXPIRY_SECONDS = 120.0


class RunLockError(UserError):
    """Somebody else trains in this folder; one line that says who."""


@dataclasses.dataclass(frozen=True)
class Owner:
    """A process that trains, told from every other one."""

    host: str
    machine: str  # changes when a machine or container starts anew: pids mean nothing beyond it
    pid: int
    started: str  # by the machine's own clock: a pid may be used again
    since: str  # for people
    token: str

    @classmethod
    def this_process(cls) -> "Owner":
        """A new owner: this process, now."""
        return cls(
            socket.gethostname(),
            _machine(),
            os.getpid(),
            _process_start(os.getpid()) or "",
            f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC",
            uuid.uuid4().hex,
        )

    def __str__(self) -> str:
        return f"{self.host} (pid {self.pid})"


@contextlib.contextmanager
def locked(model_dir: str, log: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Be the only one to train in `model_dir` within the block.

    Yields a function to call before something is overwritten: it raises RunLockError when the lock has
    been taken over meanwhile, as after a machine that stood still for minutes.

    Args:
      model_dir: local or gs://; made if it isn't there.
      log: gets a line when a stale lock is taken over.

    Raises:
      RunLockError: somebody else trains there.
      OSError, tf.errors.OpError: the folder can't be written.
    """
    path, me = posixpath.join(model_dir, LOCK_FILE), Owner.this_process()
    tf.io.gfile.makedirs(model_dir)
    with _alone_on_this_machine(model_dir):
        before, age = _read(path), _age(path)
        if before and _is_alive(before, age):
            raise RunLockError(_refusal(model_dir, before, age))
        if before:
            log(f"{model_dir}: the lock of {before} is stale, taking over")
        _write(path, me)

    def check() -> None:
        owner = _read(path)
        if owner and owner.token != me.token:
            raise RunLockError(
                f"{model_dir}: {owner} has taken over this run; nothing more is written from here"
            )

    check()
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(path, me, ended), daemon=True)
    renewal.start()
    try:
        yield check
    finally:
        ended.set()
        renewal.join()
        with contextlib.suppress(OSError, tf.errors.OpError):
            if (owner := _read(path)) and owner.token == me.token:
                tf.io.gfile.remove(path)


def _renew(path: str, me: Owner, ended: threading.Event) -> None:
    while not ended.wait(RENEWAL_SECONDS):
        # A store that can't be reached for a moment is no reason to stop training.
        with contextlib.suppress(OSError, tf.errors.OpError):
            if (owner := _read(path)) and owner.token == me.token:
                _write(path, me)


def _is_alive(owner: Owner, age: float) -> bool:
    if owner.machine == _machine() and owner.host == socket.gethostname():
        return _process_start(owner.pid) == owner.started
    return age < EXPIRY_SECONDS


def _refusal(model_dir: str, owner: Owner, age: float) -> str:
    line = f"{model_dir}: {owner} trains here since {owner.since}"
    if owner.machine != _machine():
        left = EXPIRY_SECONDS - age
        line += f", heard of {age:.0f} s ago; if it is gone, its lock expires in {left:.0f} s"
    return line + "; end it, or give another --model_dir"


def _machine() -> str:
    """This machine since it was started, and in it this container; "" where Linux doesn't tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _process_start(pid: int) -> str | None:
    """When a process of this machine was started; None when it is gone."""
    try:
        # After the name in brackets: state, then 19 fields to the start.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return ""


def _age(path: str) -> float:
    """Seconds since the file was written, by the clock of whatever stores it."""
    probe = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with tf.io.gfile.GFile(probe, "w") as file:
            file.write("now")
        times = [tf.io.gfile.stat(p).mtime_nsec for p in (path, probe)]
    except tf.errors.NotFoundError:
        return 0.0
    finally:
        with contextlib.suppress(tf.errors.OpError):
            tf.io.gfile.remove(probe)
    return (times[1] - times[0]) / 1e9


def _read(path: str) -> Owner | None:
    try:
        with tf.io.gfile.GFile(path) as file:
            return Owner(**json.loads(file.read()))
    except (tf.errors.NotFoundError, ValueError, TypeError):
        return None


def _write(path: str, owner: Owner) -> None:
    write_text(path, json.dumps(dataclasses.asdict(owner)))


@contextlib.contextmanager
def _alone_on_this_machine(folder: str) -> Iterator[None]:
    """Let no other process of this machine look and write at the same time; local folders only."""
    if is_remote(folder):
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
