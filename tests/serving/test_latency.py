"""The latency benchmark times the export that it names, and measures the accuracy of that export."""

import re
import types
from pathlib import Path

import numpy as np
import pytest

from benchmarks import latency
from configs.load import load_experiment
from serving.export import export_run
from serving.model_card import Preprocessing
from serving.tflite import VARIANTS

PAGE = Path(latency.__file__).parent / "results" / "latency.md"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # converters use what other packages deprecated
]


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
    experiment = load_experiment(
        run_folder + "/experiment.yaml", overrides=["export.formats=[saved_model, onnx]"]
    )
    export_run(run_folder, experiment, only_missing=True)
    output = tmp_path / "table.md"
    arguments = ["--model_dir", run_folder, "--batch_sizes=3,1", "--seconds=0"]
    assert latency.main([*arguments, "--output", str(output)]) == 0
    page = output.read_text()
    for batch in (1, 3):
        assert len(re.findall(rf"^\| saved_model \| {batch} \| 20 \|", page, re.MULTILINE)) == 1
        assert len(re.findall(rf"^\| onnx \| {batch} \| 20 \|", page, re.MULTILINE)) == 1
    summary = re.findall(r"^\| (saved_model|onnx) \| \S+ \| \S+% \| (\S+) \|", page, re.MULTILINE)
    assert summary == [("saved_model", "100.00%"), ("onnx", "100.00%")]  # they agree
    (plot,) = re.findall(r"\((table_\S+\.png)\)", page)
    assert (tmp_path / plot).read_bytes().startswith(b"\x89PNG")
    # Again, without accuracy: the tables take the place of the first ones.
    latency.main([*arguments, "--untrained", "--output", str(output)])
    again = output.read_text()
    assert again.count("## efficientnet-b0, 32 px, shapes") == 1
    assert "%" not in again.partition("<!--")[2].partition("32 px, shapes")[2]
    capsys.readouterr()


def test_a_page_keeps_what_it_says_of_other_networks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# What was there before\n")
    for title, text in (("b", "one\n"), ("a", "two\n"), ("b", "three\n")):
        latency.put_section(page, title, text)
    assert page.read_text() == (
        f"{latency.INTRODUCTION}\n<!-- b: begin -->\nthree\n<!-- b: end -->\n\n"
        "<!-- a: begin -->\ntwo\n<!-- a: end -->\n"
    )


@pytest.mark.parametrize("name", ["efficientnet-b0", "efficientnet-lite0"])
def test_the_network_of_keras_applications_is_the_b_of_that_number(name):
    how = Preprocessing(
        image_size=32, crop_padding=None, resize="bicubic", mean_rgb=(0,) * 3, stddev_rgb=(1,) * 3
    )
    card = types.SimpleNamespace(name=name, preprocessing=how, class_names=("a", "b"))
    (candidate,) = latency._keras_applications(types.SimpleNamespace(card=card))
    assert candidate.name == "keras.applications EfficientNetB0"
    assert candidate.from_pixels(np.zeros([2, 32, 32, 3], np.uint8)).shape == (2, 2)


def test_the_recorded_page_holds_what_int8_of_lite_promises():
    text = PAGE.read_text()
    title = "efficientnet-lite0, 32 px, digits"
    section = text.partition(f"<!-- {title}: begin -->")[2].partition(f"<!-- {title}: end -->")[0]
    top_1 = {
        what: float(share)
        for what, share in re.findall(
            r"^\| (\S.*?) \| [\d.]+ \| ([\d.]+)% \|", section, re.MULTILINE
        )
    }
    exports = {"saved_model", "onnx", *(f"tflite {variant}" for variant in VARIANTS)}
    assert set(top_1) == exports
    assert top_1["tflite int8"] >= top_1["saved_model"] - 1.0  # points


def test_the_recorded_page_has_a_command_and_a_plot_for_each_network():
    sections = PAGE.read_text().split("\n## ")[1:]
    names = [section.partition(",")[0] for section in sections]
    assert sorted(names) == ["efficientnet-b0"] * 2 + ["efficientnet-lite0"] * 2
    for section in sections:
        assert "    python -m benchmarks.latency --model_dir=runs/" in section
        (plot,) = re.findall(r"\((latency_\S+\.png)\)", section)
        assert (PAGE.parent / plot).read_bytes().startswith(b"\x89PNG")


def test_a_run_without_exports_is_one_line(tmp_path, capsys):
    assert latency.main(["--model_dir", str(tmp_path)]) == 2
    assert f"{tmp_path}: no run here" in capsys.readouterr().err
    (tmp_path / "experiment.yaml").touch()
    assert latency.main(["--model_dir", str(tmp_path)]) == 1
    assert "no export here; write one with python main.py --mode=export" in capsys.readouterr().err
