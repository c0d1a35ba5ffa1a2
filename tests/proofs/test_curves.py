"""Curves of runs that are compared: what is read of a run, and what the table says of several."""

import pytest

from configs.load import load_experiment
from proofs import curves
from proofs.curves import Curve, table, train
from system.errors import UsageError

CURVES = {
    "one": [Curve((10, 20), (40.0, 60.0), 30.0), Curve((10, 20), (44.0, 64.0), 34.0)],
    "other": [Curve((10, 20), (80.0, 90.5), 50.0)],
}


def test_the_table_has_the_last_figure_of_each_seed_and_not_the_best():
    rows = table({"falls": [Curve((1, 2), (90.0, 70.0), 9.6)], **CURVES}, "top-1").splitlines()
    assert rows[2] == "| falls | 70.0 | 70.0 ± 0.0 | 10 s |"
    assert rows[3] == "| one | 60.0 64.0 | 62.0 ± 2.8 | 32 s |"


def test_a_finished_run_is_read_and_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "train_and_evaluate", pytest.fail)
    experiment = load_experiment(values={"model_dir": str(tmp_path)})
    (tmp_path / "processor_seconds").write_text("12.5\n")
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "train", "step": 10, "loss": 1.0}\n{"kind": "eval", "step": 10, "top_1": 0.5}\n'
    )
    assert train(experiment, None, "top_1") == Curve((10,), (50.0,), 12.5)


def test_a_metric_that_no_evaluation_has_is_named_with_those_there_are(tmp_path):
    experiment = load_experiment(values={"model_dir": str(tmp_path)})
    (tmp_path / "processor_seconds").write_text("12.5\n")
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "eval", "step": 10, "top_1": 0.5, "cross_entropy": 1.0}\n'
    )
    with pytest.raises(UsageError, match=r"mean_iou is no figure .* cross_entropy, top_1"):
        train(experiment, None, "mean_iou")
