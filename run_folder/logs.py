"""What a run leaves to look at: metrics.jsonl, TensorBoard curves and pictures.

Both are cut back to the step that a run resumes from, so that no step is there twice or missing.
"""

import contextlib
import json
import posixpath
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from system.errors import UserError, first_line
from system.files import replacing, write_text


class LogError(UserError):
    """What a run leaves to look at can't be written: one line with what to do."""


class RunLog:
    """Writes rows of figures to `MODEL_DIR/metrics.jsonl` and to `MODEL_DIR/tensorboard/KIND`.

    Args:
      model_dir: of the run, local or gs://.
      resume_step: what was logged after this step is dropped: the run does it again.

    Raises:
      LogError: here and in every method, when a file can't be written. What is in a checkpoint has been
        logged before, and stays.
    """

    def __init__(self, model_dir: str, *, resume_step: int) -> None:
        self._path = posixpath.join(model_dir, "metrics.jsonl")
        self._curves = posixpath.join(model_dir, "tensorboard")
        self._rows = _rows_until(self._path, resume_step)
        self._save_rows()
        for kind in ("train", "eval"):
            with _explained(self._curves):
                _cut_events(posixpath.join(self._curves, kind), resume_step)
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Log figures of `kind` ("train" or "eval") at a step."""
        row = {"kind": kind, "step": step, **{k: float(v) for k, v in values.items()}}
        self._rows.append(json.dumps(row))
        with self._writing(kind, step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def images(self, name: str, step: int, images: np.ndarray) -> None:
        """Show uint8 [n, H, W, 3] images in TensorBoard."""
        with self._writing("train", step):
            tf.summary.image(name, images, max_outputs=len(images))

    def text(self, name: str, step: int, markdown: str) -> None:
        """Show a text in TensorBoard."""
        with self._writing("train", step):
            tf.summary.text(name, markdown)

    def flush(self) -> None:
        """Bring everything to disk; called before each checkpoint, so that none is ahead of the log."""
        self._save_rows()
        with _explained(self._curves):
            for writer in self._writers.values():
                writer.flush()

    def close(self) -> None:
        """Flush and close the files."""
        self.flush()
        with _explained(self._curves):
            for writer in self._writers.values():
                writer.close()

    @contextlib.contextmanager
    def _writing(self, kind: str, step: int) -> Iterator[None]:
        """Within the block tf.summary writes the curves of `kind`; they are on disk after it."""
        with _explained(self._curves):
            if kind not in self._writers:
                folder = posixpath.join(self._curves, kind)
                self._writers[kind] = tf.summary.create_file_writer(folder)
            with self._writers[kind].as_default(step):
                yield

    def _save_rows(self) -> None:
        with _explained(self._path):
            write_text(self._path, "".join(row + "\n" for row in self._rows))


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turn what TensorFlow says of a file that can't be written into one line."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        # "{{the operation}} THE FILE; the reason", then more lines.
        reason = first_line(error).rpartition("}} ")[2]
        raise LogError(
            f"{path}: can't be written ({reason}); free space, and run the same command again: "
            "it resumes from the last checkpoint"
        ) from error


def logged_steps(model_dir: str, kind: str) -> list[int]:
    """Steps of the rows of `kind` in MODEL_DIR/metrics.jsonl, in their order."""
    rows = _rows_until(posixpath.join(model_dir, "metrics.jsonl"), 2**62)
    return [row["step"] for row in map(json.loads, rows) if row.get("kind") == kind]


def _rows_until(path: str, step: int) -> list[str]:
    """Lines of metrics.jsonl up to `step`; a last line that was cut off counts for nothing."""
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
    """Rewrite TensorBoard's files of a folder without what is later than `step`."""
    for left in tf.io.gfile.glob(posixpath.join(directory, "*.tmp")):
        tf.io.gfile.remove(left)  # of a start that was killed here
    for path in tf.io.gfile.glob(posixpath.join(directory, "events.out.tfevents.*")):
        kept, dropped = [], False
        try:
            for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
                late = tf.compat.v1.Event.FromString(record).step > step
                dropped |= late
                kept += [] if late else [record]
        except tf.errors.DataLossError:
            dropped = True  # the tail that was being written when the run was killed
        if dropped:
            with replacing(path) as temporary, tf.io.TFRecordWriter(temporary) as writer:
                for record in kept:
                    writer.write(record)
