"""TensorFlow's own log is off, in processes of their own, unless a variable brings it back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from system.tensorflow_log import TENSORFLOW_LOGS, quiet_stderr

ROOT = Path(__file__).parents[2]

PROGRAM = """
from system.tensorflow_log import quiet_tensorflow
quiet_tensorflow()
import tensorflow as tf
tf.config.list_physical_devices()
print(tf.function(lambda x: 2 * x + 1, jit_compile=True)(tf.ones([])).numpy())
"""


def run(**environment: str) -> subprocess.CompletedProcess:
    mine = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=mine | environment,
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.slow
def test_a_command_that_compiles_with_xla_prints_its_own_lines_only() -> None:
    done = run()
    assert (done.stdout, done.stderr) == ("3.0\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("level", [None, "3"])
def test_a_variable_brings_every_line_back(level: str | None) -> None:
    done = run(**{TENSORFLOW_LOGS: "1"}, **({"TF_CPP_MIN_LOG_LEVEL": level} if level else {}))
    assert done.stdout == "3.0\n"
    assert "cpu_feature_guard" in done.stderr
    assert "Compiled cluster using XLA!" in done.stderr


@pytest.mark.slow
def test_a_command_of_the_networks_prints_its_own_lines_only() -> None:
    """Its package imports Keras, and so TensorFlow, before the command runs."""
    command = [sys.executable, "-m", "efficientnet.weights.convert", "--help"]
    mine = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(command, cwd=ROOT, env=mine, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: python -m efficientnet.weights.convert")
    assert done.stderr == ""


def write_around(error: Exception | None = None) -> None:
    os.write(2, b"before\n")
    try:
        with quiet_stderr():
            os.write(2, b"inside\n")
            if error:
                raise error
    finally:
        os.write(2, b"after\n")


def test_stderr_is_silent_in_the_block_only(capfd, monkeypatch) -> None:
    monkeypatch.delenv(TENSORFLOW_LOGS, raising=False)
    write_around()
    assert capfd.readouterr().err == "before\nafter\n"
    with pytest.raises(ValueError, match="why"):
        write_around(ValueError("why"))
    assert capfd.readouterr().err == "before\nafter\n"


def test_a_variable_keeps_stderr(capfd, monkeypatch) -> None:
    monkeypatch.setenv(TENSORFLOW_LOGS, "1")
    write_around()
    assert capfd.readouterr().err == "before\ninside\nafter\n"


def test_a_closed_stderr_stays_closed() -> None:
    program = "from system.tensorflow_log import quiet_stderr\nwith quiet_stderr(): print(1)"
    command = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, program]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "1\n"
