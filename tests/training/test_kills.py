"""kill -9 anywhere: nothing is lost, and the end is that of a run that was left alone.

20 kills cost 160 seconds of one core, most of it the tracing of the next start, and a kill twice as much with
two workers: more of those are in proofs/results/faults.md.
"""

from pathlib import Path

import pytest

from proofs.faults import PLACES, survive

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("workers", "kills"), [(1, 20), (2, 2)], ids=["1-process", "2-workers"])
def test_a_run_killed_anywhere_ends_with_the_same_bits(
    tmp_path: Path, workers: int, kills: int
) -> None:
    toll = survive(tmp_path, kills=kills, workers=workers, seed=1)
    places = set(PLACES) if kills >= len(PLACES) else {"step", "export"}
    assert all(toll.kills[place] for place in places), toll.kills
    assert toll.kills.total() >= kills
    assert toll.resumes == toll.kills.total()
    assert (toll.differences, toll.bytes_lost) == ([], 0)
