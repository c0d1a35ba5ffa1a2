"""Checkpoints: named arrays in one folder each, valid once the manifest is written.

    MODEL_DIR/checkpoints/step_00012345/values.index, values.data-00000-of-00001, manifest.json

The values are a TensorFlow checkpoint of flat names (`tf.train.load_checkpoint` reads it). The manifest
holds the size and SHA-256 of each file, the metrics measured at that step, and its own SHA-256; it is
written last and atomically, also on object stores that can't rename folders. An incomplete checkpoint has
no manifest, a damaged one has other checksums; both are skipped and logged.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import posixpath
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from system.errors import UserError, first_line
from system.files import fingerprint, write_text

Arrays = Mapping[str, np.ndarray]
Log = Callable[[str], None]

_STEP_FOLDER = re.compile(r"step_(\d{8,})")
_MANIFEST = "manifest.json"
_PREFIX = "values"


class CheckpointError(UserError):
    """No usable checkpoint, or one that can't be written."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """An intact checkpoint.

    Attributes:
      path: its folder.
      step: number of steps of training.
      metrics: figures of its evaluation; empty without one.
      best_since: first step with the metric that compares checkpoints, if no later one was better.
    """

    path: str
    step: int
    metrics: Mapping[str, float]
    best_since: int

    def read(self) -> dict[str, np.ndarray]:
        """Return all arrays by name.

        Raises:
          CheckpointError: the files are missing, or are no checkpoint.
        """
        try:
            reader = tf.train.load_checkpoint(posixpath.join(self.path, _PREFIX))
            return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        except (tf.errors.OpError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.path}: can't be read ({first_line(error)})") from error


class CheckpointStore:
    """The checkpoints of one run.

    Args:
      model_dir: of the run, local or gs://; checkpoints go to a folder in it.
      best_metric: name of the metric that compares checkpoints, a task's `best`; higher is better.
      keep: number of newest checkpoints to keep, in addition to the best one.
      asynchronous: whether `save` returns while a thread writes; at most one write is pending.
      log: called with a line for each checkpoint that is skipped.
    """

    def __init__(
        self,
        model_dir: str,
        *,
        best_metric: str,
        keep: int = 3,
        asynchronous: bool = False,
        log: Log = lambda line: None,
    ) -> None:
        self.directory = posixpath.join(model_dir, "checkpoints")
        self._keep = keep
        self._asynchronous = asynchronous
        self._best_metric = best_metric
        self._log = log
        self._writer: threading.Thread | None = None
        self._failure: Exception | None = None

    def save(self, step: int, arrays: Arrays, metrics: Mapping[str, float] | None = None) -> None:
        """Write a checkpoint, then delete the ones that are no longer kept.

        Raises:
          CheckpointError: it can't be written (this one, or an earlier one in the background);
            earlier checkpoints are unchanged.
        """
        self.wait()
        if not self._asynchronous:
            self._write(step, arrays, metrics or {})
            return
        self._writer = threading.Thread(
            target=self._write_and_remember, args=(step, arrays, metrics or {})
        )
        self._writer.start()

    def wait(self) -> None:
        """Wait for the pending write and raise its error, if any."""
        if self._writer:
            self._writer.join()
            self._writer = None
        failure, self._failure = self._failure, None
        if failure:
            raise failure

    def latest(self) -> Checkpoint | None:
        """Return the newest intact checkpoint, None when there is none."""
        return next(iter(self._good()), None)

    def best(self, *, verify: bool = True) -> Checkpoint | None:
        """Return the checkpoint with the best metric (the later of equals), None without one.

        Args:
          verify: whether to skip damaged checkpoints, which reads all files of all checkpoints.
        """
        return self._best_of(self._good() if verify else self._complete())

    def add_metrics(self, checkpoint: Checkpoint, metrics: Mapping[str, float]) -> None:
        """Write metrics into the manifest of an existing checkpoint."""
        try:
            manifest = _read_manifest(checkpoint.path)
            if manifest is None:
                raise OSError("it no longer exists")
            measured = self._evaluation_entries(checkpoint.step, metrics)
            _write_manifest(checkpoint.path, {**manifest, **measured})
        except (OSError, tf.errors.OpError) as error:
            raise CheckpointError(
                f"{checkpoint.path}: its metrics can't be written ({first_line(error)})"
            ) from error

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, ascending, without checking their checksums."""
        return sorted(checkpoint.step for checkpoint in self._complete())

    def find(self, step: int) -> Checkpoint | None:
        """Return the intact checkpoint of a step, None when there is none."""
        path = self._folders().get(step)
        return _examine(path, step)[0] if path else None

    def _good(self) -> Iterator[Checkpoint]:
        """Yield the intact checkpoints, newest first, each checked when it is reached."""
        for step, path in sorted(self._folders().items(), reverse=True):
            checkpoint, problem = _examine(path, step)
            if checkpoint:
                yield checkpoint
            else:
                self._log(f"{path}: {problem}; taking an earlier checkpoint")

    def _complete(self) -> Iterator[Checkpoint]:
        """Yield the complete checkpoints, without checking their checksums."""
        for step, path in self._folders().items():
            if manifest := _read_manifest(path):
                yield _checkpoint(path, step, manifest)

    def _best_of(self, checkpoints: Iterable[Checkpoint]) -> Checkpoint | None:
        name = self._best_metric
        measured = [c for c in checkpoints if not math.isnan(c.metrics.get(name, math.nan))]
        return max(measured, key=lambda c: (c.metrics[name], c.step), default=None)

    def _evaluation_entries(self, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        """Return the part of a manifest that an evaluation determines."""
        # Of equals the later is kept, so it must remember since when nothing was better.
        best = self._best_of(c for c in self._complete() if c.step < step)
        name = self._best_metric
        equal = best if best and best.metrics[name] == metrics.get(name) else None
        return {"metrics": dict(metrics), "best_since": equal.best_since if equal else step}

    def _folders(self) -> dict[int, str]:
        if not tf.io.gfile.isdir(self.directory):
            return {}
        names = [name.rstrip("/") for name in tf.io.gfile.listdir(self.directory)]
        matches = [m for m in map(_STEP_FOLDER.fullmatch, names) if m]
        return {int(m[1]): posixpath.join(self.directory, m[0]) for m in matches}

    def _write_and_remember(self, *args: Any) -> None:
        try:
            self._write(*args)
        except Exception as error:
            self._failure = error

    def _write(self, step: int, arrays: Arrays, metrics: Mapping[str, float]) -> None:
        path = posixpath.join(self.directory, f"step_{step:08d}")
        try:
            _write_checkpoint(path, step, arrays, self._evaluation_entries(step, metrics))
        except (OSError, tf.errors.OpError) as error:
            needed = sum(np.asarray(a).nbytes for a in arrays.values()) / 2**20
            with contextlib.suppress(tf.errors.OpError):
                tf.io.gfile.rmtree(path)  # an incomplete checkpoint only takes space
            raise CheckpointError(
                f"{path}: can't be written ({first_line(error)}); {needed:.0f} MiB are needed. "
                "Free space or give another --model_dir; earlier checkpoints are untouched"
            ) from error
        self._drop_old()

    def _drop_old(self) -> None:
        manifests = {
            step: manifest
            for step, path in self._folders().items()
            if (manifest := _read_manifest(path))
        }
        name = self._best_metric
        figures = {step: m["metrics"].get(name, math.nan) for step, m in manifests.items()}
        values = {step: figure for step, figure in figures.items() if not math.isnan(figure)}
        kept = sorted(manifests)[-self._keep :]
        if values:
            kept.append(max(values, key=lambda step: (values[step], step)))
        newest = max(manifests, default=0)
        for step, path in self._folders().items():
            if step not in kept and step < newest:
                # The manifest first: a folder that is partly deleted must not look intact.
                if step in manifests:
                    tf.io.gfile.remove(posixpath.join(path, _MANIFEST))
                tf.io.gfile.rmtree(path)


def newest_checkpoint(model_dir: str) -> Checkpoint | None:
    """Return the newest intact checkpoint of a run, whatever it is compared by; None when there is none."""
    return CheckpointStore(model_dir, best_metric="").latest()


def best_checkpoint(
    model_dir: str, best_metric: str, *, log: Log = lambda line: None
) -> Checkpoint:
    """Return the best intact checkpoint of a run, or the newest when none was evaluated.

    Args:
      model_dir: of the run, local or gs://.
      best_metric: see CheckpointStore.
      log: called with a line for each checkpoint that is skipped.

    Raises:
      CheckpointError: there is none.
    """
    store = CheckpointStore(model_dir, best_metric=best_metric, log=log)
    checkpoint = store.best() or store.latest()
    if not checkpoint:
        raise CheckpointError(
            f"{store.directory}: no checkpoint here; train first, or give another --model_dir"
        )
    return checkpoint


def check_checkpoint(path: str) -> None:
    """Check the files of the checkpoint in a folder against its manifest.

    Raises:
      CheckpointError: there is no manifest, or a file is damaged.
    """
    _, problem = _examine(path, 0)
    if problem:
        raise CheckpointError(f"{path}: {problem}; give another checkpoint")


def _write_checkpoint(path: str, step: int, arrays: Arrays, measured: Mapping[str, Any]) -> None:
    if tf.io.gfile.exists(path):
        tf.io.gfile.rmtree(path)  # incomplete, or of a run that was resumed from an earlier step
    tf.io.gfile.makedirs(path)
    names = sorted(arrays)
    with tf.device("CPU:0"):
        tf.raw_ops.SaveV2(
            prefix=posixpath.join(path, _PREFIX),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=[tf.constant(arrays[name]) for name in names],
        )
    files = {name: fingerprint(posixpath.join(path, name)) for name in tf.io.gfile.listdir(path)}
    _write_manifest(path, {"step": step, **measured, "files": files})


def _examine(path: str, step: int) -> tuple[Checkpoint | None, str]:
    """Return the checkpoint in a folder and "", or None and what is wrong with it."""
    try:
        manifest = _read_manifest(path)
        if manifest is None:
            return None, "half-written (no manifest)"
        for name, expected in manifest["files"].items():
            if fingerprint(posixpath.join(path, name)) != expected:
                return None, f"damaged ({name} does not match its checksum)"
    except (OSError, tf.errors.OpError) as error:
        return None, f"unreadable ({first_line(error)})"
    return _checkpoint(path, step, manifest), ""


def _checkpoint(path: str, step: int, manifest: Mapping[str, Any]) -> Checkpoint:
    return Checkpoint(path, step, manifest["metrics"], manifest.get("best_since", step))


def _read_manifest(path: str) -> dict[str, Any] | None:
    try:
        with tf.io.gfile.GFile(posixpath.join(path, _MANIFEST)) as file:
            manifest = json.loads(file.read())
        return manifest if manifest.pop("sha256") == _digest(manifest) else None
    except (tf.errors.NotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write_manifest(path: str, manifest: dict[str, Any]) -> None:
    signed = {**manifest, "sha256": _digest(manifest)}
    write_text(posixpath.join(path, _MANIFEST), json.dumps(signed, indent=1))


def _digest(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest's content, which detects a damaged one."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
