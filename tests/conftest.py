"""Shared fixtures: quiet TensorFlow, logical CPU devices, released memory, and the reference outputs."""

import ctypes
import gc
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import pytest

from system.memory import limit_malloc_arenas
from system.tensorflow_log import quiet_tensorflow

quiet_tensorflow()  # before the conftest of a folder imports TensorFlow

ROOT = Path(__file__).resolve().parent.parent
LOGICAL_CPUS = 4
# They begin: of two workers none then waits long for the other at the end.
LONGEST = (
    "test_kills.py",
    "test_v2_run.py",
    "test_preemption.py",
    "test_pipeline.py",
    "test_stages.py",
    "test_segmentation_run.py",
    "test_train_step.py",
    "test_main.py",
    "test_detection_run.py",
    "test_unfreezing.py",
    "test_quickstart.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Split the CPU into logical devices before anything touches TensorFlow's runtime."""
    limit_malloc_arenas()
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * LOGICAL_CPUS
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def goldens() -> Path:
    """Directory of the reference implementation's outputs."""
    return ROOT / "tests" / "goldens"


@pytest.fixture(scope="module", autouse=True)
def _release_memory() -> Iterator[None]:
    """Return the memory of a file's networks and traces to the system when its last test has run."""
    yield
    release_memory()


def release_memory() -> None:
    """Return the memory of networks and traces that nothing uses any more to the system.

    Keras keeps names and graphs of every model, TensorFlow the kernels of every trace, and malloc what
    both have freed: a process that ran the suite grew to gigabytes. TensorFlow also keeps custom gradients
    (training.step.custom_gradients).

    What is left is frozen for good: in a long process, looking through it again took up to half of the time.
    """
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()
    custom_gradients = importlib.import_module("training.step.custom_gradients")
    custom_gradients.release_all()
    gc.collect()
    gc.freeze()
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: 0)(0)  # glibc
