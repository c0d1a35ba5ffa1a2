"""A run without a moving average is measured and exported with its last weights.

It trains a published network, if a narrow one; other runs have two blocks.
"""

from pathlib import Path

import pytest

from run_folder.checkpoints import CheckpointStore
from serving.model_card import read_model_card
from tests import runs

pytestmark = pytest.mark.slow


def test_a_run_without_an_average_is_evaluated_and_exported_with_its_last_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = runs.in_this_process(capsys)
    small = ["--set=model.width=0.1", "--set=model.depth=0.1", "--set=model.image_size=32"]
    status, _, err = command(
        *runs.flags(tmp_path, "run"),
        "--model=efficientnet-b0",
        *small,
        "--set=ema.decay=0",
        "--set=train.duration=4 steps",
        runs.WITH_EXPORT,
    )
    assert status == 0, err
    best = CheckpointStore(str(tmp_path / "run"), best_metric="top_1").best()
    assert best is not None
    assert best.metrics
    card = read_model_card(str(tmp_path / "run/export/saved_model/4"))
    assert card.weights == "raw"
    assert card.metrics == best.metrics
