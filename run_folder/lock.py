"""One run per model_dir: a lock file that names the process which trains there and is renewed while it does.

On the same machine the lock of a process that has ended is stale at once, so a run that was killed can be
restarted without waiting. Another machine's lock is stale when it has not been renewed for EXPIRY_SECONDS.
On an object store, two processes that start at the same moment may both find the folder free. Each reads
the lock again after writing it, and before every checkpoint, so that only one of them continues.
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
    """Another process trains in this folder; the message names it."""


@dataclasses.dataclass(frozen=True)
class Owner:
    """Identity of a process that trains, different from that of any other."""

    host: str
    machine: str  # changes when a machine or container restarts: pids are valid within it only
    pid: int
    started: str  # by the machine's own clock: a pid may be reused
    since: str  # for messages
    token: str

    @classmethod
    def this_process(cls) -> "Owner":
        """Return a new identity for this process."""
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
    """Hold the lock of `model_dir` within the block.

    Yields a function to call before a file is overwritten. It raises RunLockError when another process has
    taken over the lock, which happens after a machine was suspended for minutes.

    Args:
      model_dir: local or gs://; created if missing.
      log: called with a line when a stale lock is taken over.

    Raises:
      RunLockError: another process trains there.
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
        # A storage outage of a moment must not stop training.
        with contextlib.suppress(OSError, tf.errors.OpError):
            if (owner := _read(path)) and owner.token == me.token:
                _write(path, me)


def _is_alive(owner: Owner, age: float) -> bool:
    if owner.machine == _machine() and owner.host == socket.gethostname():
        return _process_start(owner.pid) == owner.started
    return age < EXPIRY_SECONDS


def _refusal(model_dir: str, owner: Owner, age: float) -> str:
    line = f"{model_dir}: {owner} has been training here since {owner.since}"
    if owner.machine != _machine():
        left = EXPIRY_SECONDS - age
        line += f", last renewed {age:.0f} s ago; if it has ended, its lock expires in {left:.0f} s"
    return line + "; stop it, or give another --model_dir"


def _machine() -> str:
    """Return an identifier of this boot of the machine and of this container; "" without Linux's /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _process_start(pid: int) -> str | None:
    """Return the start time of a process of this machine, "" if unknown; None if there is no such process."""
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
    """Return the seconds since the file was written, by the clock of the file system."""
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
    """Exclude other processes of this machine while the lock is read and written; local folders only."""
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
