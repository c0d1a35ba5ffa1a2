"""Shared fixtures: quiet TensorFlow, several logical CPU devices, and the reference outputs."""

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


@pytest.fixture(scope="session")
def goldens() -> Path:
    """Directory of the reference implementation's outputs."""
    return ROOT / "tests" / "goldens"
