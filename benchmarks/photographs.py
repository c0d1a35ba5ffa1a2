"""Collect JPEGs to measure with: a folder's, or crops of the two photographs in scikit-learn."""

import io
from pathlib import Path

import numpy as np
import sklearn
from PIL import Image

from system.errors import UsageError

PHOTOGRAPHS = ("china.jpg", "flower.jpg")  # 427 x 640 pixels each
LEAST_SIDE = 200
QUALITIES = (75, 96)  # of JPEG, the upper end excluded


def jpegs(data_dir: Path | None) -> tuple[list[bytes], str]:
    """Return encoded images and a phrase that names their source.

    Args:
      data_dir: folder tree of JPEGs; None: 200 crops of the packaged photographs.

    Raises:
      UsageError: there is no such folder, or no JPEG in it.
    """
    if data_dir is None:
        return packaged_crops(200), "overlapping crops of scikit-learn's china.jpg and flower.jpg"
    return find_jpegs(data_dir), f"JPEGs of {data_dir.name}"


def find_jpegs(data_dir: Path) -> list[bytes]:
    """Return every JPEG of a folder tree, encoded, in the order of their paths.

    Raises:
      UsageError: there is no such folder, or no JPEG in it.
    """
    if not data_dir.is_dir():
        raise UsageError(
            f"--data_dir={data_dir}: no such folder; give --data_dir=DIR, any tree of JPEGs"
        )
    paths = sorted(p for p in data_dir.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    contents = [path.read_bytes() for path in paths]
    found = [content for content in contents if content.startswith(b"\xff\xd8\xff")]
    if not found:
        raise UsageError(
            f"--data_dir={data_dir}: no JPEG in it; give --data_dir=DIR with *.jpg or *.jpeg"
        )
    return found


def packaged_crops(count: int, seed: int = 0) -> list[bytes]:
    """Cut JPEGs of 200 to 427 x 200 to 640 pixels from the photographs in turn; equal for equal seeds."""
    random = np.random.default_rng(seed)
    folder = Path(sklearn.__file__).parent / "datasets" / "images"
    photographs = [Image.open(folder / name).convert("RGB") for name in PHOTOGRAPHS]
    return [_crop(photographs[number % len(photographs)], random) for number in range(count)]


def _crop(photograph: Image.Image, random: np.random.Generator) -> bytes:
    width, height = (int(random.integers(LEAST_SIDE, side + 1)) for side in photograph.size)
    left = int(random.integers(photograph.width - width + 1))
    top = int(random.integers(photograph.height - height + 1))
    encoded = io.BytesIO()
    part = photograph.crop((left, top, left + width, top + height))
    part.save(encoded, "JPEG", quality=int(random.integers(*QUALITIES)))
    return encoded.getvalue()
