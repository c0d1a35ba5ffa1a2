"""Draw the pictures of docs/data.md: `python -m docs.pictures`.

The images that are augmented are drawn too: a test card to check colours, directions and edges by eye, and
shapes as classes. Every pixel follows from this file and the pipeline's code.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw

from input_pipeline.augment import get_augment, mixing, policies
from input_pipeline.images.view import TrainView
from input_pipeline.stream.pipeline import show_train

FOLDER = Path(__file__).parent / "images"
SIZE = 112  # pixels per side of a picture
LEVELS = (0.0, 2.5, 5.0, 7.5, 10.0)
# Constants at level 10, scaled from 224 pixels to SIZE.
TRANSLATE, CUTOUT = 100.0 * SIZE / 224, 40.0 * SIZE / 224
CENTRE = (0.5, 0.5)  # of a cutout
EPOCHS = 5
SHAPES = ("circle", "cross", "stripes", "triangle")


def main() -> int:
    """Draw all pictures; return the exit status."""
    FOLDER.mkdir(exist_ok=True)
    for name, picture in {
        "operations.png": operations_sheet(),
        "mixing.png": mixing_sheet(),
        "augmented.png": augmented_sheet(),
    }.items():
        Image.fromarray(picture).save(FOLDER / name, optimize=True)
        print(f"{FOLDER / name}: {(FOLDER / name).stat().st_size / 1000:.0f} kB")
    return 0


def test_card() -> np.ndarray:
    """Draw bars, ramps, a grid, a disc and an F (no symmetry): uint8 [SIZE, SIZE, 3], 30 to 220."""
    card = np.full([SIZE, SIZE, 3], 200, np.uint8)
    card[::14], card[:, ::14] = 150, 150
    bars = [(r, g, b) for r in (220, 30) for g in (220, 30) for b in (220, 30)]
    card[:28] = np.repeat(np.array(bars, np.uint8), SIZE // 8, axis=0)[None]
    ramp = np.linspace(30, 220, SIZE).astype(np.uint8)
    card[28:40] = ramp[None, :, None]
    card[40:48] = (np.stack([ramp, 128 + 0 * ramp, 250 - ramp], axis=1))[None]
    image = Image.fromarray(card)
    draw = ImageDraw.Draw(image)
    draw.ellipse([60, 54, 104, 98], fill=(210, 120, 40), outline=(60, 40, 30))
    draw.line([14, 102, 14, 56, 42, 56], fill=(40, 50, 120), width=6)
    draw.line([14, 78, 34, 78], fill=(40, 50, 120), width=6)
    return np.asarray(image)


def operations_sheet() -> np.ndarray:
    """Draw every operation in a row, from level 0 to level 10: uint8 [H, W, 3]."""
    card = tf.constant(test_card())
    operations = policies.make_operations(
        quirks=True, translate_const=TRANSLATE, cutout_const=CUTOUT
    )
    rows = {
        name: [operation(card, level, 1.0, tf.constant(CENTRE)) for level in LEVELS]
        for name, operation in operations.items()
    }
    return _sheet(rows, ["", *(f"level {level:g}" for level in LEVELS)])


def mixing_sheet() -> np.ndarray:
    """Draw shapes mixed and erased, each with its new label: uint8 [H, W, 3]."""
    images = tf.constant(np.stack([shape(name, seed=7) for name in SHAPES]))
    labels = tf.range(len(SHAPES))
    seeds = tf.stack([tf.fill([len(SHAPES)], 1), labels], axis=1)
    rows: dict[str, Sequence[tf.Tensor]] = {"original": tf.unstack(images)}
    for name, mix in (("mixup", mixing.mixup), ("cutmix", mixing.cutmix)):
        mixed, shares = mix(images, labels, seeds, alpha=1.0, num_classes=len(SHAPES))
        rows[name] = [
            _add_caption(
                image, ", ".join(f"{share[i]:.0%} {SHAPES[i]}" for i in np.flatnonzero(share))
            )
            for image, share in zip(mixed, shares.numpy(), strict=True)
        ]
    rows["erasing"] = [
        mixing.random_erasing(image, seed, probability=1.0)
        for image, seed in zip(images, seeds, strict=True)
    ]
    return _sheet(rows, ["", *SHAPES])


def augmented_sheet() -> np.ndarray:
    """Draw some shapes as training with AutoAugment sees them in the first epochs: uint8 [H, W, 3]."""
    rows, view = {}, TrainView(SIZE, augment=get_augment("autoaugment"))
    for number, name in enumerate(SHAPES):
        original = shape(name, seed=number)
        encoded = tf.io.encode_jpeg(original, quality=95)
        rows[name] = [original] + [
            show_train(
                encoded,
                {"index": tf.constant(number, tf.int64), "epoch": tf.constant(epoch, tf.int64)},
                view,
                seed=0,
            ).framed.image
            for epoch in range(EPOCHS)
        ]
    return _sheet(rows, ["", "original", *(f"epoch {epoch}" for epoch in range(EPOCHS))])


def shape(name: str, *, seed: int) -> np.ndarray:
    """Draw a shape in a random colour on a coloured ramp: uint8 [SIZE, SIZE, 3]."""
    random = np.random.default_rng([seed, SHAPES.index(name)])
    ramp = np.linspace(0, 60, SIZE)[None, :, None] + np.linspace(0, 60, SIZE)[:, None, None]
    image = Image.fromarray((ramp + random.integers(20, 130, 3)).astype(np.uint8))
    draw, colour = ImageDraw.Draw(image), tuple(random.integers(120, 256, 3).tolist())
    if name == "circle":
        draw.ellipse([26, 26, 86, 86], fill=colour)
    elif name == "cross":
        draw.line([26, 56, 86, 56], fill=colour, width=18)
        draw.line([56, 26, 56, 86], fill=colour, width=18)
    elif name == "stripes":
        for x in range(16, SIZE, 24):
            draw.line([x, 12, x, 100], fill=colour, width=9)
    else:
        draw.polygon([(56, 20), (94, 90), (18, 90)], fill=colour)
    return np.asarray(image)


def _sheet(rows: Mapping[str, Sequence[tf.Tensor]], headings: Sequence[str]) -> np.ndarray:
    """Lay out named rows of pictures under headings."""
    margin, gap, top = 78, 4, 16
    width = margin + (SIZE + gap) * (len(headings) - 1)
    sheet = Image.new("RGB", (width, top + (SIZE + gap) * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, heading in enumerate(headings[1:]):
        draw.text((margin + column * (SIZE + gap), 2), heading, fill="black")
    for row, (name, pictures) in enumerate(rows.items()):
        y = top + row * (SIZE + gap)
        draw.text((2, y + SIZE // 2), name, fill="black")
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(np.asarray(picture)), (margin + column * (SIZE + gap), y))
    return np.asarray(sheet)


def _add_caption(image: tf.Tensor, caption: str) -> np.ndarray:
    picture = Image.fromarray(np.asarray(image))
    draw = ImageDraw.Draw(picture)
    draw.rectangle([0, SIZE - 13, SIZE, SIZE], fill="white")
    draw.text((2, SIZE - 12), caption, fill="black", font_size=9)
    return np.asarray(picture)


if __name__ == "__main__":
    sys.exit(main())
