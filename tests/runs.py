"""Start runs of a few seconds from the command line, and compare how they end."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from absl.testing import flagsaver

import main
from proofs.faults import NETWORK, differences
from run_folder.checkpoints import Checkpoint, CheckpointStore

ROOT = Path(main.__file__).parent
TIMEOUT_SECONDS = 1200  # of a subprocess: ends a hang, measures nothing
STEPS = 12
EXPERIMENT = f"""
name: tiny
model: {{name: {NETWORK}}}
data: {{source: synthetic, num_train_examples: 80}}
augment: {{policy: none}}
train: {{global_batch_size: 8, duration: {STEPS} steps, steps_per_call: 2}}
schedule: {{learning_rate: 0.1, warmup: 4 steps, decay_every: 4 steps}}
ema: {{decay: 0.9}}
export: {{formats: [], report: false}}  # seconds in each of many runs
eval: {{every: 6 steps}}
checkpoint: {{every: 4 steps}}
"""

WITH_EXPORT = "--set=export.formats=[saved_model]"

Command = Callable[..., tuple[int, str, str]]


def flags(folder: Path, name: str) -> list[str]:
    """Return the flags of a run in FOLDER/NAME."""
    config = folder / "tiny.yaml"
    if not config.exists():
        config.write_text(EXPERIMENT)
    return [f"--config={config}", f"--model_dir={folder / name}"]


def run_here(*arguments: str) -> int:
    """Run main.py in this process, which has imported TensorFlow already; return its exit status."""
    with flagsaver.flagsaver():
        try:
            return main.main(main._parse_flags(["main.py", *arguments]))
        except SystemExit as stop:
            return int(stop.code or 0)


def in_this_process(capsys: object) -> Command:
    """Return a function that runs main.py here: (flags) -> exit status, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = run_here(*arguments)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def start(*arguments: str, **environment: str) -> subprocess.Popen:
    """Start main.py in its own process, with stdout and stderr in one pipe."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


WITH_DEVICES = """
import runpy, sys
from system.tensorflow_log import quiet_tensorflow
quiet_tensorflow()
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * {count})
sys.argv[0] = "main.py"
runpy.run_path({main!r}, run_name="__main__")
"""


def on_devices(count: int, *arguments: str) -> tuple[int, str]:
    """Run main.py in its own process with so many logical CPUs; return its exit status and output.

    TensorFlow numbers the collectives of every strategy from 100 on, and a number keeps its shape until the
    process ends: a run by --strategy=mirrored whose evaluation adds up other sums cannot follow one here.
    """
    program = WITH_DEVICES.format(count=count, main=str(ROOT / "main.py"))
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(ROOT)},
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout


def latest(model_dir: Path) -> Checkpoint:
    checkpoint = CheckpointStore(str(model_dir), best_metric="top_1").latest()
    assert checkpoint is not None
    return checkpoint


def assert_same_end(ours: Path, theirs: Path) -> None:
    """Assert that both runs ended with the same bits, metrics, log and curves."""
    assert differences(ours, theirs) == []


def one_line(err: str) -> str:
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1, err
    return lines[0]
