"""Scenes of several handwritten digits on a textured background, with exact masks and boxes.

Scenes are composed from the digits that ship with scikit-learn and written once as TFRecords, with the
published keys for segmentation and detection. No digit is in scenes of both splits.
"""

from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from input_pipeline.sources import records
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo, write_dataset_info
from input_pipeline.sources.digits import CLASS_NAMES, split_digits
from input_pipeline.sources.packaged import find_written, write_shards
from input_pipeline.sources.source import Source, SourceRequest, sharded_examples
from input_pipeline.targets.mask import MASK

BACKGROUND = "background"

SCENE_SIDE = 96  # pixels
NUM_SCENES = {"train": 2000, "validation": 200}
NUM_DIGITS = (2, 4)  # in a scene, fewest and most; a digit without room is left out
DIGIT_SIDES = (32, 56)  # pixels of a digit with a margin of a tenth on each side
EDGE_INK = 0.35  # share of full ink at the edge of a stroke
ATTEMPTS = 20  # to find room for a digit
LEVELS = 16  # of ink in the originals


@dataclass(frozen=True)
class Scene:
    """A picture with its mask and boxes.

    Attributes:
      image: uint8 [SCENE_SIDE, SCENE_SIDE, 3].
      mask: uint8 [SCENE_SIDE, SCENE_SIDE], 0 for the background, 1 + its value for a digit.
      boxes: int64 [n, 4], the first row and column of each digit's mask, and one past the last ones.
      digits: int64 [n], the values of the digits.
    """

    image: np.ndarray
    mask: np.ndarray
    boxes: np.ndarray
    digits: np.ndarray


def open_digit_scenes(request: SourceRequest) -> Source:
    """Open the scenes in `request.data_dir` (default: data/digit_scenes); write them if missing.

    For masks the background is class 0, before the classes of the digits.
    """
    data_dir = request.data_dir or "data/digit_scenes"
    recipe = "segmentation" if MASK in request.target.features else "detection"
    info = find_written(
        data_dir, "digit_scenes", CLASS_NAMES, own_images=f"configs/{recipe}_finetune.yaml"
    ) or write_digit_scenes(data_dir)
    splits = {
        name: sharded_examples(data_dir, split, request.target)
        for name, split in info.splits.items()
    }
    return Source(with_background(info) if MASK in request.target.features else info, splits)


def with_background(info: DatasetInfo) -> DatasetInfo:
    """Return the description with the background as class 0, for masks."""
    names = (BACKGROUND, *CLASS_NAMES)
    splits = {name: replace(split, class_counts=None) for name, split in info.splits.items()}
    return replace(info, num_classes=len(names), class_names=names, splits=splits, label_offset=0)


