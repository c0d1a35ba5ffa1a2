"""--mode=benchmark: its table, and that it leaves nothing."""

from pathlib import Path

import pytest

from tests import runs
from training.benchmark import Speed, StageSpeed, _calls, print_speed


def test_steps_are_divided_into_calls() -> None:
    assert list(_calls(7, 3)) == [(3, 3), (6, 3), (7, 1)]
    assert list(_calls(2, 100)) == [(2, 2)]


def test_the_table_has_rates_and_shares(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = (
        StageSpeed(32, 64, steps=50, seconds=4.0, input_seconds=1.0, first_seconds=7.0),
        StageSpeed((48, 64), 32, steps=50, seconds=2.0, input_seconds=0.0, first_seconds=9.0),
    )
    print_speed(Speed("b0 on 1 CPU", stages, {"this process": 1_500_000_000, "GPU:0": 10**10}))
    out = capsys.readouterr().out
    rows = [line.replace("│", " ").split() for line in out.splitlines() if "│" in line]
    assert rows == [
        ["1", "32", "64", "800.0", "80.0", "ms", "25.0%", "7.0", "s"],
        ["2", "48", "x", "64", "32", "800.0", "40.0", "ms", "0.0%", "9.0", "s"],
    ]
    assert "peak memory: 1.50 GB of this process, 10.00 GB of GPU:0; 50 steps measured" in out


@pytest.mark.slow
def test_each_stage_is_measured_and_no_run_is_left(tmp_path: Path, command: runs.Command) -> None:
    flags = runs.flags(tmp_path, "run")
    stages = "stages=[{duration: 4 steps}, {set: {train.global_batch_size: 16}}]"
    few = [f"--set=benchmark.{key}" for key in ("warmup_steps=2", "steps=3")]
    status, out, err = command(*flags, "--mode=benchmark", f"--set={stages}", *few)
    assert status == 0, err
    rows = [line.replace("│", " ").split() for line in out.splitlines() if "│" in line]
    assert [row[:3] for row in rows] == [["1", "32", "8"], ["2", "32", "16"]]
    assert all(float(row[3].replace(",", "")) > 0 for row in rows)
    assert "GB of this process; 3 steps measured" in out
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]
