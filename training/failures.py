"""What TensorFlow raises while a run trains or evaluates, turned into one line for people."""

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.stream.pipeline import explain_error
from system.errors import UserError, first_line
from training.devices.distribution import Distribution


class TrainingError(UserError):
    """A run that cannot go on: one line that says why and what to do."""


@contextlib.contextmanager
def lost_workers(distribution: Distribution) -> Iterator[None]:
    """Raise TrainingError for an error that a worker that cannot be reached causes."""
    try:
        yield
    except tf.errors.OpError as error:
        if distribution.num_processes == 1:
            raise
        raise TrainingError(
            f"worker {distribution.host_index}: lost contact with another worker ({first_line(error)});"
            " start all of them again, they resume from the last checkpoint"
        ) from error


@contextlib.contextmanager
def broken_data() -> Iterator[None]:
    """Raise DatasetError for an error that broken data cause."""
    try:
        yield
    except (
        tf.errors.InvalidArgumentError,
        tf.errors.DataLossError,
        tf.errors.NotFoundError,
    ) as error:
        raise DatasetError(explain_error(error)) from error
