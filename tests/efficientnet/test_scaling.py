"""Rounding of filters and repeats, and the paper's constants."""

import pytest

from efficientnet.scaling import compound_coefficients, round_filters, round_repeats
from efficientnet.spec import Coefficients


@pytest.mark.parametrize(
    ("filters", "width", "expected"),
    [
        (32, 1.0, 32),
        (32, 1.1, 32),  # 35.2: down, losing 9.1 %
        (32, 1.2, 40),
        (16, 1.1, 16),  # 17.6: down, losing 9.1 %
        (24, 1.4, 32),  # 33.6
        (1280, 1.1, 1408),
        (32, 0.25, 8),
        (16, 0.25, 8),  # at least 8
        (40, 0.25, 16),  # 10 would fall to 8, losing 20 %
        (320, 4.3, 1376),
    ],
)
def test_filters_go_to_the_nearest_multiple_of_8_losing_at_most_a_tenth(filters, width, expected):
    assert round_filters(filters, width) == expected


def test_without_the_limit_rounding_may_lose_more_than_a_tenth():
    assert round_filters(40, 0.25, limit_loss=False) == 8
    assert round_filters(16, 1.2, limit_loss=False) == 16  # 19.2; V2-b3's stem
    assert round_filters(16, 1.2) == 24


def test_filters_halfway_between_multiples_go_up():
    assert round_filters(20, 1.0) == 24


@pytest.mark.parametrize(("repeats", "depth", "expected"), [(1, 1.0, 1), (3, 1.1, 4), (4, 3.1, 13)])
def test_repeats_are_rounded_up(repeats, depth, expected):
    assert round_repeats(repeats, depth) == expected


def test_compound_scaling_raises_the_papers_constants_to_phi():
    scaled = compound_coefficients(1.5, Coefficients(1.0, 1.0, 224, 0.2))
    assert scaled.depth == pytest.approx(1.2**1.5)
    assert scaled.width == pytest.approx(1.1**1.5)
    assert scaled.resolution == 280  # 224 * 1.15^1.5 = 276.2, to the nearest multiple of 8
    assert scaled.dropout == 0.2
