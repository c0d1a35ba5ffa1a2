"""One run per model_dir; a stale lock stops no run."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from run_folder import lock
from run_folder.lock import LOCK_FILE, Owner, RunLockError, locked

HOLD = """
import sys
from run_folder.lock import locked
with locked(sys.argv[1], print):
    print("locked", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path) -> subprocess.Popen:
    """Another process that trains in `folder` until it is killed or its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        cwd=Path(lock.__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def pretend(folder: Path, **changes: object) -> Owner:
    """Write the lock of an owner like this process, with changes."""
    owner = dataclasses.replace(Owner.this_process(), **changes)
    (folder / LOCK_FILE).write_text(json.dumps(dataclasses.asdict(owner)))
    return owner


def holder(folder: Path) -> Owner:
    """Who the lock names."""
    return Owner(**json.loads((folder / LOCK_FILE).read_text()))


@pytest.mark.slow
def test_a_second_process_is_refused_with_host_and_pid_until_the_first_is_killed(
    tmp_path: Path,
) -> None:
    first = hold(tmp_path)
    try:
        with pytest.raises(RunLockError) as refused, locked(str(tmp_path), print):
            pass
        host = lock.socket.gethostname()
        assert f"{tmp_path}: {host} (pid {first.pid}) has been training here since" in str(
            refused.value
        )
        assert "\n" not in str(refused.value)
    finally:
        end(first)
    logged: list[str] = []
    with locked(str(tmp_path), logged.append):
        pass
    assert logged == [f"{tmp_path}: the lock of {host} (pid {first.pid}) is stale, taking over"]
    assert list(tmp_path.iterdir()) == []


def test_a_pid_that_was_given_to_somebody_else_holds_no_lock(tmp_path: Path) -> None:
    owner = pretend(tmp_path, started="1")
    lines: list[str] = []
    with locked(str(tmp_path), lines.append):
        assert holder(tmp_path).pid == os.getpid()
        assert holder(tmp_path).token != owner.token
    assert lines == [f"{tmp_path}: the lock of {owner} is stale, taking over"]
    assert list(tmp_path.iterdir()) == []


def test_another_machine_holds_its_lock_until_it_expires(tmp_path: Path) -> None:
    owner = pretend(tmp_path, host="other", machine="elsewhere", pid=7)
    with pytest.raises(RunLockError, match=r"other \(pid 7\).*its lock expires in 1\d\d s"):
        locked(str(tmp_path), print).__enter__()
    long_ago = (tmp_path / LOCK_FILE).stat().st_mtime - lock.EXPIRY_SECONDS - 1
    os.utime(tmp_path / LOCK_FILE, (long_ago, long_ago))
    logged: list[str] = []
    with locked(str(tmp_path), logged.append):
        pass
    assert logged == [f"{tmp_path}: the lock of {owner} is stale, taking over"]


def test_a_lock_that_was_taken_over_stops_the_first_before_it_writes(tmp_path: Path) -> None:
    with locked(str(tmp_path), print) as check:
        check()
        pretend(tmp_path, host="other", pid=7)
        with pytest.raises(RunLockError, match=r"other \(pid 7\) has taken over"):
            check()
    assert (tmp_path / LOCK_FILE).exists()  # it is the other's


def test_a_lock_is_renewed_while_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "RENEWAL_SECONDS", 0.01)
    renewed, write, calls = threading.Event(), lock._write, []

    def count(path: str, owner: Owner) -> None:
        write(path, owner)
        calls.append(owner)
        if len(calls) == 3:
            renewed.set()

    monkeypatch.setattr(lock, "_write", count)
    with locked(str(tmp_path), print):
        assert renewed.wait(60)
    assert len({owner.token for owner in calls}) == 1


def test_of_many_that_start_at_once_one_wins(tmp_path: Path) -> None:
    pretend(tmp_path, started="1")  # stale, so that all want to take it over
    start, winners, refused = threading.Barrier(8), [], []
    done = threading.Barrier(8)

    def compete() -> None:
        start.wait()
        try:
            with locked(str(tmp_path), lambda line: None) as check:
                winners.append(check)
                done.wait()
                check()
        except RunLockError as error:
            refused.append(error)
            done.wait()

    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(winners), len(refused)) == (1, 7)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"pid": 1}'], ids=["empty", "cut", "list", "part"]
)
def test_a_damaged_lock_file_is_nobodys(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK_FILE).write_text(content)
    with locked(str(tmp_path), print):
        assert holder(tmp_path).pid == os.getpid()
    assert list(tmp_path.iterdir()) == []
