"""Ratios that a drifting processor leaves alone, and how well their median is known."""

import numpy as np
import pytest

from benchmarks.ratios import Ratio, median_ratio, ratio_interval


def test_a_ratio_is_the_median_of_the_turns_and_its_error_follows_from_their_spread() -> None:
    one, other = np.array([2.0, 4.0, 6.0, 90.0]), np.array([1.0, 2.0, 3.0, 45.0])
    assert median_ratio(one, other) == (2.0, 0.0)  # a slow turn hits both sides alike
    noise = np.random.default_rng(0).normal(1.0, 0.1, [2, 100])
    ratio, error = median_ratio(*noise)
    assert abs(ratio - 1.0) < 3 * error
    assert 0.5 < error / (0.1 * np.sqrt(2) * np.sqrt(np.pi / 2) / 10) < 2  # a normal median's error


def test_an_interval_covers_the_true_ratio_in_95_of_100_measurements() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        base = random.uniform(1.0, 2.0, 40)  # the machine's drift
        ratio = ratio_interval(1.25 * base * random.normal(1.0, 0.05, 40), base)
        assert ratio.low <= ratio.median <= ratio.high
        covered += ratio.low <= 1.25 <= ratio.high
    assert covered / 200 == pytest.approx(0.95, abs=0.04)


def test_a_ratio_prints_its_median_and_interval() -> None:
    assert str(Ratio(1.0, 0.98765, 1.02)) == "1.000 (0.988 to 1.020)"
