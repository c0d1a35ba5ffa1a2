"""kill -9 anywhere: nothing is lost, and the end is that of a run that was left alone.

Most of a kill's cost is the tracing of the next start. proofs/results/faults.md reports many more kills.
"""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from proofs.faults import CONFIG, FIRST_STEP, PLACES, SWITCH, make_aims, survive


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "aims", "formats", "seed"),
    [
        (1, ["checkpoint", SWITCH, FIRST_STEP, "export"], "[saved_model]", 1),
        # Seed 3 kills the chief first and last, and the other worker at the switch.
        (2, ["evaluation", SWITCH, FIRST_STEP], "[]", 3),
    ],
    ids=["1-process", "2-workers"],
)
def test_a_run_in_stages_killed_anywhere_ends_with_the_same_bits(
    tmp_path: Path, workers: int, aims: list[str], formats: str, seed: int
) -> None:
    config = tmp_path / "stages.yaml"
    # A kill that comes too late for the first step finds no later checkpoint, and is repeated.
    config.write_text(
        f"base: {CONFIG}\ncheckpoint: {{every: 4 steps}}\nexport: {{formats: {formats}}}\n"
    )
    toll = survive(tmp_path / "runs", config=config, aims=aims, workers=workers, seed=seed)
    assert toll.batches == [4, 8]  # the first step after a switch is the first of another batch
    assert not Counter(aims) - toll.kills, toll.kills
    assert len(toll.victims) == workers
    assert toll.resumes == toll.kills.total()
    assert (toll.differences, toll.bytes_lost) == ([], 0)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_a_run_of_another_task_killed_anywhere_ends_with_the_same_bits(
    tmp_path: Path, task: str
) -> None:
    config = tmp_path / "one_stage.yaml"  # a start traces each stage that is left
    config.write_text(f"base: {CONFIG.with_name(f'faults_{task}.yaml')}\nstages: []\n")
    aims = ["step", "checkpoint", "evaluation"]
    toll = survive(tmp_path / "runs", config=config, aims=aims, seed=2)
    assert not Counter(aims) - toll.kills, toll.kills
    assert toll.resumes == toll.kills.total()
    assert (toll.differences, toll.bytes_lost) == ([], 0)


@pytest.mark.parametrize(("kills", "stages"), [(4, 1), (20, 2), (6, 2), (10, 4), (50, 4)])
def test_kills_are_aimed_at_every_place_and_at_every_switch(kills: int, stages: int) -> None:
    aims = make_aims(kills, stages)
    assert len(aims) == kills
    assert set(aims) >= set(PLACES)
    assert list(pairwise(aims)).count((SWITCH, FIRST_STEP)) == stages - 1
