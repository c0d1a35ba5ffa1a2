"""Measure data pipelines side by side on a processor whose speed drifts.

Pipelines run in turns, round after round, and are compared within a round. Long turns measure images per
second; short ones, from pipelines at rest, measure ratios of processor time with little error.
"""

import dataclasses
import random
import statistics
import sys
import time
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from benchmarks.turn_server import processor_time_at_rest

ELEMENTS_AHEAD = 8  # before the clock starts: more than a pipeline makes ahead
SHORT_TURN = 3  # elements
ORDER_SEED = 1


@dataclasses.dataclass(frozen=True)
class PipelineSpeed:
    """The figures of each round, and their medians."""

    rounds: tuple[tuple[float, float], ...]  # images/s, and processor ms per image

    @property
    def images_per_second(self) -> float:
        """Of wall time."""
        return statistics.median(wall for wall, _ in self.rounds)

    @property
    def processor_ms(self) -> float:
        """Per image, of all threads."""
        return statistics.median(processor for _, processor in self.rounds)


def measure_in_turns(
    datasets: Mapping[str, tf.data.Dataset], images_per_element: int, elements: int, rounds: int
) -> dict[str, PipelineSpeed]:
    """Iterate every dataset for so many elements, one after the other, round after round.

    Datasets are endless, so as much is prefetched when the clock stops as when it starts.
    """
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in datasets}
    for number in range(rounds):
        for name, dataset in datasets.items():
            print(f"\rround {number + 1} of {rounds}: {name:<40}", end="", file=sys.stderr)
            iterator = iter(dataset)
            for _ in range(ELEMENTS_AHEAD):
                next(iterator)
            wall, processor = time.perf_counter(), time.process_time()
            for _ in range(elements):
                next(iterator)
            images = elements * images_per_element
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            runs[name].append((images / wall, 1e3 * processor / images))
            del iterator  # stops its prefetching
    print(f"\r{'':<60}\r", end="", file=sys.stderr)
    return {name: PipelineSpeed(tuple(figures)) for name, figures in runs.items()}


def measure_in_short_turns(
    datasets: Mapping[str, tf.data.Dataset], images_per_element: int, rounds: int
) -> dict[str, np.ndarray]:
    """Measure processor milliseconds per image of every turn, float [rounds].

    Before and after a turn all pipelines rest with full buffers, so a turn makes as much as is taken.
    """
    iterators = {name: iter(dataset) for name, dataset in datasets.items()}
    for iterator in iterators.values():
        for _ in range(ELEMENTS_AHEAD):
            next(iterator)
    turns: dict[str, list[float]] = {name: [] for name in datasets}
    order, shuffle = list(datasets), random.Random(ORDER_SEED).shuffle
    for number in range(rounds):
        shuffle(order)
        for name in order:
            print(f"\rround {number + 1} of {rounds}: {name:<40}", end="", file=sys.stderr)
            before = processor_time_at_rest()
            for _ in range(SHORT_TURN):
                next(iterators[name])
            used = processor_time_at_rest() - before
            turns[name].append(1e3 * used / (SHORT_TURN * images_per_element))
    print(f"\r{'':<60}\r", end="", file=sys.stderr)
    return {name: np.array(figures) for name, figures in turns.items()}
