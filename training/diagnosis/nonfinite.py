"""Diagnosis of a step that is not finite: saved for replay, and analysed layer by layer.

    MODEL_DIR/nonfinite/step-00000123.npz

holds the state before the step and its batch, as plain arrays. `diagnose` repeats that step on one device,
each replica's share with its own masks, and summarizes the tensors of every layer. If batch norm spans
several replicas, the repeated step is only similar, because the statistics are those of one share.
"""

import dataclasses
import io
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from configs.schema import Experiment
from input_pipeline.sources.dataset_info import read_dataset_info
from system.errors import UserError, first_line
from system.files import write_bytes
from training.build import make_recipe, make_state
from training.devices.distribution import Distribution, connect
from training.job import Job, make_job, model_spec
from training.step.noise import MaskNoise
from training.step.padding import network_input
from training.step.recipe import Partition
from training.step.state import TrainState
from training.step.switches import switched

FOLDER = "nonfinite"
_FILE = re.compile(r"step-(\d{8,})(-worker-\d+)?\.npz")


class ReplayError(UserError):
    """No saved step, or one that cannot be replayed."""


class Incident(NamedTuple):
    """A step that was not finite, as one process saw it."""

    step: int
    state: Mapping[str, np.ndarray]  # before the step, see TrainState.to_arrays
    batch: Mapping[
        str, np.ndarray
    ]  # "image", "label", "index": the shares of its replicas, in order
    first_replica: int  # number of the replica with the first share
    num_replicas: int  # that share the batch
    precision: str  # Keras' dtype policy

    def examples(self) -> str:
        """Return the indices of the first eight images and the number of the others."""
        numbers = [int(i) for i in self.batch["index"]]
        more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
        return f"examples {', '.join(map(str, numbers[:8]))}{more}"

    def save(self, model_dir: str, host_index: int) -> str:
        """Save atomically; return the path."""
        worker = f"-worker-{host_index}" if host_index else ""
        path = posixpath.join(model_dir, FOLDER, f"step-{self.step:08d}{worker}.npz")
        about = {
            "step": self.step,
            "first_replica": self.first_replica,
            "num_replicas": self.num_replicas,
            "precision": self.precision,
        }
        groups: dict[str, Mapping[str, Any]] = {
            "about": about,
            "state": self.state,
            "batch": self.batch,
        }
        arrays: dict[str, Any] = {
            f"{group}/{name}": value
            for group, named in groups.items()
            for name, value in named.items()
        }
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        write_bytes(path, content.getvalue())
        return path

    @classmethod
    def load(cls, path: str) -> "Incident":
        """Load a file written by `save`.

        Raises:
          ReplayError: it is another kind of file, or damaged.
        """
        groups: dict[str, dict[str, Any]] = {"about": {}, "state": {}, "batch": {}}
        try:
            with tf.io.gfile.GFile(path, "rb") as file:
                archive = np.load(io.BytesIO(file.read()), allow_pickle=False)
            for name in archive.files:
                group, _, rest = name.partition("/")
                groups[group][rest] = archive[name]
            about = groups["about"]
            return cls(
                int(about["step"]),
                groups["state"],
                groups["batch"],
                int(about["first_replica"]),
                int(about["num_replicas"]),
                str(about["precision"]),
            )
        except Exception as error:  # zipfile, zlib and NumPy each have their own classes
            raise ReplayError(
                f"{path}: not a step kept for replay, or damaged ({error})"
            ) from error


def kept_incidents(model_dir: str) -> list[str]:
    """Return the paths of the steps saved for replay, oldest first."""
    folder = posixpath.join(model_dir, FOLDER)
    if not tf.io.gfile.isdir(folder):
        return []
    return [
        posixpath.join(folder, n) for n in sorted(tf.io.gfile.listdir(folder)) if _FILE.match(n)
    ]


class TensorSummary(NamedTuple):
    """Summary of a tensor: non-finite values, all values, and the largest finite magnitude."""

    broken: int
    size: int
    largest: float

    def __str__(self) -> str:
        return f"{self.broken:,} of {self.size:,} values" if self.broken else f"{self.largest:.3g}"


