"""Lists of tensors packed into one vector, on which the optimizer and the averages work.

B0 has 213 weights and 98 statistics: tensor by tensor, an update is 6,000 small operations a replica,
most of the time to trace a step and much of the time to run it on small images. The layout gives an
optimizer access to single variables: their names, norms and rates.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def pack(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Join all elements of float32 `tensors`, one tensor after the other: float32 [elements]."""
    if not tensors:
        return tf.zeros([0])
    return tf.concat([tf.reshape(t, [-1]) for t in tensors], 0)


def unpack(vector: tf.Tensor, like: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Undo `pack`, given tensors or variables of the shapes that were packed."""
    if not like:
        return []
    parts = tf.split(vector, [t.shape.num_elements() for t in like])
    return [tf.reshape(part, t.shape) for part, t in zip(parts, like, strict=True)]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Positions of variables in a vector: their names and numbers of elements, in order."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, variables: Sequence[Any]) -> "Layout":
        """Return the layout of packed Keras variables."""
        return cls(tuple(v.path for v in variables), tuple(math.prod(v.shape) for v in variables))

    def without(self, names: frozenset[str]) -> "Layout":
        """Return this layout without the variables `names`."""
        kept = [pair for pair in zip(self.names, self.sizes, strict=True) if pair[0] not in names]
        return (
            Layout(*(tuple(column) for column in zip(*kept, strict=True)))
            if kept
            else Layout((), ())
        )

    def choose(self, values: Sequence[Any], part: "Layout") -> list[Any]:
        """Select from `values`, one for each variable, those of `part`."""
        inside = frozenset(part.names)
        return [x for x, name in zip(values, self.names, strict=True) if name in inside]

    def replace(self, values: Sequence[Any], part: "Layout", new: Sequence[Any]) -> list[Any]:
        """Replace in `values`, one for each variable, those of `part` by `new`."""
        of_part = dict(zip(part.names, new, strict=True))
        return [of_part.get(name, x) for x, name in zip(values, self.names, strict=True)]

    def take(self, vector: tf.Tensor, part: "Layout") -> tf.Tensor:
        """Select the elements of `vector` (of this layout) that belong to `part`, in the same order."""
        if part == self:
            return vector
        runs = self._runs(part)
        pieces = tf.split(vector, [size for _, size in runs])
        kept = [piece for (inside, _), piece in zip(runs, pieces, strict=True) if inside]
        return tf.concat(kept, 0) if kept else vector[:0]

    def put(self, vector: tf.Tensor, part: "Layout", values: tf.Tensor) -> tf.Tensor:
        """Replace the elements of `vector` that belong to `part` by `values`, of the layout `part`."""
        if part == self:
            return values
        if not part.names:
            return vector
        runs = self._runs(part)
        old = tf.split(vector, [size for _, size in runs])
        new = iter(tf.split(values, [size for inside, size in runs if inside]))
        return tf.concat([next(new) if run[0] else o for run, o in zip(runs, old, strict=True)], 0)

    def _runs(self, part: "Layout") -> list[tuple[bool, int]]:
        """Group neighbours by whether they are in `part`: (whether they are, their elements)."""
        inside = frozenset(part.names)
        flags = zip((name in inside for name in self.names), self.sizes, strict=True)
        groups = itertools.groupby(flags, key=lambda pair: pair[0])
        return [(flag, sum(size for _, size in group)) for flag, group in groups]


@dataclasses.dataclass(frozen=True)
class Packed:
    """A vector, float32 [elements], with its layout."""

    vector: tf.Tensor
    layout: Layout

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the variables, in their order."""
        return self.layout.names

    def norms(self) -> tf.Tensor:
        """Compute the L2 norm of each variable: float32 [variables]."""
        return tf.stack([tf.norm(part) for part in tf.split(self.vector, self.layout.sizes)])

    def spread(self, values: tf.Tensor | np.ndarray) -> tf.Tensor:
        """Repeat a number for each variable over its elements: float32 [variables] -> [elements].

        Numbers known when the graph is built become a few fills. tf.repeat would build a mask of
        variables x largest variable, and a graph must not contain a constant of the vector's length.
        """
        if isinstance(values, np.ndarray):
            pairs = zip(values.tolist(), self.layout.sizes, strict=True)
            groups = itertools.groupby(pairs, key=lambda pair: pair[0])
            fills = [tf.fill([sum(size for _, size in group)], value) for value, group in groups]
            return tf.concat(fills, 0)
        parts = zip(tf.unstack(values), self.layout.sizes, strict=True)
        return tf.concat([tf.fill([size], value) for value, size in parts], 0)
