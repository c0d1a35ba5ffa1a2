"""Processes that are measured in turns: each in its own process, checkout and names of modules."""

import re
from pathlib import Path

import pytest

from benchmarks.children import ChildError, Subject, take_turns
from system.tensorflow_log import TENSORFLOW_LOGS

SUBJECT = """
import os
import settings_module

def count(log, name):
    turns = 0
    def turn():
        nonlocal turns
        turns += 1
        print("what a library prints")
        bytes([1]) * (settings_module.MIB << 20)
        with open(log, "a") as file:
            file.write(f"{name} {os.getpid()} {turns}\\n")
        return 10 * turns
    return turn

def report_level():
    print("level", os.environ["TF_CPP_MIN_LOG_LEVEL"], flush=True)
    return lambda: 1

def fail():
    def turn():
        raise ArithmeticError("not finite")
    return turn
"""


@pytest.fixture
def subject_file(tmp_path: Path) -> Path:
    file = tmp_path / "subject.py"
    file.write_text(SUBJECT)
    return file


def checkout(folder: Path, module: str, mib: int) -> Path:
    folder.mkdir()
    (folder / f"{module}.py").write_text(f"MIB = {mib}\n")
    return folder


def test_subjects_take_turns_in_processes_and_checkouts_of_their_own(
    subject_file: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    present = checkout(tmp_path / "present", "settings_module", mib=1)
    earlier = checkout(tmp_path / "earlier", "old_settings", mib=200)
    renamed = {"settings_module": "old_settings"}
    subjects = {
        name: Subject(
            subject_file, "count", {"log": str(log), "name": name}, folder, renamed, fresh=fresh
        )
        for name, folder, fresh in (
            ("one", present, False),
            ("two", earlier, False),
            ("new", present, True),
        )
    }
    turns = take_turns(subjects, rounds=3)

    lines = [line.split() for line in log.read_text().splitlines()]
    assert sorted(lines[:2]) == [
        line for line in sorted(lines) if line[0] != "new" and line[2] == "1"
    ]
    rounds = [{name for name, _, _ in lines[start : start + 3]} for start in (2, 5, 8)]
    assert rounds == [set(subjects)] * 3
    processes = {name: {pid for n, pid, _ in lines if n == name} for name in subjects}
    assert {name: len(pids) for name, pids in processes.items()} == {"one": 1, "two": 1, "new": 3}

    assert [turn.images for turn in turns["one"]] == [20, 30, 40]  # after one to warm up
    assert [turn.images for turn in turns["new"]] == [10, 10, 10]
    assert turns["two"][0].peak_mib > turns["one"][0].peak_mib + 150
    assert all(turn.wall_s > 0 and turn.processor_s > 0 for turn in turns["one"])


def test_a_variable_brings_tensorflows_log_back(
    subject_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    folder = checkout(tmp_path / "present", "settings_module", mib=1)
    subjects = {"one": Subject(subject_file, "report_level", {}, folder)}
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    monkeypatch.delenv(TENSORFLOW_LOGS, raising=False)
    take_turns(subjects, rounds=1)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(TENSORFLOW_LOGS, "1")
    take_turns(subjects, rounds=1)
    assert "level 0\n" in capsys.readouterr().err


def test_a_subject_that_fails_is_one_line_with_its_last_words(
    subject_file: Path, tmp_path: Path
) -> None:
    folder = checkout(tmp_path / "present", "settings_module", mib=1)
    message = re.compile(r"^subject\.py fail: exit status 1: .*ArithmeticError: not finite$")
    with pytest.raises(ChildError, match=message):
        take_turns({"failing": Subject(subject_file, "fail", {}, folder)}, rounds=1)
