"""A benchmark has photographs to work on, wherever it runs, and names them."""

import io

import pytest
from PIL import Image

from benchmarks.photographs import find_jpegs, jpegs, packaged_crops
from system.errors import UsageError


def test_packaged_crops_are_the_same_jpegs_at_every_call_and_of_many_sizes():
    crops = packaged_crops(12)
    assert crops == packaged_crops(12)
    assert len(set(crops)) == 12
    sizes = [Image.open(io.BytesIO(crop)).size for crop in crops]
    assert len(set(sizes)) == 12
    assert all(200 <= width <= 640 and 200 <= height <= 427 for width, height in sizes)


def test_without_a_folder_the_origin_names_the_photographs():
    encoded, origin = jpegs(None)
    assert len(encoded) == 200
    assert "china.jpg and flower.jpg" in origin


def test_jpegs_are_found_by_their_content_in_the_order_of_their_paths(tmp_path):
    first, second = packaged_crops(2)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "image.JPEG").write_bytes(second)
    (tmp_path / "a.jpg").write_bytes(first)
    (tmp_path / "c.jpg").write_bytes(b"no image")
    assert find_jpegs(tmp_path) == [first, second]
    assert jpegs(tmp_path)[1] == f"JPEGs of {tmp_path.name}"


@pytest.mark.parametrize(("folder", "wrong"), [("nowhere", "no such folder"), (".", "no JPEG")])
def test_a_folder_without_jpegs_is_one_line(tmp_path, folder, wrong):
    with pytest.raises(UsageError, match=wrong):
        jpegs(tmp_path / folder)