def write_digit_scenes(data_dir: str) -> DatasetInfo:
    """Write the scenes as TFRecords, and last the description, which marks them complete."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    ink = images.reshape(-1, 8, 8) / LEVELS
    splits = {
        split: _write_split(data_dir, split, ink[members], labels[members])
        for split, members in split_digits(labels).items()
    }
    info = DatasetInfo("digit_scenes", len(CLASS_NAMES), CLASS_NAMES, splits)
    write_dataset_info(info, data_dir)
    return info


def compose(ink: np.ndarray, digits: np.ndarray, random: np.random.Generator) -> Scene:
    """Compose a scene of digits that do not touch.

    Args:
      ink: float [n, 8, 8] in [0, 1], the originals.
      digits: int [n], their values.
      random: draws background, sizes, places and colours.
    """
    image = _background(random)
    mask = np.zeros([SCENE_SIDE, SCENE_SIDE], np.uint8)
    boxes, kept = [], []
    for original, digit in zip(ink, digits, strict=True):
        opacity = _enlarge(original, int(random.integers(DIGIT_SIDES[0], DIGIT_SIDES[1] + 1)))
        place = _free_place(mask, opacity.shape, random)
        if place is None:
            continue
        (top, left), (height, width) = place, opacity.shape
        window = (slice(top, top + height), slice(left, left + width))
        colour = _colour_on(image[window], random)
        image[window] += opacity[..., np.newaxis] * (colour - image[window])
        mask[window][opacity >= 0.5] = 1 + digit
        boxes.append([top, left, top + height, left + width])
        kept.append(digit)
    pixels = np.clip(np.round(image), 0, 255).astype(np.uint8)
    return Scene(pixels, mask, np.array(boxes, np.int64), np.array(kept, np.int64))


def _write_split(data_dir: str, split: str, ink: np.ndarray, labels: np.ndarray) -> SplitInfo:
    random = np.random.default_rng(list(NUM_SCENES).index(split))
    examples, counts = [], np.zeros(len(CLASS_NAMES), np.int64)
    waiting: list[int] = []
    for number in range(NUM_SCENES[split]):
        count = int(random.integers(NUM_DIGITS[0], NUM_DIGITS[1] + 1))
        if len(waiting) < count:  # use every digit once before repeating any
            waiting += random.permutation(len(labels)).tolist()
        chosen, waiting = waiting[:count], waiting[count:]
        scene = compose(ink[chosen], labels[chosen], random)
        examples.append(_serialize(scene, f"{split}_{number:04d}.jpg"))
        counts += np.bincount(scene.digits, minlength=len(counts))
    return write_shards(data_dir, split, examples, counts)


def _serialize(scene: Scene, name: str) -> bytes:
    with tf.device("CPU"):
        image = tf.io.encode_jpeg(scene.image, quality=95, chroma_downsampling=False).numpy()
        mask = tf.io.encode_png(scene.mask[..., np.newaxis]).numpy()
    top, left, bottom, right = (scene.boxes / SCENE_SIDE).T
    return records.serialize_features(
        {
            "image/encoded": image,
            "image/format": "JPEG",
            "image/filename": name,
            "image/source_id": name,
            "image/height": SCENE_SIDE,
            "image/width": SCENE_SIDE,
            MASK: mask,
            "image/segmentation/class/format": "png",
            "image/object/bbox/ymin": top,
            "image/object/bbox/xmin": left,
            "image/object/bbox/ymax": bottom,
            "image/object/bbox/xmax": right,
            "image/object/class/label": scene.digits + 1,
            "image/object/class/text": [CLASS_NAMES[digit] for digit in scene.digits],
        }
    )


def _background(random: np.random.Generator) -> np.ndarray:
    """Draw patches of similar colours, stripes and grain: float64 [SCENE_SIDE, SCENE_SIDE, 3]."""
    from scipy.ndimage import zoom  # type: ignore[import-untyped]

    cells = random.uniform(40, 215, 3) + random.uniform(-40, 40, [6, 6, 3])
    patches = zoom(cells, (SCENE_SIDE / 6, SCENE_SIDE / 6, 1), order=1)
    row, column = np.mgrid[:SCENE_SIDE, :SCENE_SIDE]
    angle, pitch = random.uniform(0, np.pi), random.uniform(4, 16)
    wave = np.sin(2 * np.pi * (row * np.sin(angle) + column * np.cos(angle)) / pitch)
    stripes = random.uniform(0, 20) * wave[..., np.newaxis]
    return patches + stripes + random.normal(0, 6, [SCENE_SIDE, SCENE_SIDE, 3])


def _enlarge(original: np.ndarray, side: int) -> np.ndarray:
    """Enlarge a digit and crop it to its strokes: opacity, float64 [h, w] in [0, 1]."""
    from scipy.ndimage import zoom

    with_margin = np.pad(original, 1)  # strokes that reach the border end inside the picture
    ink = zoom(with_margin, side / len(with_margin), order=3)
    opacity = np.clip(0.5 + 5 * (ink - EDGE_INK), 0.0, 1.0)
    rows, columns = (np.flatnonzero((opacity >= 0.5).any(axis)) for axis in (1, 0))
    return opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _free_place(
    mask: np.ndarray, shape: tuple[int, ...], random: np.random.Generator
) -> tuple[int, int] | None:
    """Draw the first row and column of an empty window with a margin of one pixel; None if none is found."""
    for _ in range(ATTEMPTS):
        top, left = (int(random.integers(0, SCENE_SIDE - side + 1)) for side in shape)
        around = mask[
            max(top - 1, 0) : top + shape[0] + 1,
            max(left - 1, 0) : left + shape[1] + 1,
        ]
        if not around.any():
            return top, left
    return None


def _colour_on(background: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw a dark colour for a bright background and a bright one for a dark background."""
    low, high = (0, 70) if background.mean() > 127 else (185, 255)
    return random.uniform(low, high, 3)
