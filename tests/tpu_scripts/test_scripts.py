"""The scripts' gcloud commands, played against a gcloud that records its calls and plays back answers."""

import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests import runs

SCRIPTS = Path(__file__).resolve().parents[2] / "tpu_scripts"
WHERE = ["--name=b0", "--zone=us-central2-b", "--project=mine"]
AT = "--zone=us-central2-b --project=mine"

# Answers come from files named after the command's first words: a line a call, the last one for ever.
# "FAIL" fails; what has no file succeeds in silence.
GCLOUD = """#!/bin/bash
printf '%q ' "$@" | sed 's/ $/\\n/' >> "$FAKE/calls"
key=$(echo "$3 $4" | tr ' ' _)
[[ $* == *"cat efficientnet"* ]] && key=job_status
answers="$FAKE/$key"
[[ -e $answers ]] || exit 0
answer=$(head -1 "$answers")
(($(wc -l < "$answers") > 1)) && sed -i 1d "$answers"
[[ $answer == FAIL ]] && exit 1
[[ $answer == - ]] || echo "$answer"
"""
SLEEP = """#!/bin/bash
echo "sleep $1" >> "$FAKE/calls"
"""
# The two commands of tmux that run.sh gives: is there a session, and start one that goes on alone.
TMUX = """#!/bin/bash
case $* in
  "has-session -t train") test -e "$TMUX_TMPDIR/pid" && kill -0 "$(cat "$TMUX_TMPDIR/pid")" ;;
  "new-session -d -s train "*)
    setsid "${@:5}" </dev/null >/dev/null 2>&1 &
    echo $! > "$TMUX_TMPDIR/pid"
    ;;
  *) echo "tmux $*: not expected" >&2 && exit 2 ;;
esac
"""