class LayerSummary(NamedTuple):
    """Summary of a layer: weights before the step, outputs, and the gradients of both."""

    name: str
    weights: TensorSummary
    activations: TensorSummary
    gradients: TensorSummary
    weight_gradients: TensorSummary


class Diagnosis(NamedTuple):
    """The loss and every layer, in forward order, over all shares of the batch."""

    loss: float
    layers: Sequence[LayerSummary]

    def first(self) -> str:
        """Say where values are first not finite: in the weights, the forward or the backward pass."""
        for what in ("weights", "activations"):
            for layer in self.layers:
                if (summary := getattr(layer, what)).broken:
                    return f"first in the {what} of {layer.name} ({summary})"
        if not np.isfinite(self.loss):
            return f"first in the loss ({self.loss:g})"
        for layer in reversed(self.layers):
            for what in ("gradients", "weight_gradients"):
                if (summary := getattr(layer, what)).broken:
                    return f"first in the {what.replace('_', ' ')} of {layer.name} ({summary})"
        worst = max(self.layers, key=lambda layer: layer.weight_gradients.largest)
        return (
            "in no single layer: the norm of all gradients overflows; the largest gradient is in "
            f"{worst.name} ({worst.weight_gradients.largest:.3g})"
        )


def keep_and_diagnose(
    job: Job, state: TrainState, make_dataset: Callable[[int, int], tf.data.Dataset]
) -> str:
    """Save the step after `state` for replay, and return a line that says where it is first not finite.

    Args:
      job: job of the run.
      state: state before the step.
      make_dataset: takes (host_index, num_hosts) and returns batches from that step on.
    """
    distribution = job.distribution
    replicas = distribution.num_replicas // distribution.num_processes
    arrays = state.to_arrays()
    incident = Incident(
        step=int(arrays["step"]),
        state=arrays,
        batch=_own_batch(make_dataset, distribution),
        first_replica=distribution.host_index * replicas,
        num_replicas=replicas,
        precision=job.precision,
    )
    try:
        path = incident.save(job.model_dir, distribution.host_index)
        kept = f"kept in {path} for --mode=replay"
    except (OSError, tf.errors.OpError) as error:
        kept = f"cannot be kept for replay ({first_line(error)})"
    try:
        where = diagnose(job, incident).first()
    except (tf.errors.OpError, MemoryError) as error:
        where = f"too little memory to find the layer ({first_line(error)})"
    return f"{where}; {incident.examples()}; {kept}"


def _own_batch(
    make_dataset: Callable[[int, int], tf.data.Dataset], distribution: Distribution
) -> dict[str, np.ndarray]:
    """Return the shares of this process' replicas in the first batch."""
    one_of_many = distribution.num_processes > 1
    hosts = [distribution.host_index] if one_of_many else range(distribution.num_hosts)
    parts = [next(iter(make_dataset(host, distribution.num_hosts))) for host in hosts]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def replay(experiment: Experiment) -> tuple[Incident, Diagnosis]:
    """Repeat the latest step that was saved in model_dir.

    Raises:
      ReplayError: no step was saved, or it is damaged or of another network.
    """
    paths = kept_incidents(str(experiment.model_dir))
    if not paths:
        raise ReplayError(
            f"{experiment.model_dir}/{FOLDER}: nothing to replay; every step was finite, or skipped"
        )
    incident, info = Incident.load(paths[-1]), read_dataset_info(str(experiment.model_dir))
    job = make_job(experiment, model_spec(experiment), info, connect("cpu"))
    try:
        return incident, diagnose(job.at(incident.step), incident)
    except ValueError as error:
        raise ReplayError(f"{paths[-1]}: not of this experiment ({error})") from error


