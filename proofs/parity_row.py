"""One compared item of `proofs.parity`, and how far arrays differ."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class ParityRow:
    """One compared item and its largest difference.

    Attributes:
      section: heading that the item belongs to.
      item: what is compared.
      reference: what the reference does.
      ours: what we do.
      measured: the largest difference found, in `unit`.
      bound: the largest difference allowed, in `unit`.
      unit: of both numbers.
    """

    section: str
    item: str
    reference: str
    ours: str
    measured: float
    bound: float
    unit: str

    @property
    def passed(self) -> bool:
        """Whether the difference is within its bound; NaN is not."""
        return self.measured <= self.bound


def largest(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest absolute difference."""
    _require_same_shape(found, expected)
    return float(np.max(np.abs(found - expected)))


def relative_to_each(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference relative to its element; any difference from 0 is huge."""
    _require_same_shape(found, expected)
    difference = np.abs(found.astype(np.float64) - expected)
    return float(np.max(difference / np.maximum(np.abs(expected), 1e-30)))


def relative_to_largest(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference relative to the largest element, the scale of rounding errors."""
    scale = np.max(np.abs(expected))
    return largest(found, expected) / float(scale if scale > 0 else 1)


def _require_same_shape(found: np.ndarray, expected: np.ndarray) -> None:
    if found.shape != expected.shape:
        raise ValueError(f"shape {found.shape}; expected {expected.shape}")
