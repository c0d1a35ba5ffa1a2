"""Two checkouts side by side: what is measured exists, and how the result is printed."""

import importlib.util
import inspect
from pathlib import Path

import pytest

from benchmarks import compare
from benchmarks.compare import RENAMED, WHAT, list_items, main, share_out, verdict_line
from benchmarks.ratios import Ratio
from benchmarks.subjects import project
from system.conditions import ROOT


def test_rounds_are_shared_out_to_processes() -> None:
    assert share_out(16, 4) == [4, 4, 4, 4]
    assert share_out(7, 3) == [3, 2, 2]
    assert share_out(2, 4) == [1, 1]


@pytest.mark.parametrize(("high", "word"), [(1.0299, "yes"), (1.03, "no")])
def test_an_interval_that_reaches_the_limit_fails(high: float, word: str) -> None:
    line = verdict_line("input", Ratio(1.0, 0.99, high), limit=1.03)
    assert line == f"| input | 1.000 (0.990 to {high:.3f}) | {word} |"


def test_every_item_calls_a_function_with_the_settings_that_it_takes() -> None:
    items = list_items(WHAT, "records")
    assert len({item.name for item in items}) == len(items)
    for item in items:
        inspect.signature(getattr(project, item.function)).bind(**item.settings)


def test_renamed_modules_exist_by_their_present_names() -> None:
    for name in RENAMED:
        assert importlib.util.find_spec(name), name


@pytest.mark.slow
def test_a_training_step_runs_on_batches_in_memory() -> None:
    turn = project.training_step("efficientnet-lite0", image_size=32, batch=2, steps=2)
    assert turn() == 4


def test_the_page_has_what_was_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ratios = iter([Ratio(1.0, 0.99, 1.02), Ratio(1.0, 0.99, 1.05)])
    monkeypatch.setattr(compare, "compare", lambda *args: next(ratios))
    page = tmp_path / "results/compare.md"
    assert main([f"--base={ROOT}", "--what=tracing", f"--output={page}"]) == 1
    written = page.read_text()
    assert capsys.readouterr().out in written
    assert "replicas: 1 | 1.000 (0.990 to 1.020) | yes |" in written
    assert "replicas: 2 | 1.000 (0.990 to 1.050) | no |" in written


def test_a_base_that_is_no_checkout_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"--base={tmp_path}"]) == 2
    assert "not a checkout of this project" in capsys.readouterr().err


def test_an_unknown_item_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--base=.", "--what=input,speed"])
    assert exit_.value.code == 2
    assert "'speed' is none of input, tracing, training" in capsys.readouterr().err
