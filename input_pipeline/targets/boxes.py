"""Boxes of objects, each with its class."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.images.boxes import draw_boxes
from input_pipeline.images.placement import Placement
from input_pipeline.images.view import Seen, View
from input_pipeline.targets.target import Features
from input_pipeline.targets.whole_image import outside

# The published keys: one value for each box. Coordinates are 0..1 of the image's sides.
YMIN, XMIN, YMAX, XMAX = ENDS = tuple(
    f"image/object/bbox/{end}" for end in ("ymin", "xmin", "ymax", "xmax")
)
BOX_LABELS = "image/object/class/label"
CROWD, AREA = "image/object/is_crowd", "image/object/area"  # may be missing

NO_CLASS = -1  # the class of a row that is padding
DEFAULT_MAX_BOXES = 100
ROUNDING = 1.0  # pixels by which annotated boxes may exceed the image


def _list_of(dtype: tf.DType) -> tf.io.FixedLenSequenceFeature:
    return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)


BOX_FEATURES: Mapping[str, Any] = {
    **{end: _list_of(tf.float32) for end in ENDS},
    BOX_LABELS: _list_of(tf.int64),
    CROWD: _list_of(tf.int64),
    AREA: _list_of(tf.float32),
}


@dataclass(frozen=True)
class Boxes:
    """The objects of an image: "boxes", float32 [max_boxes, 4], and "classes", int32 [max_boxes].

    Boxes are [ymin, xmin, ymax, xmax]. Rows of objects come first; the others are padding: class NO_CLASS,
    everything else 0. Boxes without area are left out.

    A training view gives boxes in pixels of the network's input, clipped to its valid part, without
    crowds. Deviation: the published code clips to the first corner of the last pixel, size - 1.

    An evaluation view gives boxes in pixels of the original image, and in addition "crowd" and "area",
    float32 [max_boxes], the area in pixels of the original (without the feature, that of the box), and
    "placement", float32 [4], the scale and the offset (y, x) of the image in the network's input.

    A record without the features is an image without objects.

    Attributes:
      max_boxes: largest number of boxes of an image, crowds included.
    """

    max_boxes: int = DEFAULT_MAX_BOXES

    features = BOX_FEATURES

    def check(
        self, features: Features, *, num_classes: int, label_offset: int
    ) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        """Convert the boxes of a record; invalid labels, boxes and areas are a problem."""
        labels = features[BOX_LABELS]
        count = tf.size(labels)
        matching = _matching(features)
        boxes = tf.cond(
            matching,
            lambda: tf.stack([features[end] for end in ENDS], axis=1),
            lambda: tf.zeros([0, 4]),
        )
        last = num_classes - 1 + label_offset
        wrong: list[tuple[tf.Tensor, Callable[[], tf.Tensor]]] = [
            (~matching, lambda: _describe_lengths(features)),
            (count > self.max_boxes, lambda: _too_many(count, self.max_boxes)),
            _if_any(
                (labels < label_offset) | (labels > last),
                lambda i: tf.strings.join([": ", outside(labels[i], label_offset, last)]),
            ),
            _if_any(
                ~tf.reduce_all(tf.math.is_finite(boxes), axis=1),
                lambda i: tf.strings.join([" is not finite: ", _numbers(boxes[i])]),
            ),
            _if_any(
                ~tf.math.is_finite(features[AREA]) | (features[AREA] < 0),
                lambda i: tf.strings.join([": area is ", tf.strings.as_string(features[AREA][i])]),
            ),
            _if_any(
                tf.reduce_any(boxes[:, 2:] < boxes[:, :2], axis=1),
                lambda i: tf.strings.join([" has a negative size: ", _numbers(boxes[i])]),
            ),
        ]
        value = {
            "boxes": boxes,
            "classes": tf.cast(labels - label_offset, tf.int32),
            "crowd": _or_zeros(tf.cast(features[CROWD], tf.float32), count),
            "area": features[AREA],
        }
        return value, _first(*wrong)

    def place(
        self, value: Mapping[str, tf.Tensor], seen: Seen
    ) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        """Move the boxes as the image was moved, or keep those of the original; see `Target.place`."""
        placement = seen.placement
        height_width = tf.cast(placement.source_size, tf.float32)
        boxes = value["boxes"] * tf.tile(height_width, [2])
        problem = _reaching_out(boxes, placement.source_size)
        if seen.view.training:
            seen_part = _clip(_in_result(boxes, placement), placement.corner, placement.valid)
            boxes = seen.move_boxes(seen_part)
            keep = (_area(seen_part) > 0) & (_area(boxes) > 0) & (value["crowd"] == 0)
            return self._pad_rows({"boxes": boxes, "classes": value["classes"]}, keep), problem
        boxes = _clip(boxes, tf.zeros([2], tf.int32), placement.source_size)
        own = _area(boxes)
        area = tf.cond(tf.size(value["area"]) > 0, lambda: value["area"], lambda: own)
        row = self._pad_rows(
            {
                "boxes": boxes,
                "classes": value["classes"],
                "crowd": value["crowd"],
                "area": area,
            },
            own > 0,
        )
        where = tf.concat([placement.scale, placement.offset], axis=0)
        return {**row, "placement": where}, problem

    def labels(self, features: Features) -> list[int]:
        """Return the distinct labels of the boxes as written."""
        return sorted({int(label) for label in features[BOX_LABELS]})

    def draw(
        self, image: np.ndarray, row: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> np.ndarray:
        """Draw the boxes with the names of their classes."""
        real = row["classes"] != NO_CLASS
        boxes, classes = row["boxes"][real], row["classes"][real]
        if "placement" in row:
            boxes = boxes * np.tile(row["placement"][:2], 2) + np.tile(row["placement"][2:], 2)
        return draw_boxes(image, boxes, [class_names[n] for n in classes], classes)

    def batch_spec(self, batch_size: int, view: View) -> Mapping[str, tf.TensorSpec]:
        """Return the specs of "boxes" and "classes", and of the other parts of an evaluation view."""
        rows = [batch_size, self.max_boxes]
        spec = {
            "boxes": tf.TensorSpec([*rows, 4], tf.float32),
            "classes": tf.TensorSpec(rows, tf.int32),
        }
        if view.training:
            return spec
        return {
            **spec,
            "crowd": tf.TensorSpec(rows, tf.float32),
            "area": tf.TensorSpec(rows, tf.float32),
            "placement": tf.TensorSpec([batch_size, 4], tf.float32),
        }

    def shares(self, labels: tf.Tensor, num_classes: int) -> tf.Tensor:
        """Refuse to mix."""
        raise DatasetError(
            "images with boxes cannot be mixed: set augment.mixup_alpha=0 and augment.cutmix_alpha=0"
        )

    def _pad_rows(
        self, columns: Mapping[str, tf.Tensor], keep: tf.Tensor
    ) -> Mapping[str, tf.Tensor]:
        """Return the rows to `keep`, bool [n], first, and padding up to max_boxes."""
        padded = {}
        for name, values in columns.items():
            kept = tf.boolean_mask(values, keep)[: self.max_boxes]
            gaps = [[0, self.max_boxes - tf.shape(kept)[0]], *[[0, 0]] * (len(values.shape) - 1)]
            fill = tf.constant(NO_CLASS if name == "classes" else 0, values.dtype)
            full = tf.pad(kept, gaps, constant_values=fill)
            padded[name] = tf.ensure_shape(full, [self.max_boxes, *values.shape[1:]])
        return padded


def _in_result(boxes: tf.Tensor, placement: Placement) -> tf.Tensor:
    """Map boxes, float32 [n, 4] in pixels of the source, to the result."""
    corners = placement.to_result(tf.reshape(boxes, [-1, 2, 2]))  # mirroring swaps them
    ends = [tf.reduce_min(corners, axis=1), tf.reduce_max(corners, axis=1)]
    return tf.concat(ends, axis=1)


def _clip(boxes: tf.Tensor, corner: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Clip boxes to a window of `size` at `corner`, int32 [2] each."""
    first, extent = (tf.tile(tf.cast(part, tf.float32), [2]) for part in (corner, size))
    return tf.clip_by_value(boxes, first, first + extent)