class Cloud:
    """A folder of answers, and the commands that were given."""

    def __init__(self, folder):
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        for name, text in (("gcloud", GCLOUD), ("sleep", SLEEP), ("tmux", TMUX)):
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)

    def answers(self, command, *lines):
        (self.folder / command.replace(" ", "_")).write_text("".join(f"{x}\n" for x in lines))

    def run(self, script, *flags):
        return subprocess.run(
            [SCRIPTS / script, *flags],
            cwd=self.folder,
            env={"PATH": f"{self.bin}:{os.environ['PATH']}", "FAKE": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=runs.TIMEOUT_SECONDS,
            check=False,
        )

    @property
    def calls(self):
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def did(self, *words):
        """Return the calls of these commands, each shortened to its command."""
        spoken = [call.replace("\\ ", " ") for call in self.calls]
        return [word for call in spoken for word in words if word in call]


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which(
        "shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    )
    if not shellcheck:
        pytest.skip("shellcheck is not installed; pip install -r requirements-test.txt")
    files = [str(file) for file in SCRIPTS.glob("*.sh")]
    done = subprocess.run([shellcheck, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_script_stops_at_the_first_failure_and_can_be_run():
    for script in set(SCRIPTS.glob("*.sh")) - {SCRIPTS / "flags.sh"}:
        assert "set -euo pipefail" in script.read_text(), script
        assert script.stat().st_mode & stat.S_IXUSR, script


@pytest.mark.parametrize(
    ("mode", "command"),
    [
        ("on_demand", "tpu-vm create b0 --accelerator-type=v4-8 --version=tpu-ubuntu2204-base"),
        ("spot", "tpu-vm create b0 --accelerator-type=v4-8 --version=tpu-ubuntu2204-base --spot"),
        (
            "queued_spot",
            "queued-resources create b0 --node-id=b0 --accelerator-type=v4-8"
            " --runtime-version=tpu-ubuntu2204-base --spot",
        ),
    ],
)
def test_a_dry_run_prints_the_command_that_a_run_gives(cloud, mode, command):
    flags = [*WHERE, "--type=v4-8", f"--mode={mode}"]
    dry = cloud.run("create.sh", *flags, "--dry_run")
    assert dry.stdout.splitlines() == [f"gcloud compute tpus {command} {AT}"]
    assert not cloud.calls
    assert cloud.run("create.sh", *flags).returncode == 0
    assert [f"gcloud {call}" for call in cloud.calls] == dry.stdout.splitlines()


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("v6e-8", "v2-alpha-tpuv6e"),
        ("v5litepod-8", "v2-alpha-tpuv5-lite"),
        ("v5p-8", "v2-alpha-tpuv5"),
    ],
)
def test_each_generation_gets_its_software(cloud, kind, version):
    cloud.run("create.sh", *WHERE, f"--type={kind}")
    assert f"--version={version} " in cloud.calls[0]


@pytest.mark.parametrize(
    ("script", "flags", "said"),
    [
        ("create.sh", ["--zone=z", "--type=v4-8"], "--name and --zone are needed"),
        ("create.sh", [*WHERE], "--type is needed"),
        ("create.sh", [*WHERE, "--type=v9-8"], "--type=v9-8: unknown; give --version too"),
        ("create.sh", [*WHERE, "--type=v4-8", "--mode=free"], "--mode=free: expected on_demand"),
        ("delete.sh", [*WHERE, "--force=yes"], "--force is no flag of this script"),
        ("delete.sh", ["--name=B0; rm -r /", "--zone=z"], "small letters, digits and - only"),
        ("run.sh", [*WHERE], "nothing to run"),
        ("run.sh", [*WHERE, "--with=screen", "--", "--x"], "--with=screen: expected tmux or nohup"),
        ("watch.sh", [*WHERE, "--", "--x"], "--type is needed"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_called(cloud, script, flags, said):
    done = cloud.run(script, *flags)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{script}: ")
    assert said in line
    assert not cloud.calls


def test_setup_copies_the_project_to_all_workers_and_installs_it(cloud):
    assert cloud.run("setup.sh", *WHERE).returncode == 0
    copy, install = (shlex.split(call) for call in cloud.calls)
    assert copy[2:4] == ["tpu-vm", "scp"]
    assert "--worker=all" in copy
    assert "--worker=all" in install
    assert "requirements-tpu.txt" in " ".join(install)
    assert not Path(copy[4]).exists(), "the archive is left over"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["tmux", "nohup"])
def test_a_run_goes_on_alone_and_leaves_log_and_status(cloud, how):
    """The command of the worker is run here, with stand-ins for Python and tmux."""
    flags = ["--set", "train.duration=2 epochs", "--model_dir=gs://b/it's"]
    assert cloud.run("run.sh", *WHERE, f"--with={how}", "--", *flags).returncode == 0
    command = shlex.split(cloud.calls[0])[6].removeprefix("--command=")
    python = cloud.folder / "efficientnet/.venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\nprintf "<%s>" "$@"\necho done > finished\nexit 7\n')
    python.chmod(0o755)
    # The end of the job opens this pipe for writing: reading it waits for that.
    os.mkfifo(cloud.folder / "efficientnet/finished")
    path = f"{cloud.bin}:{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(cloud.folder), "TMUX_TMPDIR": str(cloud.folder)}
    subprocess.run(
        ["bash", "-c", command], cwd=cloud.folder, env=env, check=True, timeout=runs.TIMEOUT_SECONDS
    )
    assert (cloud.folder / "efficientnet/finished").read_text() == "done\n"
    logs = cloud.folder / "efficientnet/logs"
    pid = (cloud.folder / "pid" if how == "tmux" else logs / "train.pid").read_text().strip()
    wait = ["tail", f"--pid={pid}", "-f", "/dev/null"]
    subprocess.run(wait, env=env, check=True, timeout=runs.TIMEOUT_SECONDS)
    assert (logs / "train.log").read_text() == "<main.py>" + "".join(f"<{x}>" for x in flags)
    assert (logs / "train.status").read_text() == "7\n"


def test_logs_of_every_worker_are_collected(cloud):
    cloud.answers("tpu-vm describe", 4)
    assert cloud.run("run.sh", *WHERE, f"--collect={cloud.folder}/out").returncode == 0
    copied = [call for call in cloud.calls if "scp" in call]
    assert [f"--worker={i}" in call for i, call in enumerate(copied)] == [True] * 4
    assert f"{cloud.folder}/out/worker-3.log" in copied[3]


def test_a_queued_tpu_is_deleted_with_its_request(cloud):
    cloud.run("delete.sh", *WHERE, "--mode=queued")
    assert cloud.calls == [f"compute tpus queued-resources delete b0 --force --quiet {AT}"]


WATCH = [*WHERE, "--type=v4-8"]
RUN = ["--", "--model=efficientnet-b0", "--model_dir=gs://b/b0"]
STEPS = ("tpu-vm delete", "tpu-vm create", "tpu-vm scp", "tmux new-session")


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["PREEMPTED", "SUSPENDED", "TERMINATED"])
def test_what_is_taken_away_is_deleted_created_again_and_resumed(cloud, lost):
    cloud.answers("tpu-vm describe", "READY", "READY", lost, "CREATING", "READY")
    cloud.answers("job status", "-", "0")
    done = cloud.run("watch.sh", *WATCH, *RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    setup_and_run = ["tpu-vm scp", "tmux new-session"]
    again = ["tpu-vm delete", "tpu-vm create"]
    # In the end the logs are fetched and the machine, which costs money, is deleted.
    assert cloud.did(*STEPS)[:6] == [*setup_and_run, *again, *setup_and_run]
    assert cloud.did(*STEPS)[-1] == "tpu-vm delete"
    assert f"{lost}\n" in done.stdout
    runs = [call for call in cloud.calls if "new-session" in call]
    assert runs[0] == runs[1], "it resumes by the same command"


def test_a_tpu_that_is_not_there_is_created_first(cloud):
    cloud.answers("tpu-vm describe", "FAIL", "READY")
    cloud.answers("job status", "0")
    assert cloud.run("watch.sh", *WATCH, *RUN).returncode == 0
    assert cloud.did(*STEPS)[:3] == ["tpu-vm create", "tpu-vm scp", "tmux new-session"]


def test_waits_double_up_to_a_limit_while_there_is_no_capacity(cloud):
    cloud.answers("tpu-vm describe", "FAIL")
    cloud.answers("tpu-vm create", "FAIL")
    limits = ["--backoff=10", "--max_backoff=60", "--max_restarts=5"]
    done = cloud.run("watch.sh", *WATCH, *limits, *RUN)
    assert done.returncode == 1
    waits = [call for call in cloud.calls if call.startswith("sleep")]
    assert waits == [f"sleep {s}" for s in (10, 20, 40, 60, 60)]
    assert "5 restarts are used up" in done.stdout
    assert cloud.did("tpu-vm create") == ["tpu-vm create"] * 5


def test_beyond_the_hours_the_tpu_is_deleted(cloud):
    cloud.answers("tpu-vm describe", "READY")
    done = cloud.run("watch.sh", *WATCH, "--max_hours=0", *RUN)
    assert done.returncode == 1
    assert "0 hours are over" in done.stdout
    assert cloud.did(*STEPS)[-1] == "tpu-vm delete"
    assert "tpu-vm create" not in cloud.did(*STEPS)


def test_flags_that_main_refuses_are_not_tried_again(cloud):
    cloud.answers("tpu-vm describe", "READY")
    cloud.answers("job status", "2")
    done = cloud.run("watch.sh", *WATCH, *RUN)
    assert done.returncode == 1
    assert "main.py refuses its flags" in done.stdout
    assert cloud.did("tmux new-session") == ["tmux new-session"]


@pytest.mark.slow
def test_a_training_that_fails_is_started_again_until_the_budget_ends(cloud):
    cloud.answers("tpu-vm describe", "READY")
    cloud.answers("job status", "1")
    done = cloud.run("watch.sh", *WATCH, "--max_restarts=2", *RUN)
    assert done.returncode == 1
    assert cloud.did("tmux new-session") == ["tmux new-session"] * 3


@pytest.mark.slow
def test_a_request_in_the_queue_is_waited_for(cloud):
    cloud.answers(
        "queued-resources describe",
        "WAITING_FOR_RESOURCES",
        "PROVISIONING",
        "ACTIVE",
        "SUSPENDED",
        "ACTIVE",
    )
    cloud.answers("tpu-vm describe", "READY")
    cloud.answers("job status", "0")
    done = cloud.run("watch.sh", *WATCH, "--mode=queued_spot", *RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    found = cloud.did("queued-resources delete", "queued-resources create", "tmux new-session")
    assert found[:4] == [
        "tmux new-session",
        "queued-resources delete",
        "queued-resources create",
        "tmux new-session",
    ]


def test_a_dry_run_of_the_watch_shows_one_round_and_calls_nothing(cloud):
    done = cloud.run("watch.sh", *WATCH, "--dry_run", *RUN)
    assert done.returncode == 0
    assert not cloud.calls
    words = [line.split()[4] for line in done.stdout.splitlines() if line.startswith("gcloud")]
    assert words == ["describe", "delete", "create", "scp", "ssh", "ssh"]
