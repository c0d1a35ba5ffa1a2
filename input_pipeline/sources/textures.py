"""Patches of textures and photographs that ship inside scikit-image: few images, to fine-tune on.

A class is a picture. Training patches come from its left half, evaluation patches from its right half: no
pixel is in both. All are grey, so that the colour of a picture does not give it away.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources.packaged import PackagedSet, Picture

# Class: file in skimage/data. Pictures whose patches look alike from left to right.
FILES = {
    "brick": "brick.png",
    "coins": "coins.png",
    "fur": "chelsea.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "moon": "moon.png",
    "print": "page.png",
    "retina": "retina.jpg",
    "stars": "hubble_deep_field.jpg",
    "tissue": "ihc.png",
}
SIDE = 64  # of a patch, in pixels
PATCHES = 24  # of each class and split, at most


def read_textures() -> Mapping[str, Sequence[Picture]]:
    """Cut the patches of each split, in one fixed random order.

    Raises:
      DatasetError: scikit-image is not installed, or lacks a picture.
    """
    found: dict[str, list[Picture]] = {"train": [], "validation": []}
    for label, (name, file) in enumerate(FILES.items()):
        grey = _read_grey(file)
        middle = grey.shape[1] // 2
        for split, half in (("train", grey[:, :middle]), ("validation", grey[:, -middle:])):
            found[split] += [
                Picture(patch, label, f"{name}_{split}_{number:02d}")
                for number, patch in enumerate(_patches(half, seed=label))
            ]
    random = np.random.default_rng(0)
    return {
        split: [pictures[n] for n in random.permutation(len(pictures))]
        for split, pictures in found.items()
    }


TEXTURES = PackagedSet("textures", tuple(FILES), read_textures)


def _read_grey(file: str) -> np.ndarray:
    """Return a picture as uint8 [height, width]."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise DatasetError(
            "data.source=textures needs scikit-image, which holds the pictures. Fix: pip install -r "
            "requirements-pretrained.txt"
        )
    path = Path(package.origin).parent / "data" / file
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error}; expected scikit-image 0.26") from error
    decode = tf.io.decode_jpeg if path.suffix == ".jpg" else tf.io.decode_png
    with tf.device("CPU"):
        return decode(encoded, channels=1).numpy()[..., 0]


def _patches(half: np.ndarray, *, seed: int) -> list[np.ndarray]:
    """Cut disjoint patches, uint8 [SIDE, SIDE, 3]: PATCHES of a grid, drawn by `seed`."""
    rows, columns = (side // SIDE for side in half.shape)
    corners = [(y * SIDE, x * SIDE) for y in range(rows) for x in range(columns)]
    drawn = np.random.default_rng(seed).permutation(len(corners))[:PATCHES]
    cut = (half[y : y + SIDE, x : x + SIDE] for y, x in (corners[n] for n in sorted(drawn)))
    return [np.repeat(patch[..., np.newaxis], 3, axis=-1) for patch in cut]
