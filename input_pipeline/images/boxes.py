"""Draw boxes, with a text at each, into images."""

from collections.abc import Sequence

import numpy as np

COLOURS = (
    (255, 64, 64), (64, 200, 64), (80, 120, 255), (255, 200, 0), (255, 96, 255), (0, 220, 220)
)  # fmt: skip


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    texts: Sequence[str],
    colours: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """Draw boxes into a copy of an image.

    Args:
      image: uint8 [H, W, 3].
      boxes: [n, 4], [ymin, xmin, ymax, xmax] in pixels; they may reach outside.
      texts: one for each box.
      colours: number of each box's colour; None: 0, 1, 2, ...

    Returns:
      uint8 [H, W, 3].
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    width = max(1, round(max(image.shape) / 300))
    for number, (box, text) in enumerate(zip(boxes, texts, strict=True)):
        ymin, xmin, ymax, xmax = (float(end) for end in box)
        chosen = number if colours is None else colours[number]
        colour = COLOURS[chosen % len(COLOURS)]
        draw.rectangle((xmin, ymin, max(xmin, xmax - 1), max(ymin, ymax - 1)), None, colour, width)
        place = draw.textbbox((xmin + width, ymin), text)
        draw.rectangle(place, colour)
        draw.text((xmin + width, ymin), text, fill=(0, 0, 0))
    return np.asarray(picture)
