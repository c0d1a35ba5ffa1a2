"""Convert what TensorFlow raises in training and evaluation to errors of one line."""

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from input_pipeline.errors import DatasetError, plain_message
from input_pipeline.stream.pipeline import describe_data_error
from system.errors import UserError, first_line, is_out_of_memory
from training.devices.distribution import Distribution
from training.job import Job

_OUT_OF_MEMORY = re.compile(r"OOM|out of memory", re.IGNORECASE)  # as TensorFlow and XLA word it


class TrainingError(UserError):
    """A run cannot continue."""


@contextlib.contextmanager
def lost_workers(distribution: Distribution) -> Iterator[None]:
    """Raise TrainingError for an error caused by an unreachable worker."""
    try:
        yield
    except tf.errors.OpError as error:
        if distribution.num_processes == 1:
            raise
        raise TrainingError(
            f"worker {distribution.host_index}: lost contact with another worker ({first_line(error)});"
            " restart all workers, they resume from the last checkpoint"
        ) from error


@contextlib.contextmanager
def training_memory(job: Job) -> Iterator[None]:
    """Raise TrainingError with the training batch for an out-of-memory error."""
    train = job.experiment.train
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        shares = job.distribution.num_replicas * train.accumulation_steps
        raise TrainingError(
            f"out of memory: training with train.global_batch_size={train.global_batch_size} and "
            f"train.accumulation_steps={train.accumulation_steps}, which is "
            f"{train.global_batch_size // shares} images at a time on each replica "
            f"({_allocation(error)}); raise train.accumulation_steps, or start a run with a smaller "
            "train.global_batch_size, network or model.image_size"
        ) from error


@contextlib.contextmanager
def evaluation_memory(job: Job) -> Iterator[None]:
    """Raise TrainingError with the evaluation batch for an out-of-memory error."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory: evaluating with eval.global_batch_size={job.eval_batch_size}, which is "
            f"{job.eval_batch_size // job.distribution.num_replicas} images on each replica "
            f"({_allocation(error)}); set a smaller eval.global_batch_size, or take a smaller "
            "network or image size"
        ) from error


def _allocation(error: Exception) -> str:
    """Return the line of an out-of-memory error that names the allocation, else its first line."""
    lines = [plain_message(line) for line in str(error).splitlines()]
    # TensorFlow's hint, how to list the tensors "when OOM happens", may come first.
    named = (x for x in lines if _OUT_OF_MEMORY.search(x) and not x.startswith("Hint:"))
    return next(named, plain_message(first_line(error)))


@contextlib.contextmanager
def broken_data() -> Iterator[None]:
    """Raise DatasetError for an error caused by broken data."""
    try:
        yield
    except (
        tf.errors.InvalidArgumentError,
        tf.errors.DataLossError,
        tf.errors.NotFoundError,
    ) as error:
        raise DatasetError(describe_data_error(error)) from error
