"""The latency benchmark times what it says, and finds the accuracy of what it times."""

import numpy as np
import pytest

from benchmarks import latency
from configs.load import load_experiment
from serving.export import export_run

pytestmark = pytest.mark.filterwarnings("default")  # converters use what other packages deprecated


def test_a_measurement_counts_calls_but_the_first_ones():
    calls = []
    (timing,) = latency.measure_in_turns(
        [lambda pixels: calls.append(len(pixels))], np.zeros([4, 1, 1, 3]), 0.0
    )
    assert calls == [4] * (latency.WARMUP_CALLS + latency.ROUNDS * latency.LEAST_CALLS)
    assert 0 < timing.p50_ms <= timing.p90_ms <= timing.p99_ms
    assert timing.images_per_second > 0


def test_candidates_take_turns():
    order = []
    functions = [lambda pixels, name=name: order.append(name) for name in "ab"]
    latency.measure_in_turns(functions, np.zeros([1, 1, 1, 3]), 0.0)
    a_round = ["a"] * latency.LEAST_CALLS + ["b"] * latency.LEAST_CALLS
    assert order[2 * latency.WARMUP_CALLS :] == a_round * latency.ROUNDS


def test_the_table_has_a_row_for_each_export_and_batch(run_folder, tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    monkeypatch.setattr(latency, "_keras_applications", lambda first: ())
    wanted = load_experiment(
        run_folder + "/experiment.yaml", overrides=["export.formats=[saved_model, onnx]"]
    )
    export_run(run_folder, wanted, only_missing=True)
    output = tmp_path / "table.md"
    arguments = ["--model_dir", run_folder, "--batch_sizes=1,3", "--seconds=0"]
    assert latency.main([*arguments, "--output", str(output)]) == 0
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in output.read_text().splitlines()
        if line.startswith(("| saved_model", "| onnx"))
    ]
    assert [(row[0], row[4]) for row in rows] == [
        ("saved_model", "1"),
        ("saved_model", "3"),
        ("onnx", "1"),
        ("onnx", "3"),
    ]
    assert {row[3] for row in rows} == {"100.00%"}  # they agree with one another
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()


def test_a_run_without_exports_is_one_line(tmp_path, capsys):
    assert latency.main(["--model_dir", str(tmp_path)]) == 1
    assert "no export here; write it with python main.py --mode=export" in capsys.readouterr().err
