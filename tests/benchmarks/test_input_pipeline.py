"""The yardstick of the input benchmark does the same work as what it is held against."""

from pathlib import Path

import pytest

from benchmarks.input_pipeline import count_equal, write_records
from benchmarks.photographs import packaged_crops

pytestmark = pytest.mark.slow


def test_the_published_structure_gives_the_same_pixels(tmp_path: Path) -> None:
    source = write_records(packaged_crops(64), str(tmp_path))
    assert count_equal(source, image_size=64, images=48) == 48