def diagnose(job: Job, incident: Incident) -> Diagnosis:
    """Repeat the step of `incident` on one device and summarize every layer.

    Raises:
      ValueError: the state is of another network.
      tf.errors.OpError: the device has too little memory.
    """
    train = job.experiment.train.model_copy(update={"precision": incident.precision})
    experiment = job.experiment.model_copy(update={"train": train})
    job = dataclasses.replace(job, experiment=experiment, distribution=connect("cpu"))
    state, noise = make_state(job)
    state.from_arrays(incident.state)
    layers = [layer for layer in state.network.layers if layer.output is not state.network.input]
    weights = [_summarize(layer.weights) for layer in layers]
    probe = _make_probe(job, state, noise, layers)
    seen: list[np.ndarray] = []
    losses: list[float] = []
    for replica, micro_step, batch in _shares(incident, train.accumulation_steps):
        loss, figures = probe(batch, tf.constant(replica), micro_step)
        losses.append(float(loss))
        seen.append(figures.numpy())
    # [shares, layers, 3 kinds of tensor, (broken, size, largest)]
    counts = np.stack(seen)[..., :2].sum(axis=0)
    largest = np.stack(seen)[..., 2].max(axis=0)
    found = [
        LayerSummary(
            layer.name,
            held,
            *(
                TensorSummary(
                    int(counts[i, kind, 0]), int(counts[i, kind, 1]), float(largest[i, kind])
                )
                for kind in range(3)
            ),
        )
        for i, (layer, held) in enumerate(zip(layers, weights, strict=True))
    ]
    return Diagnosis(float(np.mean(losses)), found)


def _shares(incident: Incident, accumulation_steps: int) -> Iterator[tuple[int, int, Any]]:
    """Yield replica, number and content of each micro-batch of each replica."""
    parts = incident.num_replicas * accumulation_steps
    split = {name: np.split(x, parts) for name, x in incident.batch.items() if name != "index"}
    for i in range(parts):
        replica, micro_step = divmod(i, accumulation_steps)
        yield (
            incident.first_replica + replica,
            micro_step,
            {name: x[i] for name, x in split.items()},
        )


def _make_probe(
    job: Job,
    state: TrainState,
    noise: MaskNoise,
    layers: Sequence[keras.Layer],
) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Return a function (batch, replica, micro-batch) -> loss, summaries float32 [layers, 3, 3]."""
    network, recipe = state.network, make_recipe(job, state.network, noise)
    inside = keras.Model(network.input, ([layer.output for layer in layers], network.output))
    weights = [v.value for v in network.trainable_variables]
    variables = Partition.of(network, recipe.frozen)
    task, decay = recipe.task, recipe.weight_decay
    scale = state.variables.loss_scale.scale if state.variables.loss_scale else 1.0

    @tf.function(autograph=False)
    def probe(batch: Any, replica: tf.Tensor, micro_step: int) -> Any:
        with (
            noise.at(state.variables.step, replica, micro_step),
            tf.GradientTape() as tape,
        ):
            with switched(network, recipe.frozen, recipe.keep_probabilities):
                inputs = network_input(batch, recipe.normalize)
                activations, outputs = inside(inputs, training=True)
            batch = task.prepare(batch)
            loss, _ = task.loss(outputs, batch, task.weight(batch), total=lambda x: x)
            # Frozen weights do not decay, as in the step.
            trained = variables.weights.choose(weights, variables.trained)
            loss += decay.loss(variables.trained.names, trained)
            target = loss * scale
        gradients = tape.gradient(
            target, [activations, weights], unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        of_weight = {
            variable.path: gradient
            for variable, gradient in zip(network.trainable_variables, gradients[1], strict=True)
        }
        figures = [
            tf.stack(
                [
                    _figures([activation]),
                    _figures([gradient]),
                    _figures([of_weight[v.path] for v in layer.trainable_variables]),
                ]
            )
            for layer, activation, gradient in zip(layers, activations, gradients[0], strict=True)
        ]
        return loss, tf.stack(figures)

    return probe


def _summarize(tensors: Sequence[Any]) -> TensorSummary:
    broken, size, largest = _figures([tf.convert_to_tensor(t) for t in tensors]).numpy()
    return TensorSummary(int(broken), int(size), float(largest))


def _figures(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Count non-finite and all values, and find the largest finite magnitude: float32 [3]."""
    flat = [tf.reshape(tf.cast(t, tf.float32), [-1]) for t in tensors]
    values = tf.concat([*flat, tf.zeros([0])], 0)
    finite = tf.math.is_finite(values)
    largest = tf.reduce_max(tf.concat([tf.abs(tf.where(finite, values, 0.0)), [0.0]], 0))
    broken = tf.reduce_sum(tf.cast(~finite, tf.float32))
    return tf.stack([broken, tf.cast(tf.size(values), tf.float32), largest])
