"""Logs of a run: metrics.jsonl, times.jsonl, and TensorBoard scalars, images and text.

All are truncated to the step that a run resumes from, so that no step is logged twice or missing.
Figures that differ from one run of the same experiment to the next, as seconds do, are in times.jsonl and
in TensorBoard's "speed" alone: everything else is the same to the bit.
"""

import contextlib
import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from system.errors import UserError, first_line
from system.files import replacing, write_text

METRICS, TIMES = "metrics.jsonl", "times.jsonl"
Setting = bool | int | float | str
KINDS = ("train", "eval", "speed")  # folders of TensorBoard's events
_ALL_STEPS = 2**62


class LogError(UserError):
    """The logs of a run can't be written."""


class RunLog:
    """Writes metrics to `MODEL_DIR/metrics.jsonl` and `MODEL_DIR/tensorboard/KIND`, times to `times.jsonl`.

    Args:
      model_dir: of the run, local or gs://.
      resume_step: entries after this step are deleted, because the run repeats those steps.

    Raises:
      LogError: here and in every method, when a file can't be written. Entries up to the last
        checkpoint are on disk already and stay.
    """

    def __init__(self, model_dir: str, *, resume_step: int) -> None:
        self._curves = posixpath.join(model_dir, "tensorboard")
        self._metrics = _Rows(posixpath.join(model_dir, METRICS), resume_step)
        self._times = _Rows(posixpath.join(model_dir, TIMES), resume_step)
        self._metrics.save()
        for kind in KINDS:
            with _log_errors(self._curves):
                _cut_events(posixpath.join(self._curves, kind), resume_step)
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Log values of `kind` ("train" or "eval") at a step."""
        figures = {name: float(value) for name, value in values.items()}
        self._metrics.add({"kind": kind, "step": step, **figures})
        self.curve(kind, step, values)

    def time(self, phase: str, step: int, seconds: float, **figures: float) -> None:
        """Log the seconds that a part of the run took, and figures about it.

        Args:
          phase: "start", "trace", "train", "evaluation" or "checkpoint".
          step: updates made at its end.
          seconds: its length.
          figures: of "train": "steps", "images", "input_seconds" (of waiting for batches), and "first" (1 for
            the first call of a stage, which also compiles; 0 for the others).
        """
        rounded = {name: round(value, 4) for name, value in figures.items()}
        self._times.add({"phase": phase, "step": step, "seconds": round(seconds, 4), **rounded})

    def curve(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Log values of `kind`, one of KINDS, to TensorBoard alone."""
        with self._writing(kind, step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def images(self, name: str, step: int, images: np.ndarray) -> None:
        """Log uint8 [n, H, W, 3] images to TensorBoard."""
        with self._writing("train", step):
            tf.summary.image(name, images, max_outputs=len(images))

    def text(self, name: str, step: int, markdown: str) -> None:
        """Log a text to TensorBoard."""
        with self._writing("train", step):
            tf.summary.text(name, markdown)

    def flush(self) -> None:
        """Write everything to disk; call before each checkpoint, so that none is ahead of the log."""
        self._metrics.save()
        if self._times.lines:
            self._times.save()
        with _log_errors(self._curves):
            for writer in self._writers.values():
                writer.flush()

    def close(self) -> None:
        """Flush and close the files."""
        self.flush()
        with _log_errors(self._curves):
            for writer in self._writers.values():
                writer.close()

    @contextlib.contextmanager
    def _writing(self, kind: str, step: int) -> Iterator[None]:
        """Direct tf.summary to the events of `kind` at `step` within the block."""
        with _log_errors(self._curves):
            if kind not in self._writers:
                folder = posixpath.join(self._curves, kind)
                self._writers[kind] = tf.summary.create_file_writer(folder)
            with self._writers[kind].as_default(step):
                yield


def write_hyperparameters(
    model_dir: str, settings: Mapping[str, Setting], step: int, best: Mapping[str, float]
) -> None:
    """Write what TensorBoard's HParams page shows of a run, in place of what was there.

    Args:
      model_dir: of the run, local or gs://.
      settings: values of the experiment by key.
      step: of the best checkpoint.
      best: its metrics by name.

    Raises:
      LogError: the folder can't be written.
    """
    from tensorboard.plugins.hparams import api

    folder = posixpath.join(model_dir, "tensorboard", "hparams")
    with _log_errors(folder):
        if tf.io.gfile.exists(folder):
            tf.io.gfile.rmtree(folder)
        with tf.summary.create_file_writer(folder).as_default(step):
            api.hparams(dict(settings))
            for name, value in best.items():
                tf.summary.scalar(f"best/{name}", value)


class _Rows:
    """Lines of JSON with a step, written whole at each save."""

    def __init__(self, path: str, resume_step: int) -> None:
        self._path, self.lines = path, _rows_until(path, resume_step)

    def add(self, row: Mapping[str, Any]) -> None:
        self.lines.append(json.dumps(row))

    def save(self) -> None:
        with _log_errors(self._path):
            write_text(self._path, "".join(line + "\n" for line in self.lines))


@contextlib.contextmanager
def _log_errors(path: str) -> Iterator[None]:
    """Convert an error of writing `path` to a LogError of one line."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        # "{{the operation}} THE FILE; the reason", then more lines.
        reason = first_line(error).rpartition("}} ")[2]
        raise LogError(
            f"{path}: can't be written ({reason}); free space and run the same command again: "
            "it resumes from the last checkpoint"
        ) from error


def logged_steps(model_dir: str, kind: str) -> list[int]:
    """Return the steps of the rows of `kind` in MODEL_DIR/metrics.jsonl, in their order."""
    return [row["step"] for row in read_log(model_dir, METRICS) if row.get("kind") == kind]


def read_log(model_dir: str, file: str) -> list[dict[str, Any]]:
    """Return the rows of MODEL_DIR/FILE, METRICS or TIMES, in their order; none without that file."""
    return [json.loads(line) for line in _rows_until(posixpath.join(model_dir, file), _ALL_STEPS)]


def _rows_until(path: str, step: int) -> list[str]:
    """Return the lines of a log up to `step`, without a truncated last line."""
    if not tf.io.gfile.exists(path):
        return []
    with tf.io.gfile.GFile(path) as file:
        lines = file.read().splitlines()
    return [line for line in lines if (at := _step_of(line)) is not None and at <= step]


def _step_of(line: str) -> int | None:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None


def _cut_events(directory: str, step: int) -> None:
    """Rewrite the event files of a folder without the events after `step`."""
    for left in tf.io.gfile.glob(posixpath.join(directory, "*.tmp")):
        tf.io.gfile.remove(left)  # left by a process that was killed while writing
    for path in tf.io.gfile.glob(posixpath.join(directory, "events.out.tfevents.*")):
        kept, dropped = [], False
        try:
            for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
                late = tf.compat.v1.Event.FromString(record).step > step
                dropped |= late
                kept += [] if late else [record]
        except tf.errors.DataLossError:
            dropped = True  # a last record that was not written completely
        if dropped:
            with replacing(path) as temporary, tf.io.TFRecordWriter(temporary) as writer:
                for record in kept:
                    writer.write(record)
