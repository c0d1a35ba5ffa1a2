"""What a command prints when it is done, to the letter."""

import numpy as np
import pytest

from run_folder.checkpoints import Checkpoint
from tasks.classification import Classification
from training import report
from training.diagnosis.nonfinite import Diagnosis, Incident, LayerSummary, TensorSummary
from training.evaluate import Evaluation
from training.loop import Measured, Outcome

CHECKPOINT = Checkpoint("runs/x/checkpoints/step_00000040", 40, {"top_1": 0.5}, 40)
CONFUSION = np.array([[3, 0, 1], [0, 2, 0], [2, 1, 0]])


def evaluation(confusion: np.ndarray | None) -> Evaluation:
    figures = {"top_1": 0.75, "top_5": 1.0, "cross_entropy": 0.123456}
    sums = {} if confusion is None else {"confusion": confusion}
    return Evaluation(figures, Classification(3).format_score(figures), 1234, sums)


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.console, "width", 100)


def printed(capsys: pytest.CaptureFixture) -> str:
    """The output without the spaces at the ends of its lines."""
    return "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())


FIGURES = """\
step 40 on 1,234 held-out images
┏━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━━━━━━┓
┃  top-1 ┃   top-5 ┃ cross entropy ┃
┡━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━━━━━━┩
│ 75.00% │ 100.00% │        0.1235 │
└────────┴─────────┴───────────────┘"""


def test_an_evaluation_is_its_figures_and_what_is_taken_for_what(
    capsys: pytest.CaptureFixture,
) -> None:
    report.print_evaluation(Measured("step 40", evaluation(CONFUSION), ("cat", "dog", "emu")))
    assert printed(capsys) == (
        FIGURES
        + """
confusion: rows true,
columns predicted
┏━━━━━┳━━━━━┳━━━━━┳━━━━━┓
┃     ┃ cat ┃ dog ┃ emu ┃
┡━━━━━╇━━━━━╇━━━━━╇━━━━━┩
│ cat │   3 │   . │   1 │
│ dog │   . │   2 │   . │
│ emu │   2 │   1 │   . │
└─────┴─────┴─────┴─────┘
most confused: emu taken for cat: 2; cat taken for emu: 1; emu taken for dog: 1"""
    )


def test_many_classes_are_no_table_and_classes_without_names_are_numbers(
    capsys: pytest.CaptureFixture,
) -> None:
    confusion = np.diag(np.full(report.MOST_CLASSES_SHOWN + 1, 5))
    report.print_evaluation(Measured("step 40", evaluation(confusion), None))
    assert printed(capsys) == f"{FIGURES}\nmost confused: none"
    confusion[12, 0] = 2
    report.print_evaluation(Measured("step 40", evaluation(confusion), None))
    assert printed(capsys) == f"{FIGURES}\nmost confused: 12 taken for 0: 2"


def test_many_pixels_are_shares_of_their_true_class(capsys: pytest.CaptureFixture) -> None:
    confusion = np.array([[1_900_000, 100_000, 0], [0, 0, 0], [1, 0, 9_999]])
    names = ("sky", "sea", "sun")
    report.print_evaluation(Measured("step 40", evaluation(confusion), names))
    out = printed(capsys)
    assert "confusion, %: rows true, columns predicted" in " ".join(out.split())
    rows = [line.strip("│").split("│") for line in out.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in row] for row in rows if row[0].strip() in names]
    assert cells == [
        ["sky", "95", "5", "."],
        ["sea", ".", ".", "."],
        ["sun", "0", ".", "100"],
    ]
    assert "most confused: sky taken for sea: 100,000; sun taken for sky: 1" in out


def test_an_evaluation_without_confusion_is_its_figures(capsys: pytest.CaptureFixture) -> None:
    report.print_evaluation(Measured("step 40", evaluation(None), None))
    assert printed(capsys) == FIGURES


def test_a_run_ends_with_where_things_are(capsys: pytest.CaptureFixture) -> None:
    exports = {"onnx": "runs/x/export/onnx/40"}
    report.print_outcome("runs/x", Outcome(40, CHECKPOINT, None, "top-1 50.00%"), exports)
    assert (
        printed(capsys)
        == """\
best: top-1 50.00% at step 40
where things are
┌─────────────────────┬─────────────────────────────────────────┐
│ experiment          │ runs/x/experiment.yaml                  │
│ best checkpoint     │ runs/x/checkpoints/step_00000040        │
│ figures             │ runs/x/metrics.jsonl                    │
│ curves and pictures │ tensorboard --logdir=runs/x/tensorboard │
│ onnx                │ runs/x/export/onnx/40                   │
└─────────────────────┴─────────────────────────────────────────┘"""
    )


def test_a_run_that_was_evaluated_ends_with_its_figures(capsys: pytest.CaptureFixture) -> None:
    measured = Measured("step 40", evaluation(None), None)
    report.print_outcome("runs/x", Outcome(40, CHECKPOINT, measured), {})
    assert printed(capsys).startswith(f"{FIGURES}\nwhere things are\n")


def test_a_run_without_a_checkpoint_names_their_folder(capsys: pytest.CaptureFixture) -> None:
    report.print_outcome("runs/x", Outcome(0, None, measured=None), {})
    text = printed(capsys)
    assert text.startswith("where things are\n")
    assert "│ best checkpoint     │ runs/x/checkpoints                      │\n" in text


def test_an_export_is_a_line_for_each_format(capsys: pytest.CaptureFixture) -> None:
    report.print_exports({"saved_model": "x/export/saved_model/4", "onnx": "x/export/onnx/4"})
    assert printed(capsys) == "saved_model: x/export/saved_model/4\nonnx: x/export/onnx/4"


def test_a_step_that_is_not_finite_is_a_row_for_each_layer(capsys: pytest.CaptureFixture) -> None:
    layers = [
        LayerSummary(
            "stem",
            TensorSummary(0, 4, 1.5),
            TensorSummary(2, 8, 3.0),
            TensorSummary(0, 0, 0.0),
            TensorSummary(4, 4, 0.0),
        ),
        LayerSummary(
            "head",
            TensorSummary(0, 4, 1.5),
            TensorSummary(0, 8, 1e9),
            TensorSummary(0, 8, 0.25),
            TensorSummary(0, 4, 2.0),
        ),
    ]
    incident = Incident(3, {}, {"index": np.array([5, 1])}, 0, 1, "float32")
    report.print_diagnosis(incident, Diagnosis(float("nan"), layers))
    assert (
        printed(capsys)
        == """\
step 3: largest magnitude, or how many values are not finite
┏━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━┓
┃ layer ┃ weights ┃   activations ┃ gradient of them ┃ gradient of the weights ┃
┡━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━┩
│ stem  │     1.5 │ 2 of 8 values │                  │           4 of 4 values │
│ head  │     1.5 │         1e+09 │             0.25 │                       2 │
└───────┴─────────┴───────────────┴──────────────────┴─────────────────────────┘
loss nan on examples 5, 1; first in the activations of stem (2 of 8 values)"""
    )
