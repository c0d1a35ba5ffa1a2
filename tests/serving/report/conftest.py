"""A run with all that its report shows."""

import numpy as np
import pytest

from configs.load import load_experiment, save_experiment
from run_folder.logs import RunLog
from run_folder.results import Results, write_results
from run_folder.starts import Start, add_start


@pytest.fixture(scope="module")
def run(run_folder: str) -> str:
    """A run with its logs, its evaluation and its starts."""
    path = f"{run_folder}/experiment.yaml"
    save_experiment(load_experiment(path, overrides=["data.num_train_examples=800"]), path)
    log = RunLog(run_folder, resume_step=0)
    log.time("start", 0, 1.5)
    for step in (10, 20):
        log.scalars("train", step, {"loss": 1 / step, "top_1": step / 40, "learning_rate": 0.1})
        log.time("train", step, 2.0, steps=10, images=320, input_seconds=0.5, first=int(step == 10))
    log.scalars("eval", 20, {"top_1": 0.75, "cross_entropy": 0.5})
    log.close()
    add_start(run_folder, Start.now(0, "random weights, seed 0", "1 CPU (float32)"))
    confusion = np.diag(np.arange(7) + 1)
    confusion[5, 6] = 4
    figures = {"top_1": 0.75, "cross_entropy": 0.5}
    shown = {"top-1": "75.00%", "cross entropy": "0.5000"}
    recall = np.append(np.ones(6), np.nan)
    per_class = {"images": confusion.sum(axis=1), "recall": recall}
    write_results(run_folder, Results(40, 32, figures, shown, per_class, confusion))
    return run_folder
