"""kill -9 anywhere: nothing is lost, and the end is that of a run that was left alone.

A life of a run costs seconds, so there is one kill in each place here; the twenty and more are those of
`python -m benchmarks.faults --kills=50`, whose results are in benchmarks/results/faults.md.
"""

from pathlib import Path

import pytest

from benchmarks.faults import PLACES, survive


@pytest.mark.parametrize(("workers", "kills"), [(1, 4), (2, 2)], ids=["1-process", "2-workers"])
def test_a_run_killed_anywhere_ends_with_the_same_bits(
    tmp_path: Path, workers: int, kills: int
) -> None:
    toll = survive(tmp_path, kills=kills, workers=workers, seed=1)
    assert set(toll.kills) == (set(PLACES) if kills == len(PLACES) else {"step", "export"})
    assert toll.kills.total() == kills
    assert toll.resumes == kills
    assert (toll.differences, toll.bytes_lost) == ([], 0)
