"""Every requirement is pinned, and the audit command covers every requirements file."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path.name for path in ROOT.glob("requirements*.txt"))
PINNED = re.compile(r"[A-Za-z0-9_.-]+(\[[a-z-]+\])?==[0-9][0-9A-Za-z.]*")


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_has_an_exact_version(name: str) -> None:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    for line in filter(None, lines):
        if line.startswith("-r "):
            assert line.removeprefix("-r ") in FILES
        else:
            assert PINNED.fullmatch(line), f"{name}: {line}"


def test_the_audit_command_covers_every_file() -> None:
    assert len(FILES) > 1
    assert "for file in requirements*.txt; do pip-audit -r $file; done" in (
        ROOT / "CONTRIBUTING.md"
    ).read_text().replace("\n  ", " ")


def test_every_machine_shares_one_list_and_adds_its_tensorflow() -> None:
    for name in ("requirements.txt", "requirements-gpu.txt", "requirements-tpu.txt"):
        lines = (ROOT / name).read_text().splitlines()
        assert "-r requirements-base.txt" in lines, name
        own = {line.partition("==")[0] for line in lines if "==" in line}
        assert own <= {"tensorflow", "tensorflow[and-cuda]", "tensorflow-tpu", "libtpu"}, name
