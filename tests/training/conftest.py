"""Set-ups that are traced once for all tests of this folder."""

from pathlib import Path

import numpy as np
import pytest

from tests import runs
from tests.training import tiny


def assert_same(found, expected, tolerance=1e-5):
    """Every array of one state equals the other's, to a tolerance relative to its largest value."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(np.max(np.abs(value)), 1e-3)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.fixture(scope="session", name="assert_same")
def assert_same_fixture():
    return assert_same


@pytest.fixture(scope="session")
def one_device():
    return tiny.devices(1)


@pytest.fixture(scope="session")
def two_devices():
    return tiny.devices(2)


@pytest.fixture(scope="session")
def four_devices():
    return tiny.devices(4)


@pytest.fixture(scope="session")
def plain(one_device):
    """One device, nothing random: what the others are held against."""
    return tiny.start(one_device, gradient_clip_norm=tiny.CLIP_NORM)


@pytest.fixture
def fresh(plain):
    """`plain` with its first weights."""
    return plain.reset()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the runs of a file of tests."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def command(capsys: pytest.CaptureFixture) -> runs.Command:
    return runs.in_this_process(capsys)


@pytest.fixture(scope="module")
def uninterrupted(folder: Path) -> Path:
    """A run that was left alone, by the command line."""
    assert runs.run_here(*runs.flags(folder, "uninterrupted")) == 0
    return folder / "uninterrupted"
