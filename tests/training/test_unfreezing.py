"""Progressive unfreezing: head, upper blocks, everything; a run killed after each switch loses nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proofs.faults import Life, differences
from run_folder.checkpoints import CheckpointStore
from tests import runs
from training import run
from training.step.custom_gradients import registered_gradients
from training.step.train_step import make_train_loop

pytestmark = pytest.mark.slow

STEPS = 4  # of each stage; a checkpoint at every second one, all kept
SETTINGS = (
    "--set=stages=[{duration: 4 steps, set: {train.trainable: head}},"
    " {duration: 4 steps, set: {train.trainable: blocks>=1}}, {}]",
    "--set=train.freeze_batch_norm=true",
    "--set=optimizer.layer_decay=0.7",
    "--set=checkpoint={every: 2 steps, keep: 9}",
    "--set=export.formats=[]",
    "--mode=train",
)


def flags(folder: Path, name: str) -> list[str]:
    return [*runs.flags(folder, name), *SETTINGS]


def kill_in_stage(number: int, arguments: list[str]) -> None:
    """Start the run, and kill it in the first steps of a stage."""
    life = Life(arguments, workers=1)
    for place in life.places():
        if place == "step" and f"stage {number} of 3" in life.output():
            life.kill(0)
            return
    pytest.fail(life.output())


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> tuple[Path, list[int]]:
    """A run that was left alone, and how many custom gradients were kept before each of its traces."""
    kept: list[int] = []

    def counted(*args: Any, **options: Any) -> Any:
        kept.append(len(registered_gradients()))
        return make_train_loop(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "make_train_loop", counted)
        assert runs.run_here(*flags(folder, "undisturbed")) == 0
    return folder / "undisturbed", kept


def test_a_run_killed_after_each_switch_ends_with_the_same_bits(
    folder: Path, undisturbed: tuple[Path, list[int]]
) -> None:
    for stage in (2, 3):
        kill_in_stage(stage, flags(folder, "killed"))
        assert runs.latest(folder / "killed").step == STEPS * (stage - 1)
    assert runs.run_here(*flags(folder, "killed")) == 0
    # Without evaluations there is no best one.
    assert differences(folder / "killed", undisturbed[0]) == ["no best checkpoint"]


def test_each_stage_moves_what_it_trains_and_batch_norm_stays(
    undisturbed: tuple[Path, list[int]],
) -> None:
    store = CheckpointStore(str(undisturbed[0]), best_metric="top_1")
    found = {step: store.find(step).read() for step in (2, 4, 8, 12)}

    def moved(before: int, after: int) -> set[str]:
        """Layers whose variables differ between two checkpoints."""
        return {
            name.split("/")[1]
            for name, array in found[before].items()
            if name.startswith("network/") and not np.array_equal(array, found[after][name])
        }

    assert moved(2, 4) == {"classifier"}
    above, whole = moved(4, 8), moved(8, 12)
    assert {"classifier", "head_conv", "block_1_project_conv"} <= above
    assert not any(layer.startswith(("stem", "block_0")) for layer in above)
    assert {"stem_conv", "block_0_project_conv"} <= whole
    assert not any(layer.endswith("_bn") for layer in above | whole)


def test_a_stage_that_has_ended_keeps_no_gradients_in_memory(
    undisturbed: tuple[Path, list[int]],
) -> None:
    assert undisturbed[1] == [0, 0, 0]
    assert registered_gradients()  # of the last stage
