"""The page of a run: complete, self-contained, and never a reason to fail."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import serving.report.page
from run_folder.starts import Start
from serving.export import load_trained_network
from serving.report import __main__ as command
from serving.report import write_report_or_log
from serving.report.mistakes import MOST_SHOWN, Mistakes, find_mistakes
from serving.report.page import find_report, write_report

pytestmark = pytest.mark.slow

DATA_URI = re.compile(r'src="data:image/(png|jpeg|svg\+xml);base64,[A-Za-z0-9+/=]+"')


@pytest.fixture(scope="module")
def page(run: str) -> str:
    assert write_report(run) == find_report(run) == f"{run}/report.html"
    return Path(run, "report.html").read_text(encoding="utf-8")


def test_the_page_has_every_part(page: str) -> None:
    for heading in (
        "Curves",
        "Time",
        "Classes",
        "Most confident mistakes",
        "Experiment",
        "Starts and versions",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "Left out" not in page
    for text in ("75.00%", "fünf", "random weights, seed 0", "1 CPU (float32)", tf.__version__):
        assert text in page
    assert "crop_padding: 6" in page  # the experiment, as YAML
    assert re.findall(r"<h3>([^<]+)</h3>", page) == [
        *("loss", "top 1", "learning rate", "cross entropy"),
        *("where the time went", "images per second", "confusion"),
    ]


def test_the_page_needs_nothing_beside_it(page: str) -> None:
    assert page.count('src="') == len(DATA_URI.findall(page)) > 7
    assert not re.search(r"<script|<link rel=.stylesheet|@import|url\(|href=.http", page)


def test_text_is_no_markup(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    none = Mistakes([], 0, 0)
    monkeypatch.setattr(serving.report.page, "find_mistakes", lambda network: none)
    with monkeypatch.context() as patch:
        patch.setattr(serving.report.page, "read_starts", lambda folder: [_start("<b>x</b>")])
        text = Path(write_report(run)).read_text()
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    assert "<b>x" not in text


def _start(source: str) -> Start:
    return Start(0, source, "1 CPU", "2026-01-01T00:00:00Z", "abc", {})


def test_mistakes_are_the_surest_ones_with_what_they_came_from(run: str) -> None:
    found = find_mistakes(load_trained_network(run, None), most_images=64)
    assert 0 < found.wrong <= found.seen
    assert len(found.worst) == min(found.wrong, MOST_SHOWN)
    errors = [mistake.error for mistake in found.worst]
    assert errors == sorted(errors, reverse=True)
    for mistake in found.worst:
        assert 0 < mistake.error <= 1
        assert [picture.shape for picture in mistake.pictures] == [(32, 32, 3)] * 2
        assert [picture.dtype for picture in mistake.pictures] == [np.uint8] * 2
        assert re.fullmatch(r"[\wü ]+ \d+%, is [\wü ]+ \d+%", mistake.caption)
        assert 0 <= mistake.number < found.seen


def test_no_more_images_are_looked_at_than_there_is_time_for(run: str) -> None:
    network = load_trained_network(run, None)
    ticks = iter([0.0, 30.0])
    found = find_mistakes(network, most_seconds=20.0, clock=lambda: next(ticks))
    assert 0 < found.seen <= 32


def test_a_part_that_fails_is_a_line_and_the_rest_is_there(
    run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(network: object) -> None:
        raise OSError("no images here any more\nand more")

    monkeypatch.setattr(serving.report.page, "find_mistakes", fail)
    text = Path(write_report(run)).read_text()
    assert "Left out: mistakes: no images here any more</p>" in text
    assert "<h2>Classes</h2>" in text
    assert capsys.readouterr().out == "report: mistakes: no images here any more\n"


def test_predictions_that_a_task_has_drawn_are_a_part(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.report.page, "find_mistakes", lambda network: None)
    path = Path(run, "predictions.png")
    path.write_bytes(tf.io.encode_png(np.zeros([40, 2000, 3], np.uint8)).numpy())
    try:
        text = Path(write_report(run)).read_text()
    finally:
        path.unlink()
    assert "<h2>Predictions</h2>" in text
    assert text.count("data:image/jpeg") == 1  # smaller than it was


def test_a_run_that_has_logged_nothing_has_a_page(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("read_log", "read_starts"):
        monkeypatch.setattr(serving.report.page, name, lambda *args: [])
    monkeypatch.setattr(serving.report.page, "read_results", lambda folder: None)
    monkeypatch.setattr(serving.report.page, "find_mistakes", lambda network: None)
    text = Path(write_report(run)).read_text()
    for note in ("Nothing was logged", "No times were logged", "neither its starts"):
        assert note in text


def test_a_report_that_cannot_be_made_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert write_report_or_log(str(tmp_path)) is None
    out = capsys.readouterr().out
    assert out.startswith(f"no report: {tmp_path}: no run here")
    assert out.endswith(f"python -m serving.report {tmp_path}\n")
    assert len(out.splitlines()) == 1


def test_a_report_that_is_there_is_kept_if_asked(page: str, run: str) -> None:
    path = Path(run, "report.html")
    path.write_text("kept")
    assert write_report_or_log(run, only_missing=True) == str(path)
    assert path.read_text() == "kept"


def test_the_command_names_what_it_wrote(run: str, capsys: pytest.CaptureFixture) -> None:
    assert command.main([run]) == 0
    assert capsys.readouterr().out == f"{run}/report.html\n"


def test_the_command_reports_a_folder_without_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert command.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"serving.report: {tmp_path}: no run here")
