"""Diagnosis of a step that is not finite: saved for replay, and analysed layer by layer.

    MODEL_DIR/nonfinite/step-00000123.npz

holds the state before the step and its batch, as plain arrays. `diagnose` repeats that step on one device,
each replica's share with its own masks, and summarizes the tensors of every layer. The repeated step is only
similar if batch norm spans several replicas, because the statistics are those of one share, or if there
are several processes, because each keeps the shares of its own replicas.
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
from tasks.task import Batch, Task
from training.build import make_recipe, make_state
from training.devices.distribution import Distribution, connect
from training.job import Job, make_job
from training.step.backward import Scale, micro_batch_loss
from training.step.padding import network_input
from training.step.recipe import Partition, TrainRecipe
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
    job = make_job(experiment, info, connect("cpu"))
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
    recipe = make_recipe(job, state.network, noise)
    shares = list(_shares(incident, recipe.task, train.accumulation_steps))
    probe = _make_probe(state, recipe, layers, shares)
    results = [probe(*share, None) for share in shares]
    if results[0].added_up:
        # Sums over replicas: there is one micro-batch, for accumulation is refused with such a loss.
        sums = [tf.add_n(parts) for parts in zip(*(r.added_up for r in results), strict=True)]
        results = [probe(*share, sums) for share in shares]
    seen = [result.figures.numpy() for result in results]
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
    return Diagnosis(float(sum(result.loss for result in results)), found)


class _Share(NamedTuple):
    """A micro-batch of a replica, from the task's `prepare`."""

    batch: Batch
    replica: tf.Tensor
    micro_step: int


class _Result(NamedTuple):
    """Result of a share: its part of the loss and of the sums over replicas that the task asks for."""

    loss: tf.Tensor
    added_up: list[tf.Tensor]
    figures: tf.Tensor  # summaries, float32 [layers, 3, 3]


def _shares(incident: Incident, task: Task, accumulation_steps: int) -> Iterator[_Share]:
    """Yield each micro-batch of each replica."""
    parts = incident.num_replicas * accumulation_steps
    batch = task.prepare({name: x for name, x in incident.batch.items() if name != "index"})
    split = {name: tf.split(x, parts) for name, x in batch.items()}
    for i in range(parts):
        replica, micro_step = divmod(i, accumulation_steps)
        number = tf.constant(incident.first_replica + replica)
        yield _Share({name: x[i] for name, x in split.items()}, number, micro_step)


def _make_probe(
    state: TrainState,
    recipe: TrainRecipe,
    layers: Sequence[keras.Layer],
    shares: Sequence[_Share],
) -> Callable[..., _Result]:
    """Return a function (batch, replica, micro-batch, sums) -> result of this share.

    `sums` are those over all replicas of what the task adds up; None: only this share's part is known.
    """
    network = state.network
    inside = keras.Model(network.input, ([layer.output for layer in layers], network.output))
    weights = [v.value for v in network.trainable_variables]
    variables = Partition.of(network, recipe.frozen)
    factor = state.variables.loss_scale.scale if state.variables.loss_scale else 1.0
    weight = sum(recipe.task.weight(share.batch) for share in shares)

    @tf.function(autograph=False)
    def probe(
        batch: Batch, replica: tf.Tensor, micro_step: int, sums: list[tf.Tensor] | None
    ) -> _Result:
        added_up: list[tf.Tensor] = []

        def total(x: tf.Tensor) -> tf.Tensor:
            added_up.append(tf.stop_gradient(x))
            return sums[len(added_up) - 1] if sums else added_up[-1]

        scale = Scale(share=1 / len(shares), weight=weight, total=total)
        with (
            recipe.noise.at(state.variables.step, replica, micro_step),
            tf.GradientTape() as tape,
        ):
            with switched(network, recipe.frozen, recipe.keep_probabilities):
                inputs = network_input(batch, recipe.normalize)
                activations, outputs = inside(inputs, training=True)
            trained = variables.weights.choose(weights, variables.trained)
            named = dict(zip(variables.trained.names, trained, strict=True))
            loss, _ = micro_batch_loss(outputs, batch, named, recipe, scale)
            target = loss * factor
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
        return _Result(loss, added_up, tf.stack(figures))

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
