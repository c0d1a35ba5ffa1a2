"""Patches of scikit-image's pictures: disjoint halves, grey, and one line where the pictures are missing."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources import get_source, textures
from input_pipeline.sources.textures import FILES, PATCHES, SIDE, read_textures

HEIGHT, WIDTH = 3 * SIDE + 5, 5 * SIDE


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A package of the name with pictures whose pixels are their columns: {file: uint8 [H, W, 3]}."""
    made = {}
    folder = tmp_path / "site" / "skimage"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('only found, never imported')")
    for number, file in enumerate(FILES.values()):
        columns = np.linspace(0, 200, WIDTH).astype(np.uint8) + number
        made[file] = np.broadcast_to(columns[None, :, None], (HEIGHT, WIDTH, 3))
        encode = tf.io.encode_jpeg if file.endswith(".jpg") else tf.io.encode_png
        (folder / "data" / file).write_bytes(encode(made[file]).numpy())
    monkeypatch.syspath_prepend(str(folder.parent))
    return made


def test_no_pixel_is_in_both_splits(pictures):
    found = read_textures()
    for label in range(len(FILES)):
        train, validation = (
            [picture.pixels for picture in found[split] if picture.label == label]
            for split in ("train", "validation")
        )
        assert len(train) == len(validation) == 6  # 3 x 2 whole patches of a half
        assert np.max(train) < np.min(validation)


def test_patches_are_grey_of_one_size_and_drawn_alike_each_time(pictures):
    first, again = read_textures(), read_textures()
    for split, cut in first.items():
        for picture, other in zip(cut, again[split], strict=True):
            assert picture.pixels.shape == (SIDE, SIDE, 3)
            assert (picture.pixels == picture.pixels[..., :1]).all()
            np.testing.assert_array_equal(picture.pixels, other.pixels)
    labels = [picture.label for picture in first["train"]]
    assert labels != sorted(labels)


def test_large_pictures_give_no_more_than_the_set_number(pictures, monkeypatch):
    monkeypatch.setattr(textures, "PATCHES", 4)
    assert len(read_textures()["train"]) == 4 * len(FILES)
    assert PATCHES > 4


def test_they_are_read_as_records(pictures, tmp_path):
    source = get_source("textures", str(tmp_path / "records"))
    assert source.info.class_names == tuple(FILES)
    assert source.info.splits["train"].class_counts == (6,) * len(FILES)


def test_without_a_picture_one_line_names_it(pictures, tmp_path):
    (tmp_path / "site/skimage/data/grass.png").unlink()
    with pytest.raises(DatasetError, match=r"cannot read .*/grass\.png: .*expected scikit-image"):
        read_textures()


def test_without_scikit_image_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(textures.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DatasetError, match=r"Fix: pip install -r requirements-pretrained\.txt$"):
        read_textures()
