"""What the check of an environment says, and the pinned libtpu's symbol."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from system.tensorflow_log import TENSORFLOW_LOGS
from tests import runs
from tpu_scripts import check_environment

ROOT = Path(__file__).resolve().parents[2]
NOTHING = dict.fromkeys(check_environment.PACKAGES)
PLAIN = NOTHING | {"tensorflow": "2.20.0"}
TPU = NOTHING | {"tensorflow-tpu": "2.20.0", "libtpu": "0.0.20"}


@pytest.mark.parametrize(
    ("versions", "chips", "fits", "seen", "error", "good", "words"),
    [
        (TPU, 4, True, {"CPU": 1, "TPU": 4}, "", True, "--tpu=local"),
        (PLAIN, 0, None, {"CPU": 1, "GPU": 2}, "", True, "all GPUs"),
        (PLAIN, 4, None, {"CPU": 1}, "", False, "without TPU support"),
        (TPU, 0, True, {"CPU": 1}, "", False, "no TPU chip here"),
        (TPU, 4, True, {"CPU": 1}, "", False, "another process"),
        (TPU, 4, False, {}, "aborted", False, "libtpu does not fit"),
        (PLAIN, 0, None, {"CPU": 1}, "", False, "the CPU only"),
        (TPU | {"tensorflow": "2.20.0"}, 4, True, {"CPU": 1}, "", False, "overwrite each other"),
        (NOTHING, 0, None, {}, "No module named 'tensorflow'", False, "can't be imported"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else None,
)
def test_what_is_wrong_has_a_remedy(versions, chips, fits, seen, error, good, words):
    found, text = check_environment.advice(versions, chips, fits, seen, error)
    assert found is good
    assert words in text


def run(*flags, **environment):
    mine = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, ROOT / "tpu_scripts/check_environment.py", *flags],
        env=mine | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=runs.TIMEOUT_SECONDS,
    )


def test_a_flag_is_refused_in_one_line():
    done = run("--bogus")
    assert (done.returncode, done.stdout) == (2, "")
    line = "check_environment.py: unrecognized arguments: --bogus; it takes none\n"
    assert done.stderr == line


def test_help_is_the_docstring():
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == check_environment.__doc__.strip()


@pytest.mark.slow
def test_a_variable_brings_tensorflows_log_back():
    assert check_environment.TENSORFLOW_LOGS == TENSORFLOW_LOGS
    assert "cpu_feature_guard" in run(**{TENSORFLOW_LOGS: "1"}).stderr
    assert run().stderr == ""


@pytest.mark.slow
def test_the_report_fits_a_screen():
    done = run()
    lines = done.stdout.splitlines()
    assert done.returncode in (0, 1), done.stderr
    assert len(lines) < 24
    assert lines[-1][:2] in ("->", "!!")
    assert any(line.split() == ["devices", "1", "CPU"] for line in lines), done.stdout


def test_a_symbol_is_found_across_pieces(tmp_path):
    library = tmp_path / "library.so"
    library.write_bytes(b"x" * (2**24 - 3) + b"Symbol" + b"x")
    assert check_environment.has_symbol(library, "Symbol")
    assert not check_environment.has_symbol(library, "Other")


def pinned(name):
    text = (ROOT / "requirements-tpu.txt").read_text()
    return re.search(rf"^{name}==([\d.]+)$", text, re.MULTILINE)[1]


def test_libtpu_is_pinned_to_a_version_known_to_have_the_symbol():
    release = int(pinned("libtpu").rpartition(".")[2])
    assert 14 <= release <= 38, "0.0.14 to 0.0.38 were looked at and have it; 0.0.51 aborts"
    assert pinned("tensorflow-tpu").startswith("2.20.")


def test_the_pinned_wheel_has_the_symbol_that_tensorflow_needs():
    """EFFICIENTNET_LIBTPU names the library or wheel's folder; else the one installed here, if any."""
    given = os.environ.get("EFFICIENTNET_LIBTPU")
    spec = importlib.util.find_spec("libtpu")
    if not given and not spec:
        pytest.skip(
            "libtpu is not installed here, and nothing is downloaded; set EFFICIENTNET_LIBTPU"
        )
    library = Path(given) if given else Path(spec.origin).parent / "libtpu.so"
    assert check_environment.has_symbol(library, check_environment.NEEDS)
