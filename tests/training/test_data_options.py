"""Short trainings, through the loop that main.py calls, on images from other places and mixed images."""

from pathlib import Path

import numpy as np
import pytest

from configs.load import load_experiment
from proofs.faults import NETWORK
from run_folder.checkpoints import CheckpointStore
from tests.input_pipeline.servers import data_service_processes
from training.devices.distribution import connect
from training.loop import train_and_evaluate

pytestmark = pytest.mark.slow

TINY = f"""
model: {{name: {NETWORK}}}
data: {{source: digits}}
augment: {{policy: autoaugment, random_erasing: 0.5, mixup_alpha: 0.2, cutmix_alpha: 1.0}}
train: {{global_batch_size: 8, duration: 6 steps, steps_per_call: 3}}
schedule: {{name: constant, warmup: 0 steps}}
checkpoint: {{every: 3 steps, asynchronous: false}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data_options")
    (folder / "tiny.yaml").write_text(TINY)
    return folder


def train(folder: Path, name: str, *overrides: str) -> dict[str, np.ndarray]:
    """Everything that the last checkpoint of a run holds."""
    experiment = load_experiment(
        str(folder / "tiny.yaml"),
        overrides=overrides,
        values={"data.data_dir": str(folder / "digits"), "model_dir": str(folder / name)},
    )
    train_and_evaluate(experiment, connect("cpu"), with_evaluation=False)
    last = CheckpointStore(str(folder / name), best_metric="top_1").latest()
    assert last is not None
    return last.read()


def assert_equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.fixture(scope="module")
def uninterrupted(folder: Path) -> dict[str, np.ndarray]:
    return train(folder, "uninterrupted")


def test_a_resumed_training_on_mixed_images_ends_with_the_same_bits(
    folder: Path, uninterrupted: dict[str, np.ndarray]
) -> None:
    half = train(folder, "resumed", "train.duration=3 steps")
    resumed = train(folder, "resumed")
    assert_equal(resumed, uninterrupted)
    assert any((half[name] != resumed[name]).any() for name in resumed)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_cached_images_train_to_the_same_bits(
    folder: Path, cache: str, uninterrupted: dict[str, np.ndarray]
) -> None:
    where = [f"data.cache_dir={folder / 'cache'}"] if cache == "disk" else []
    assert_equal(train(folder, cache, f"data.cache={cache}", *where), uninterrupted)
    assert cache != "disk" or list((folder / "cache").rglob("train-*"))


def test_a_data_service_trains_to_the_same_bits(
    folder: Path, uninterrupted: dict[str, np.ndarray]
) -> None:
    with data_service_processes(workers=1) as (address, _):
        assert_equal(train(folder, "service", f"data.service={address}"), uninterrupted)
