"""kill -9 anywhere: nothing is lost, and the end is that of a run that was left alone.

Most of a kill's cost is the tracing of the next start. proofs/results/faults.md reports many more kills.
"""

from pathlib import Path

import pytest

from proofs.faults import CONFIG, PLACES, survive

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("workers", "kills", "seed", "name"),
    # Seed 0 kills the second worker in its second step, which has a checkpoint before it.
    [
        (1, 4, 1, "faults"),
        (2, 1, 0, "faults"),
        (1, 3, 2, "faults_segmentation"),
        (1, 3, 2, "faults_detection"),
    ],
    ids=["1-process", "2-workers", "segmentation", "detection"],
)
def test_a_run_killed_anywhere_ends_with_the_same_bits(
    tmp_path: Path, workers: int, kills: int, seed: int, name: str
) -> None:
    config = CONFIG.with_name(f"{name}.yaml")
    if kills < len(PLACES):  # one stage is enough of these: a start traces each that is left
        given, config = config, tmp_path / "one_stage.yaml"
        config.write_text(f"base: {given}\nstages: []\n")
    toll = survive(tmp_path / "runs", config=config, kills=kills, workers=workers, seed=seed)
    places = PLACES if kills >= len(PLACES) else PLACES[: min(kills, 3)]
    assert all(toll.kills[place] for place in places), toll.kills
    assert toll.kills.total() >= kills
    assert toll.resumes == toll.kills.total()
    assert (toll.differences, toll.bytes_lost) == ([], 0)
