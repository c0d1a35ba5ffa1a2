"""starts.jsonl: a line for each start, with what it ran on."""

import platform
from pathlib import Path

import tensorflow as tf

from run_folder.starts import FILE, Start, add_start, read_starts


def test_every_start_is_kept_in_order(tmp_path: Path) -> None:
    assert read_starts(str(tmp_path)) == []
    starts = [Start.now(step, "random weights", "1 CPU (float32)") for step in (0, 40)]
    for start in starts:
        add_start(str(tmp_path), start)
    assert read_starts(str(tmp_path)) == starts
    versions = starts[0].versions
    assert versions["tensorflow"] == tf.__version__
    assert versions["python"] == platform.python_version()


def test_a_line_of_another_version_is_skipped(tmp_path: Path) -> None:
    start = Start.now(0, "b0.weights.h5", "1 CPU (float32)")
    (tmp_path / FILE).write_text('{"when": 3}\nno json\n')
    add_start(str(tmp_path), start)
    assert read_starts(str(tmp_path)) == [start]
