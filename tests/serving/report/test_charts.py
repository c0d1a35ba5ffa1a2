"""The charts: what is drawn, read from the SVG."""

import base64
import xml.etree.ElementTree as ElementTree

import numpy as np

from serving.report import charts

TRAINED = {"kind": "train", "finite": 1.0, "iou/1": 0.5}
ROWS = [
    *({**TRAINED, "step": s, "loss": 1 / s, "top_1": s / 10} for s in (2, 4, 6)),
    {"kind": "eval", "step": 6, "top_1": 0.5, "top_5": 1.0},
]


def svg(chart: charts.Chart) -> str:
    text = base64.b64decode(chart.uri.removeprefix("data:image/svg+xml;base64,")).decode()
    ElementTree.fromstring(text)  # well formed
    return text


def test_every_figure_has_a_chart_with_its_last_values() -> None:
    drawn = charts.curves(ROWS, [(4, "stage 2")], best_step=6)
    assert [chart.title for chart in drawn] == ["loss", "top 1", "top 5"]
    assert drawn[1].alt == "top 1 by step; at the end: train 0.6, eval 0.5"
    assert "stage 2" in svg(drawn[0])
    assert "evaluation" in svg(drawn[1])  # its legend
    assert "evaluation" not in svg(drawn[0])


def test_a_chart_has_the_same_bytes_each_time() -> None:
    assert charts.curves(ROWS, [], None) == charts.curves(ROWS, [], None)


def test_speed_leaves_out_the_calls_that_compile() -> None:
    first = {"phase": "train", "step": 2, "first": 1, "images": 8, "seconds": 9.0}
    later = {"phase": "train", "step": 4, "first": 0, "images": 8, "seconds": 2.0}
    assert charts.speed([first], []) == []
    (chart,) = charts.speed([first, later], [])
    assert chart.alt == "images per second; last 4"


def test_the_bar_of_time_names_the_shares() -> None:
    chart = charts.time_spent({"input": 1.0, "step": 3.0})
    assert chart.alt == "input 25%, step 75%"
    assert "step 75%" in svg(chart)


def test_a_confusion_matrix_has_names_and_numbers_while_there_is_room() -> None:
    confusion = np.array([[41, 2], [0, 57]])
    text = svg(charts.confusion_matrix(confusion, ("ant", "$bee$")))
    for shown in ("ant", "$bee$", ">41<", ">57<", "predicted"):
        assert shown in text
    chart = charts.confusion_matrix(np.eye(41, dtype=int), [f"name {n}" for n in range(41)])
    assert "name 3" not in svg(chart)
    assert chart.alt == "confusion matrix; 0 of 41 are wrong"


def test_names_in_any_script_are_drawn_without_a_warning() -> None:
    assert "猫" in svg(charts.confusion_matrix(np.eye(2, dtype=int), ("猫", "собака")))
