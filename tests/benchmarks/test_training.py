"""The page of training steps, with and without timm."""

import sys

import pytest

from benchmarks.training import KERAS, NETWORKS, OURS, TIMM, main, page, table_lines, torch_versions
from benchmarks.turn_server import Turn
from system.errors import UserError


def turns(seconds_per_image: float, peak_mib: float) -> list[Turn]:
    drift = (1.0, 2.0, 1.5)  # of the machine: the same for every side
    return [
        Turn(64, 64 * seconds_per_image * d, 128 * seconds_per_image * d, peak_mib) for d in drift
    ]


SIDES = {OURS: turns(0.05, 1500), KERAS: turns(0.0625, 2000.4), TIMM: turns(0.1, 1000)}


def test_a_table_gives_medians_of_each_side_and_ratios_to_ours() -> None:
    assert table_lines(SIDES)[2:] == [
        f"| {OURS} | 13.3 | 0.1500 | 1500 |  |  |",
        f"| {KERAS} | 10.7 | 0.1875 | 2000 | 1.250 (1.250 to 1.250) | 0.800 (0.800 to 0.800) |",
        f"| {TIMM} | 6.7 | 0.3000 | 1000 | 2.000 (2.000 to 2.000) | 0.500 (0.500 to 0.500) |",
    ]


def test_the_page_names_conditions_versions_and_every_network() -> None:
    text = page(dict.fromkeys(NETWORKS, SIDES), "2026-01-01, commit abc", "torch 9, timm 1")
    assert "\n2026-01-01, commit abc, torch 9, timm 1.\n" in text
    assert "3 rounds of 4 steps" in text
    assert "not measured" not in text
    for network in NETWORKS:
        assert f"## {network.title}\n" in text
    assert "{" not in text


def test_the_page_says_that_timm_was_not_measured() -> None:
    sides = {name: turns for name, turns in SIDES.items() if name != TIMM}
    text = page({NETWORKS[0]: sides}, "2026-01-01, commit abc", None)
    assert "timm was not measured: torch and timm were not installed." in text
    assert f"| {TIMM} |" not in text


def test_an_interpreter_without_timm_is_refused_when_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UserError, match=r"^--torch_python=/no/python: .*No such file"):
        torch_versions("/no/python")
    assert main(["--torch_python=/no/python"]) == 1
    assert capsys.readouterr().err.startswith("benchmarks.training: --torch_python=/no/python: ")


def test_an_interpreter_s_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    try:
        import timm  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="No module named 'timm'; give an interpreter"):
            torch_versions(sys.executable)
