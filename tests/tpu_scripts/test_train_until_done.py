"""The restart loop: what it starts again, what it passes on, when it gives up."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests import runs

SCRIPT = Path(__file__).resolve().parents[2] / "tpu_scripts/train_until_done.sh"

# Stands for Python: notes its arguments, and ends with the next of the statuses it was given.
FAKE = """#!/usr/bin/env bash
echo "$*" >> "$CALLS"
status=$(sed -n "$(wc -l < "$CALLS")p" "$STATUSES")
if [[ $status == wait ]]; then
  trap 'exit 75' TERM
  trap 'exit 130' INT
  echo waiting
  while true; do read -r -t 1 <> "$PIPE" || true; done  # opened both ways it does not block
fi
exit "$status"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    fake = tmp_path / "python"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "calls").touch()
    return {
        **os.environ,
        "PYTHON": str(fake),
        "CALLS": str(tmp_path / "calls"),
        "STATUSES": str(tmp_path / "statuses"),
        "PIPE": str(tmp_path / "pipe"),
    }


def run(environment: dict[str, str], statuses: list[int], *options: str) -> tuple[int, int, str]:
    """(exit status, how often main.py was started, stderr) when main.py ends with `statuses`."""
    Path(environment["STATUSES"]).write_text("".join(f"{s}\n" for s in statuses))
    done = subprocess.run(
        [
            str(SCRIPT),
            "--backoff_seconds=0",
            *options,
            "--",
            "--model=efficientnet-b0",
            "--set=a=b c",
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=runs.TIMEOUT_SECONDS,
    )
    calls = Path(environment["CALLS"]).read_text().splitlines()
    assert set(calls) == {f"{SCRIPT.parents[1]}/main.py --model=efficientnet-b0 --set=a=b c"}
    return done.returncode, len(calls), done.stderr


@pytest.mark.parametrize("status", [0, 2, 130])
def test_what_is_final_is_passed_through(environment: dict[str, str], status: int) -> None:
    assert run(environment, [status]) == (status, 1, "")


def test_preemptions_and_kills_start_it_again_without_limit(environment: dict[str, str]) -> None:
    stops = [75, 137, 143] * 4
    status, calls, _ = run(environment, [*stops, 0], "--max_crashes=0")
    assert (status, calls) == (0, len(stops) + 1)


def test_crashes_start_it_again_up_to_the_limit(environment: dict[str, str]) -> None:
    status, calls, err = run(environment, [1, 134, 1, 0], "--max_crashes=2")
    assert (status, calls) == (1, 3)
    assert err.splitlines()[-1] == (
        "train_until_done.sh: 3 crashes in a row, the last with status 1; giving up"
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_is_passed_on_and_ends_the_loop(
    environment: dict[str, str], number: signal.Signals, status: int
) -> None:
    Path(environment["STATUSES"]).write_text("wait\n0\n")
    with subprocess.Popen(
        [SCRIPT, "--"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        # Commands in the background of a shell ignore SIGINT, and bash lets none of them trap it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting\n"
            process.send_signal(number)
            process.communicate(timeout=runs.TIMEOUT_SECONDS)
            assert process.returncode == status
        finally:
            process.kill()
    assert len(Path(environment["CALLS"]).read_text().splitlines()) == 1


def test_a_dry_run_prints_the_command_and_starts_nothing(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [SCRIPT, "--dry_run", "--", "--set=train.duration=9 epochs"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=runs.TIMEOUT_SECONDS,
    )
    assert done.returncode == 0
    assert done.stdout.strip().endswith(r"main.py --set=train.duration=9\ epochs")
    assert not Path(environment["CALLS"]).read_text()


@pytest.mark.parametrize("option", ["--max_crashes=many", "--model=efficientnet-b0"])
def test_a_wrong_option_is_one_line(environment: dict[str, str], option: str) -> None:
    done = subprocess.run(
        [SCRIPT, option],
        env=environment,
        capture_output=True,
        text=True,
        timeout=runs.TIMEOUT_SECONDS,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
