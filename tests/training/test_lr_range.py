"""The learning-rate range test: its rates, its suggestion, and what it leaves behind."""

import csv
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from configs.load import ConfigError, load_experiment
from tests import runs
from training import lr_range
from training.lr_range import RangeTest, rising, smooth

RATES = np.geomspace(1e-5, 10.0, 200)


def falling(steepest: float) -> np.ndarray:
    """Losses with noise that fall fastest at a rate, and rise from 30 times that rate on."""
    above = np.log10(RATES / steepest)
    noise = np.random.default_rng(0).normal(0, 0.05, len(RATES))
    return 2.3 - 1.5 / (1 + np.exp(-4 * above)) + np.exp(6 * (above - 1.5)) + noise


def ended(losses: np.ndarray) -> RangeTest:
    """The test ended where it would have been ended."""
    stop = next(n for n in range(1, len(losses)) if lr_range._has_diverged([*losses[:n]]))
    return RangeTest(RATES[:stop], losses[:stop], len(losses))


def test_rates_rise_by_the_same_factor_from_the_first_to_the_last() -> None:
    rates = rising(1e-5, 10.0, 200)(tf.range(200)).numpy()
    np.testing.assert_allclose(rates, RATES, rtol=1e-4)


def test_the_average_of_the_first_losses_has_no_bias() -> None:
    np.testing.assert_allclose(smooth(np.full(5, 3.0)), 3.0)
    np.testing.assert_allclose(smooth(np.array([1.0, 2.0])), [1.0, (0.9 + 2.0) / 1.9])


@pytest.mark.parametrize("steepest", [1e-3, 1e-2, 0.1])
def test_the_suggestion_is_where_the_loss_falls_fastest(steepest: float) -> None:
    found = ended(falling(steepest))
    assert len(found.losses) < len(RATES)
    assert steepest / 2 < found.suggestion < steepest * 2


def test_a_loss_that_never_falls_suggests_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    found = RangeTest(RATES, np.linspace(2.0, 6.0, len(RATES)), len(RATES))
    assert found.suggestion is None
    lr_range.report_range(found, str(tmp_path))
    assert "no suggestion: the loss never fell" in capsys.readouterr().out


def test_an_empty_range_is_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"lr_range\.lowest=20 must be below lr_range\.highest=10"
    ):
        load_experiment(overrides=["lr_range.lowest=20"])


@pytest.mark.slow
def test_the_command_writes_a_curve_and_leaves_the_run_alone(
    tmp_path: Path, command: runs.Command
) -> None:
    pytest.importorskip("matplotlib")
    flags = runs.flags(tmp_path, "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "step_00000004"
    checkpoint.mkdir(parents=True)
    (checkpoint / "values.index").write_bytes(b"untouched")
    wide = ["--set=lr_range.steps=30", "--set=lr_range.highest=1.0e+30"]
    status, out, err = command(*flags, "--mode=lr_range", *wide, "--set=train.trainable=head")
    assert status == 0, err
    assert "; then it diverged: " in out
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "checkpoints",
        "lr_range.csv",
        "lr_range.png",
    }
    assert [path.name for path in checkpoint.iterdir()] == ["values.index"]
    assert (tmp_path / "run/lr_range.png").read_bytes().startswith(b"\x89PNG")
    with open(tmp_path / "run/lr_range.csv") as file:
        rows = list(csv.DictReader(file))
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, np.geomspace(1e-5, 1e30, 30)[: len(rates)], rtol=1e-4)
    assert all(np.isfinite(float(row["loss"])) for row in rows)
