"""TrainState: everything that training changes, as one tree of variables with stable names.

It does not hold the input's position: the stream of batches is a function of the seed and the step.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from training.devices.distribution import Distribution
from training.optimizers import Optimizer
from training.step.loss_scale import INITIAL_SCALE, LossScale
from training.step.packed import pack, unpack

WeightsKind = Literal["ema", "raw"]  # the moving average, or the last weights


class Values(NamedTuple):
    """The values that a training step reads and returns: tensors in a step, variables in a TrainState."""

    step: Any  # int32 [], updates made
    weights: list[Any]  # trainables of the network, float32
    statistics: list[Any]  # batch norm's moving averages, float32
    slots: dict[str, Any]  # the optimizer's, each like the packed `weights` or a float32 []
    ema: Any  # average of the packed `weights` and `statistics`; () without averaging
    loss_scale: LossScale | tuple[()]  # for float16 only
    # int32 [], number of non-finite steps that may still be skipped. Below 0 training has halted: later
    # steps change nothing, so that the state is that before the failed step. () never halts. Not in
    # checkpoints: each start of the program has all its skips.
    skips_left: Any = ()


@dataclasses.dataclass(frozen=True)
class TrainState:
    """The network and the variables of its training, replicated."""

    network: keras.Model
    variables: Values

    def read(self) -> Values:
        """Return the current values as tensors; inside strategy.run, those of this replica."""
        return tf.nest.map_structure(tf.convert_to_tensor, self.variables)

    @property
    def has_average(self) -> bool:
        """Whether the run keeps a moving average of its weights."""
        return not isinstance(self.variables.ema, tuple)

    def read_network(self, kind: WeightsKind) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Return weights and statistics to evaluate or export: the average ("ema") or the last ("raw").

        Raises:
          ValueError: `kind` is "ema" and the run keeps no average.
        """
        values = self.variables
        if kind == "raw":
            return (
                [tf.convert_to_tensor(v) for v in values.weights],
                [tf.convert_to_tensor(v) for v in values.statistics],
            )
        if not self.has_average:
            raise ValueError("weights=ema: this run keeps no average (ema.decay is 0); take raw")
        tensors = unpack(tf.convert_to_tensor(values.ema), values.weights + values.statistics)
        return tensors[: len(values.weights)], tensors[len(values.weights) :]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return every value by name, for a checkpoint: `network/stem_conv/kernel`, `ema/...`."""
        values = self.variables
        weights, statistics = values.weights, values.statistics
        arrays = {"step": values.step.numpy()}
        arrays |= self._arrays_by_path("network", [v.numpy() for v in weights + statistics])
        for slot, value in values.slots.items():
            if value.shape.rank:
                arrays |= self._arrays_by_path(f"optimizer/{slot}", _split(value.numpy(), weights))
            else:
                arrays[f"optimizer/{slot}"] = value.numpy()
        if self.has_average:
            arrays |= self._arrays_by_path("ema", _split(values.ema.numpy(), weights + statistics))
        if values.loss_scale:
            named = values.loss_scale._asdict().items()
            arrays |= {f"loss_scale/{name}": variable.numpy() for name, variable in named}
        return arrays

    def from_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set every value from the arrays of `to_arrays`; names and shapes must match exactly.

        Raises:
          ValueError: an array is missing, unknown or of another shape; the message lists them.
        """
        present = self.to_arrays()
        problems = [f"{name} is missing" for name in present if name not in arrays]
        problems += [f"{name} is unknown" for name in arrays if name not in present]
        problems += [
            f"{name} is {arrays[name].shape}, not {present[name].shape}"
            for name in present
            if name in arrays and arrays[name].shape != present[name].shape
        ]
        if problems:
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise ValueError("; ".join(problems[:3]) + more)
        values = self.variables
        network = [arrays[f"network/{path}"] for path in self.paths]
        for variable, array in zip(values.weights + values.statistics, network, strict=True):
            variable.assign(array)
        values.step.assign(arrays["step"])
        for slot, value in values.slots.items():
            paths = self.paths[: len(values.weights)]
            if value.shape.rank:
                value.assign(_join(arrays[f"optimizer/{slot}/{path}"] for path in paths))
            else:
                value.assign(arrays[f"optimizer/{slot}"])
        if self.has_average:
            values.ema.assign(_join(arrays[f"ema/{path}"] for path in self.paths))
        if values.loss_scale:
            for name, variable in values.loss_scale._asdict().items():
                variable.assign(arrays[f"loss_scale/{name}"])

    def _arrays_by_path(self, prefix: str, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
        # Without strict: the optimizer has slots for the weights, which come first, and no others.
        return {f"{prefix}/{path}": a for path, a in zip(self.paths, arrays, strict=False)}

    @property
    def paths(self) -> list[str]:
        """Names of the network's weights, then of its statistics; the same at each build."""
        network = self.network
        return [v.path for v in network.trainable_variables + network.non_trainable_variables]


def create_train_state(
    network: keras.Model,
    distribution: Distribution,
    *,
    optimizer: Optimizer,
    with_ema: bool,
    with_loss_scale: bool,
    skips_allowed: int | None = None,
) -> TrainState:
    """Create the variables to train `network`, which was built in the strategy's scope.

    The average starts at the current weights. `skips_allowed` is the number of non-finite steps that are
    skipped before training halts; None skips all.
    """
    weights = [v.value for v in network.trainable_variables]
    statistics = [v.value for v in network.non_trainable_variables]
    with distribution.strategy.scope():

        def packed_variable(tensors: list[tf.Tensor]) -> tf.Variable:
            return tf.Variable(pack(tensors), trainable=False)

        return TrainState(
            network,
            Values(
                step=tf.Variable(0, trainable=False, dtype=tf.int32),
                weights=weights,
                statistics=statistics,
                slots={
                    slot: packed_variable([tf.fill(w.shape, start) for w in weights])
                    for slot, start in optimizer.initial_slots.items()
                }
                | {
                    name: tf.Variable(start, trainable=False, dtype=tf.float32)
                    for name, start in optimizer.initial_counts.items()
                },
                ema=packed_variable([tf.convert_to_tensor(v) for v in weights + statistics])
                if with_ema
                else (),
                loss_scale=LossScale(
                    tf.Variable(INITIAL_SCALE, trainable=False),
                    tf.Variable(0, trainable=False, dtype=tf.int32),
                )
                if with_loss_scale
                else (),
                skips_left=()
                if skips_allowed is None
                else tf.Variable(skips_allowed, trainable=False, dtype=tf.int32),
            ),
        )


def _split(vector: np.ndarray, like: list[tf.Variable]) -> list[np.ndarray]:
    ends = np.cumsum([v.shape.num_elements() for v in like])
    parts = np.split(vector, ends[:-1])
    return [part.reshape(v.shape) for part, v in zip(parts, like, strict=True)]


def _join(arrays: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([a.reshape(-1) for a in arrays])
