"""The colours of a heatmap over its picture, and the file that they are written to."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from serving.heatmaps import HeatmapError, overlay, write_png


def test_a_picture_is_mixed_by_half_with_blue_where_cold_and_red_where_hot() -> None:
    image = np.full([1, 4, 3], 100, np.uint8)
    image[0, 3] = 255
    heat = np.array([[0.0, 0.125, 1.0, 1.0]])
    assert overlay(image, heat).tolist() == [
        # halfway between the colours at 0 and 1/4: (0, 50, 192.5)
        [[50, 50, 115], [50, 75, 146], [150, 50, 50], [228, 128, 128]]
    ]


def test_an_overlay_is_bytes_of_the_pictures_size() -> None:
    image = np.random.default_rng(0).integers(0, 256, [8, 8, 3]).astype(np.uint8)
    laid = overlay(image, np.linspace(0, 1, 64).reshape(8, 8))
    assert (laid.dtype, laid.shape) == (np.uint8, (8, 8, 3))


def test_a_png_holds_the_pixels(tmp_path: Path) -> None:
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    path = tmp_path / "cam.png"
    write_png(str(path), image)
    np.testing.assert_array_equal(tf.io.decode_png(path.read_bytes()).numpy(), image)


def test_a_png_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = f"{tmp_path}/file/cam.png"
    with pytest.raises(HeatmapError) as error:
        write_png(path, np.zeros([2, 2, 3], np.uint8))
    assert str(error.value).startswith(f"{path}: cannot be written (")
    assert len(str(error.value).splitlines()) == 1
