"""The experiment that a run was started with, kept beside its checkpoints."""

import posixpath

import tensorflow as tf

from configs.load import save_experiment
from configs.schema import Experiment

EXPERIMENT_FILE = "experiment.yaml"


def run_experiment_file(model_dir: str) -> str | None:
    """Return the path of the experiment of the run in `model_dir`; None without a run."""
    path = posixpath.join(model_dir, EXPERIMENT_FILE)
    return path if tf.io.gfile.exists(path) else None


def save_run_experiment(experiment: Experiment, model_dir: str) -> None:
    """Write the experiment of the run in `model_dir`, atomically.

    Raises:
      ConfigError: the file can't be written.
    """
    save_experiment(experiment, posixpath.join(model_dir, EXPERIMENT_FILE))
