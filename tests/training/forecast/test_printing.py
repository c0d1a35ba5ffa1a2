"""The plot of a plan's learning rate, and where it goes."""

from pathlib import Path

import pytest

from configs.load import load_experiment
from run_folder.experiment import save_run_experiment
from training.forecast import printing
from training.forecast.forecast import make_forecast

B0 = Path(__file__).resolve().parents[3] / "configs/efficientnet_b0.yaml"


@pytest.fixture
def no_report(tmp_path):
    return tmp_path / "nothing.json"


@pytest.mark.parametrize("schedule", ["exponential", "cosine", "constant"])
def test_every_schedule_is_drawn(schedule, no_report, tmp_path):
    pytest.importorskip("matplotlib")
    experiment = load_experiment(B0, overrides=[f"schedule.name={schedule}"])
    path = tmp_path / "rate.png"
    printing.draw(make_forecast(experiment, None, no_report), str(path))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_learning_rate_is_drawn_into_a_folder_that_exists(no_report, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    found = make_forecast(load_experiment(B0), None, no_report)
    printing.print_forecast(found, str(tmp_path))
    assert (tmp_path / "learning_rate.png").exists()
    assert f"learning rate: {tmp_path}/learning_rate.png\n" in capsys.readouterr().out


def test_a_plan_makes_no_folder(no_report, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    found = make_forecast(load_experiment(B0), None, no_report)
    printing.print_forecast(found, f"{tmp_path}/run")
    assert list(tmp_path.iterdir()) == []
    assert "learning_rate.png" not in capsys.readouterr().out


def test_a_plan_leaves_the_plot_of_another_run_alone(no_report, tmp_path):
    pytest.importorskip("matplotlib")
    run = load_experiment(B0)
    save_run_experiment(run, str(tmp_path))
    other = load_experiment(B0, overrides=["train.duration=9 epochs", "train.steps_per_call=1"])
    printing.print_forecast(make_forecast(other, None, no_report), str(tmp_path))
    assert not (tmp_path / "learning_rate.png").exists()
    printing.print_forecast(make_forecast(run, None, no_report), str(tmp_path))
    assert (tmp_path / "learning_rate.png").exists()
