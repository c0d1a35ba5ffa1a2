"""Shared fixtures: quiet TensorFlow, several logical CPU devices, and where the reference data are."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOGICAL_CPUS = 4


def pytest_configure(config: pytest.Config) -> None:
    """Split the CPU into logical devices before anything touches TensorFlow's runtime."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * LOGICAL_CPUS
    )


def _reference(variable: str, default: Path) -> Path:
    path = Path(os.environ.get(variable, default))
    if not path.is_dir():
        pytest.skip(f"{path} is not here; set {variable} to the folder that holds the data")
    return path


@pytest.fixture(scope="session")
def goldens() -> Path:
    """Directory of the reference implementation's outputs."""
    return _reference("EFFICIENTNET_GOLDENS", ROOT.parent / "shared/reference/goldens")


@pytest.fixture(scope="session")
def imagenet_sample() -> Path:
    """Directory of real ImageNet JPEGs in class folders."""
    return _reference("EFFICIENTNET_IMAGES", ROOT.parent / "shared/data/imagenet_sample")
