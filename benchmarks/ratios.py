"""Compute ratios of two series measured in turns, with the error of their median."""

import dataclasses

import numpy as np

RESAMPLINGS = 1000
SEED = 1


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A median of paired ratios with its 95 % interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def ratio_interval(one: np.ndarray, other: np.ndarray) -> Ratio:
    """Compute the median of one[i] / other[i] and its 95 % interval from 1,000 resamplings.

    Args:
      one: float [n], a figure of each round.
      other: float [n], the other side's figure of the same rounds.
    """
    ratios, medians = _resampled_medians(one, other)
    low, high = np.percentile(medians, [2.5, 97.5])
    return Ratio(float(np.median(ratios)), float(low), float(high))


def median_ratio(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Compute the median of one[i] / other[i], both [n], and its standard error from 1,000 resamplings."""
    ratios, medians = _resampled_medians(one, other)
    return float(np.median(ratios)), float(np.std(medians))


def _resampled_medians(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ratios = one / other
    places = np.random.default_rng(SEED).integers(0, len(ratios), [RESAMPLINGS, len(ratios)])
    return ratios, np.median(ratios[places], axis=1)
