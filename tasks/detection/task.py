"""Boxes of objects: focal loss and Huber loss over anchors, COCO's average precision."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow as tf

from efficientnet import ModelSpec
from efficientnet.blocks import Node
from efficientnet.detection import DetectorSpec, anchor_boxes
from efficientnet.detection.network import OUTPUTS, detector_layers
from efficientnet.spec import Size, height_width
from input_pipeline.images.boxes import draw_boxes
from tasks.detection import coding
from tasks.detection.assignment import NO_CLASS, assign
from tasks.detection.coco import coco_figures, evaluate
from tasks.detection.losses import IouKind, focal, huber, iou_loss
from tasks.detection.nms import Detections, Suppression, candidates, suppress
from tasks.task import Batch, Measures, Total

COORDINATES = 4
SHOWN = 0.3  # least score of the detections that are drawn
# As COCO is evaluated: 5,000 pairs of anchor and class, suppressed class by class.
AS_EVALUATED = Suppression(per_class=True, max_candidates=5000)


@dataclasses.dataclass(frozen=True)
class Detection:
    """Detection with the losses of EfficientDet (arXiv 1911.09070).

    Deviation: the published code divides the loss of each replica by the replica's own number of positives;
    here the number is that of the global batch.

    Attributes:
      num_classes: classes of the labels; there is none for the background.
      detector: BiFPN, heads and anchors of the network.
      label_smoothing: in [0, 1), of the focal loss.
      alpha: weight of positives in the focal loss.
      gamma: exponent of the focal loss.
      delta: of the Huber loss, in box codes.
      box_loss_weight: of the Huber loss in the whole loss.
      iou_loss: an additional loss of decoded boxes; None: none.
      iou_loss_weight: of this loss in the whole loss.
      suppression: how detections are chosen, in evaluation and in serving. Deviation: the published code
        serves with one suppression over all classes, which is faster and a little less accurate.
    """

    num_classes: int
    detector: DetectorSpec
    label_smoothing: float = 0.0
    alpha: float = 0.25
    gamma: float = 1.5
    delta: float = 0.1
    box_loss_weight: float = 50.0
    iou_loss: IouKind | None = None
    iou_loss_weight: float = 1.0
    suppression: Suppression = AS_EVALUATED

    best = "ap"
    outputs = OUTPUTS
    draws = True
    answers: ClassVar[Literal["boxes"]] = "boxes"
    activation: ClassVar[Literal["sigmoid"]] = "sigmoid"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The parts of the loss, before their weights, and the number of positives of the global batch."""
        parts = ("class_loss", "box_loss", *(["iou_loss"] if self.iou_loss else []))
        return (*parts, "positives")

    def layers(self, spec: ModelSpec) -> tuple[Node, ...]:
        """List the layers of the backbone, the BiFPN and the heads."""
        return detector_layers(self.detector, spec, self.num_classes)

    def anchors(self, image: tf.Tensor) -> np.ndarray:
        """Return the anchors of images [b, H, W, 3]: float32 [anchors, 4]."""
        return self.anchors_of((image.shape[1], image.shape[2]))

    def anchors_of(self, size: Size) -> np.ndarray:
        """Return the anchors of images of a size: float32 [anchors, 4]."""
        return _anchors(self.detector, *height_width(size))

    def prepare(self, batch: Batch) -> Batch:
        """Assign boxes to anchors.

        Args:
          batch: "image", "boxes", float32 [b, n, 4] in pixels of the image, and "classes", int32 [b, n],
            padded with NO_CLASS.

        Returns:
          "classes" int32 [b, anchors], "codes" float32 [b, anchors, 4] and "positives" float32 [b] instead of
          the boxes.
        """
        anchors = tf.constant(self.anchors(batch["image"]))
        targets = assign(batch["boxes"], batch["classes"], anchors)
        rest = {name: part for name, part in batch.items() if name != "boxes"}
        return {
            **rest,
            "classes": targets.classes,
            "codes": targets.codes,
            "positives": targets.num_positives,
        }

    def weight(self, batch: Batch) -> tf.Tensor:
        """Return the number of positives."""
        return tf.reduce_sum(batch["positives"])

    def loss(
        self,
        outputs: Mapping[str, tf.Tensor],
        batch: Batch,
        weight: float | tf.Tensor,
        total: Total,
    ) -> tuple[tf.Tensor, Mapping[str, tf.Tensor]]:
        """Compute the shares of the losses.

        They are divided by one more than the number of positives, as published.
        """
        divisor = weight + 1.0
        classes, codes = batch["classes"], batch["codes"]
        class_loss = tf.reduce_sum(
            focal(
                outputs["classes"],
                classes,
                alpha=self.alpha,
                gamma=self.gamma,
                label_smoothing=self.label_smoothing,
            )
        )
        box_loss = tf.reduce_sum(huber(outputs["boxes"], codes, delta=self.delta))
        metrics = {
            "class_loss": class_loss / divisor,
            "box_loss": box_loss / (divisor * COORDINATES),
        }
        loss = metrics["class_loss"] + self.box_loss_weight * metrics["box_loss"]
        if self.iou_loss:
            anchors = self.anchors(batch["image"])
            positive = (classes != NO_CLASS)[..., tf.newaxis]
            predicted, target = (
                tf.where(positive, coding.decode(each, anchors), 0.0)
                for each in (tf.where(positive, outputs["boxes"], 0.0), codes)
            )
            iou = tf.reduce_sum(iou_loss(predicted, target, self.iou_loss))
            metrics["iou_loss"] = iou / (divisor * COORDINATES)
            loss += self.iou_loss_weight * metrics["iou_loss"]
        return loss, {**metrics, "positives": tf.reduce_sum(batch["positives"])}

    def detect(self, outputs: Mapping[str, tf.Tensor], image: tf.Tensor) -> Detections:
        """Choose detections, with boxes in pixels of the network's input.

        Boxes may reach outside of it.
        """
        settings = self.suppression
        given = candidates(
            outputs["classes"], outputs["boxes"], self.anchors(image), settings.max_candidates
        )
        return suppress(given, settings)

    def measure(self, outputs: Mapping[str, tf.Tensor], batch: Batch) -> Measures:
        """Keep the detections and the objects of every image, in pixels of the original image.

        Args:
          outputs: of the network.
          batch: "image", "mask" [b], "boxes" float32 [b, n, 4] in pixels of the original image, "classes",
            "crowd" and "area" [b, n], and "placement" [b, 4]: scale and offset of the image in the network's
            input.

        Returns:
          sums: int32 "examples" and "objects".
          rows: "valid" [b]; "detections" [b, k, 6], box, score and class; "objects" [b, n, 7], box, class,
            crowd and area. The score does not depend on the order of the rows unless scores are equal.
        """
        valid = batch["mask"]
        found = self.detect(outputs, batch["image"])
        boxes = to_original(found.boxes, batch["placement"])
        detections = tf.concat(
            [boxes, found.scores[..., tf.newaxis], _floats(found.classes)], axis=-1
        )
        objects = tf.concat(
            [
                batch["boxes"],
                _floats(batch["classes"]),
                batch["crowd"][..., tf.newaxis],
                batch["area"][..., tf.newaxis],
            ],
            axis=-1,
        )
        counted = (batch["classes"] != NO_CLASS) & (valid > 0)[:, tf.newaxis]
        sums = {
            "examples": tf.reduce_sum(tf.cast(valid > 0, tf.int32)),
            "objects": tf.reduce_sum(tf.cast(counted, tf.int32)),
        }
        finite = tf.where(tf.math.is_finite(detections), detections, 0.0)
        return Measures(sums, {"valid": valid, "detections": finite, "objects": objects})

    def score(
        self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """Return the figures of `coco.coco_figures`; every image counts."""
        return coco_figures(*self._coco_rows(rows), self.num_classes)

    def draw(
        self,
        outputs: Mapping[str, tf.Tensor],
        batch: Mapping[str, np.ndarray],
        class_names: Sequence[str],
    ) -> list[list[np.ndarray]]:
        """Draw the objects of each image, and beside them the detections with a score of at least SHOWN."""
        found = self.detect(outputs, batch["image"])
        boxes, scores, classes = (x.numpy() for x in found[:3])
        scale, offset = batch["placement"][:, :2], batch["placement"][:, 2:]
        pictures = []
        for i, image in enumerate(batch["image"]):
            real, shown = batch["classes"][i] != NO_CLASS, scores[i] >= SHOWN
            true = batch["boxes"][i][real] * np.tile(scale[i], 2) + np.tile(offset[i], 2)
            labels, answers = batch["classes"][i][real], classes[i][shown]
            texts = [
                f"{class_names[label]} {score:.0%}"
                for label, score in zip(answers, scores[i][shown], strict=True)
            ]
            pictures.append(
                [
                    draw_boxes(image, true, [class_names[label] for label in labels], labels),
                    draw_boxes(image, boxes[i][shown], texts, answers),
                ]
            )
        return pictures

    def format_score(self, figures: Mapping[str, float]) -> dict[str, str]:
        """Format the average precisions in percent."""
        shown = {"AP": "ap", "AP50": "ap_50", "AP75": "ap_75", "AR": "ar_100"}
        return {text: f"{figures[name]:.2%}" for text, name in shown.items()}

    def per_class(
        self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return the number of objects and the AP of every class; crowds do not count."""
        ground_truth, detections, images = self._coco_rows(rows)
        evaluated = evaluate(ground_truth, detections, images, self.num_classes)
        precision = evaluated.eval["precision"][:, :, :, 0, -1].mean((0, 1))
        labels = ground_truth[ground_truth[:, 6] == 0, 5].astype(np.int64)
        return {
            "objects": np.bincount(labels, minlength=self.num_classes),
            "AP": np.where(precision < 0, np.nan, precision),
        }

    def errors(self, outputs: Mapping[str, tf.Tensor], batch: Batch) -> tf.Tensor:
        """Return the best score of a detection without an object of its class at an IoU of 0.5 or more."""
        found = self.detect(outputs, batch["image"])
        boxes = to_original(found.boxes, batch["placement"])
        overlap = coding.iou(boxes[:, :, tf.newaxis], batch["boxes"][:, tf.newaxis])
        same = found.classes[..., tf.newaxis] == batch["classes"][:, tf.newaxis]
        right = tf.reduce_any(same & (overlap >= 0.5), axis=-1)
        surest = tf.reduce_max(tf.where(right, 0.0, found.scores), axis=-1)
        return tf.where(batch["mask"] > 0, surest, 0.0)

    def evidence(self, outputs: Mapping[str, tf.Tensor]) -> None:
        """Return None: there is no single output that a map could explain."""

    def caption(
        self, output: Any, example: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> str:
        """Name detections and objects: "three 98%, one 40%; is three, one"."""
        outputs = {name: tf.constant(value)[tf.newaxis] for name, value in output.items()}
        found = self.detect(outputs, tf.constant(example["image"])[tf.newaxis])
        scores, classes = found.scores[0].numpy(), found.classes[0].numpy()
        said = [
            f"{class_names[label]} {score:.0%}"
            for label, score in zip(classes, scores, strict=True)
            if score >= SHOWN
        ]
        true = [class_names[label] for label in example["classes"] if label != NO_CLASS]
        return f"{', '.join(said) or 'nothing'}; is {', '.join(true) or 'nothing'}"

    def _coco_rows(self, rows: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, range]:
        """Return ground truth, detections and images as `coco.evaluate` takes them."""
        valid = rows["valid"] > 0
        found, objects = (
            rows[name][valid].astype(np.float64) for name in ("detections", "objects")
        )
        image, place = np.nonzero(found[..., 4] > 0)
        detections = np.column_stack([image, corner_and_sides(found[image, place])])
        image, place = np.nonzero(objects[..., 4] != NO_CLASS)
        ground_truth = np.column_stack([image, corner_and_sides(objects[image, place])])
        return ground_truth, detections, range(len(found))


def to_original(boxes: tf.Tensor, placement: tf.Tensor) -> tf.Tensor:
    """Map boxes [b, k, 4] in the network's input to the original image.

    Args:
      boxes: float32 [b, k, 4].
      placement: float32 [b, 4], the scales and offsets (y, x) of `Placement`.
    """
    scale, offset = placement[:, tf.newaxis, :2], placement[:, tf.newaxis, 2:]
    twice = [1, 1, 2]
    return (boxes - tf.tile(offset, twice)) / tf.tile(scale, twice)


@functools.lru_cache(maxsize=8)
def _anchors(detector: DetectorSpec, height: int, width: int) -> np.ndarray:
    return anchor_boxes(detector.anchors, (height, width))


def _floats(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(values, tf.float32)[..., tf.newaxis]


def corner_and_sides(rows: np.ndarray) -> np.ndarray:
    """Turn [ymin, xmin, ymax, xmax, ...] into [x, y, width, height, ...]."""
    ymin, xmin, ymax, xmax = rows[:, :4].T
    return np.column_stack([xmin, ymin, xmax - xmin, ymax - ymin, rows[:, 4:]])
