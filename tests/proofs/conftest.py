"""The golden arrays that the rows of a file's tests read."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.parity import Reads


@pytest.fixture(scope="module")
def reads(goldens: Path) -> Iterator[Reads]:
    """Note what is read through numpy.load."""
    noted = Reads(goldens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "load", noted.load)
        yield noted