def _area(boxes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def _or_zeros(values: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    return tf.cond(tf.size(values) > 0, lambda: values, lambda: tf.zeros([count]))


def _reaching_out(boxes: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Describe the first box outside an image of `size`, int32 [2]; "" if there is none."""
    limit = tf.tile(tf.cast(size, tf.float32), [2]) + ROUNDING

    def text(i: tf.Tensor) -> tf.Tensor:
        sides = tf.strings.reduce_join(tf.strings.as_string(size), separator=" x ")
        words = [" is outside the image: ", _numbers(boxes[i]), " pixels in an image of ", sides]
        return tf.strings.join(words)

    return _first(_if_any(tf.reduce_any((boxes < -ROUNDING) | (boxes > limit), axis=1), text))


def _first(*cases: tuple[tf.Tensor, Callable[[], tf.Tensor]]) -> tf.Tensor:
    """Return the text of the first condition that holds, or ""."""
    sound = ~tf.reduce_any(tf.stack([wrong for wrong, _ in cases]))
    # One condition for sound records: a chain of conditions would cost time for each image.
    return tf.cond(
        sound,
        lambda: tf.constant(""),
        lambda: tf.case(list(cases), default=lambda: tf.constant("")),
    )


def _if_any(
    wrong: tf.Tensor, text: Callable[[tf.Tensor], tf.Tensor]
) -> tuple[tf.Tensor, Callable[[], tf.Tensor]]:
    """Return whether any box is `wrong`, bool [n], and the description of the first by its index."""

    def describe() -> tf.Tensor:
        first = tf.argmax(wrong, output_type=tf.int32)
        number, of = tf.strings.as_string(first + 1), tf.strings.as_string(tf.size(wrong))
        return tf.strings.join(["box ", number, " of ", of, text(first)])

    return tf.reduce_any(wrong), describe


def _numbers(box: tf.Tensor) -> tf.Tensor:
    numbers = tf.strings.reduce_join(tf.strings.as_string(box, precision=4), separator=", ")
    return tf.strings.join(["ymin, xmin, ymax, xmax = ", numbers])


def _too_many(count: tf.Tensor, most: int) -> tf.Tensor:
    return tf.strings.join(
        [tf.strings.as_string(count), f" boxes, more than task.max_boxes={most}"]
    )


def _matching(features: Features) -> tf.Tensor:
    """Return whether the lists of a record have equal lengths; CROWD and AREA may be missing."""
    count = tf.size(features[BOX_LABELS])
    needed = tf.stack([tf.size(features[end]) for end in ENDS])
    optional = tf.stack([tf.size(features[name]) for name in (CROWD, AREA)])
    return tf.reduce_all(needed == count) & tf.reduce_all((optional == count) | (optional == 0))


def _describe_lengths(features: Features) -> tf.Tensor:
    found = [
        tf.strings.join([name.removeprefix("image/object/"), " ", _count(features[name])])
        for name in BOX_FEATURES
    ]
    return tf.strings.join(
        ["the lists of image/object differ in length: ", tf.strings.join(found, ", ")]
    )


def _count(values: tf.Tensor) -> tf.Tensor:
    return tf.strings.as_string(tf.size(values))
