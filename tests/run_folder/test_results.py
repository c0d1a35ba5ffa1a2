"""evaluation.json: what is written is what is read."""

import math
from pathlib import Path

import numpy as np
import pytest

from run_folder.results import FILE, Results, ResultsError, read_results, write_results

RESULTS = Results(
    step=40,
    num_examples=7,
    figures={"top_1": 0.5},
    shown={"top-1": "50.00%"},
    per_class={"images": np.array([4, 3, 0]), "recall": np.array([0.5, 1.0, math.nan])},
    confusion=np.array([[2, 2, 0], [0, 3, 0], [0, 0, 0]]),
)


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_results(str(tmp_path), RESULTS)
    found = read_results(str(tmp_path))
    assert found is not None
    assert (found.step, found.num_examples) == (40, 7)
    assert (found.figures, found.shown) == (RESULTS.figures, RESULTS.shown)
    assert found.per_class["images"].dtype == np.int64
    assert found.per_class["recall"].dtype == np.float64
    for name, values in RESULTS.per_class.items():
        np.testing.assert_array_equal(found.per_class[name], values)
    np.testing.assert_array_equal(found.confusion, RESULTS.confusion)


def test_a_task_may_count_neither_classes_nor_confusions(tmp_path: Path) -> None:
    write_results(str(tmp_path), Results(1, 2, {}, {}, {}))
    found = read_results(str(tmp_path))
    assert found is not None
    assert (found.per_class, found.confusion) == ({}, None)


def test_a_run_without_an_evaluation_has_none(tmp_path: Path) -> None:
    assert read_results(str(tmp_path)) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"format_version": 2}', '{"format_version": 1}'])
def test_damage_is_one_line_with_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ResultsError) as error:
        read_results(str(tmp_path))
    assert str(error.value).startswith(f"{tmp_path / FILE}: unusable (")
    assert len(str(error.value).splitlines()) == 1
