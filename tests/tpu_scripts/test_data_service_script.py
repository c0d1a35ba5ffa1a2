"""tpu_scripts/data_service.sh, run as users run it."""

import errno
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import runs

SCRIPT = Path(__file__).parents[2] / "tpu_scripts" / "data_service.sh"


def run(*flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [SCRIPT, *flags],
        capture_output=True,
        text=True,
        timeout=runs.TIMEOUT_SECONDS,
        env={**os.environ, "PYTHON": sys.executable},
    )


def test_a_dry_run_prints_the_command_of_each_role() -> None:
    module = f"{sys.executable} -m input_pipeline.data_service"
    dispatcher = run("--role=dispatcher", "--port=7000", "--dry_run")
    assert dispatcher.stdout == f"{module} dispatcher --port=7000\n"
    worker = run("--role=worker", "--dispatcher=head:5050", "--host=a b", "--dry_run")
    assert worker.stdout == f"{module} worker --dispatcher=head:5050 --host=a\\ b\n"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--roll=worker"], "--roll=worker is no flag of this script"),
        (["--role=helper"], "--role=helper: expected dispatcher or worker"),
        (["--role=worker"], "--role=worker needs --dispatcher=HOST:PORT"),
    ],
)
def test_wrong_use_is_one_line(flags: list[str], said: str) -> None:
    done = run(*flags)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


@pytest.mark.slow
def test_a_dispatcher_goes_on_until_it_is_stopped_and_is_started_once(tmp_path: Path) -> None:
    flags = ("--role=dispatcher", f"--log_dir={tmp_path}")
    try:
        first, second = run(*flags, "--port=0"), run(*flags, "--port=0")
        assert first.stdout.startswith("dispatcher ready: grpc://")
        assert second.stdout == first.stdout
        port = int(first.stdout.rpartition(":")[2])
        socket.create_connection(("localhost", port)).close()
        process = os.pidfd_open(int((tmp_path / "data_service_dispatcher.pid").read_text()))
    finally:
        assert run(*flags, "--stop").returncode == 0
    with open(process) as ended:  # readable when the process ends; it is no child of this one
        assert select.select([ended], [], [], runs.TIMEOUT_SECONDS)[0]
    with socket.socket() as caller:
        assert caller.connect_ex(("localhost", port)) == errno.ECONNREFUSED


@pytest.mark.slow
def test_a_worker_that_finds_no_dispatcher_says_so(tmp_path: Path) -> None:
    done = run("--role=worker", "--dispatcher=localhost:1", f"--log_dir={tmp_path}")
    assert done.returncode == 1
    assert "cannot connect to grpc://localhost:1" in done.stderr
