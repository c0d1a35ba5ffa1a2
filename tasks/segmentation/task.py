"""A class for each pixel: losses over the valid pixels of the global batch, mean IoU from exact counts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import tensorflow as tf

from efficientnet import ModelSpec
from efficientnet.blocks import Node
from efficientnet.segmentation.unet import Skips, UNet, unet_layers
from input_pipeline.images.label_map import IGNORED
from input_pipeline.images.overlay import overlay_classes
from system.errors import UsageError
from tasks.segmentation.losses import (
    Overlaps,
    cross_entropy,
    dice_loss,
    focal_loss,
    jaccard_loss,
    overlaps,
)
from tasks.segmentation.resize import resize_logits
from tasks.segmentation.scores import confusion, intersection_over_union
from tasks.task import Batch, Labels, Measures, Total

DEFAULT_DECODER = UNet()
LOSSES = ("cross_entropy", "focal", "dice", "jaccard")
OF_OVERLAP = {"dice": dice_loss, "jaccard": jaccard_loss}  # losses of the whole batch's sums


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """Semantic segmentation with a U-Net.

    Labels are uint8 [b, H, W]; pixels of the value IGNORED count neither in a loss, nor in its divisor, nor
    in the score. Cross entropy and focal loss are means over the valid pixels of the global batch. Dice and
    jaccard loss are ratios of sums over these pixels, not means of the replicas' losses.

    Attributes:
      num_classes: classes of the labels.
      label_smoothing: in [0, 1); of the cross entropy.
      losses: weight of each loss in their sum, by a name of LOSSES.
      class_weights: of each class in every loss; None: 1. The divisors do not depend on them.
      focal_gamma: exponent of the focal loss.
      decoder: of the network.
    """

    num_classes: int
    label_smoothing: float = 0.0
    losses: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"cross_entropy": 1.0})
    class_weights: tuple[float, ...] | None = None
    focal_gamma: float = 2.0
    decoder: UNet = DEFAULT_DECODER

    best = "mean_iou"
    outputs = None
    answers: ClassVar[Literal["class_maps"]] = "class_maps"
    draws = True
    activation: ClassVar[Literal["softmax"]] = "softmax"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The losses before their weights, and the share of the valid pixels that are right."""
        return (*self.losses, "pixel_accuracy")

    @classmethod
    def of(
        cls,
        labels: Labels,
        label_smoothing: float,
        *,
        class_weights: tuple[float, ...] | None,
        focal_gamma: float,
        decoder_filters: tuple[int, ...],
        skips: Skips,
        **losses: float,
    ) -> "Segmentation":
        """Build the task of a data set; `losses` are weights by a name of LOSSES, 0 for none.

        Raises:
          UsageError: there is not one class weight for each class.
        """
        if class_weights is not None and len(class_weights) != labels.num_classes:
            raise UsageError(
                f"task.class_weights: {len(class_weights)} numbers for {labels.num_classes} classes; expected"
                " one for each"
            )
        return cls(
            labels.num_classes,
            label_smoothing,
            losses={name: losses[name] for name in LOSSES if losses[name]},
            class_weights=class_weights,
            focal_gamma=focal_gamma,
            decoder=UNet(decoder_filters, skips),
        )

    def layers(self, spec: ModelSpec) -> tuple[Node, ...]:
        """List the layers of a U-Net; see `unet_layers`."""
        return unet_layers(spec, self.decoder, self.num_classes)

    def prepare(self, batch: Batch) -> Batch:
        """Replace "label" by class numbers, int32, 0 where ignored, and "counts", float32, 1 or 0."""
        labels = tf.cast(batch["label"], tf.int32)
        counts = labels != IGNORED
        return {
            **batch,
            "label": tf.where(counts, labels, 0),
            "counts": tf.cast(counts, tf.float32),
        }

    def weight(self, batch: Batch) -> tf.Tensor:
        """Return the number of valid pixels."""
        return tf.reduce_sum(batch["counts"])

    def loss(
        self, outputs: tf.Tensor, batch: Batch, weight: float | tf.Tensor, total: Total
    ) -> tuple[tf.Tensor, Mapping[str, tf.Tensor]]:
        """Compute the shares of the losses of float32 [b, H, W, classes] logits, and of the accuracy."""
        labels, counts = batch["label"], batch["counts"]
        divisor = tf.maximum(weight, 1.0)  # without valid pixels the loss is 0
        metrics = self._of_pixels(outputs, labels, counts, divisor)
        if any(name in OF_OVERLAP for name in self.losses):
            metrics |= self._of_batch(outputs, labels, counts, total)
        share = tf.add_n([scale * metrics[name] for name, scale in self.losses.items()])
        right = tf.argmax(outputs, -1, output_type=tf.int32) == labels
        metrics["pixel_accuracy"] = tf.reduce_sum(tf.where(right, counts, 0.0)) / divisor
        return share, metrics

    def measure(self, outputs: tf.Tensor, batch: Batch) -> Measures:
        """Count the pixels of a batch by true and predicted class.

        With "placement" in the batch the labels have the size of the original images, and the logits are
        resized to it before the class is chosen.

        Returns:
          int32 "examples", and "confusion" [classes, classes], rows true, columns predicted.
        """
        real = batch["mask"] > 0
        if "placement" in batch:
            outputs = resize_logits(outputs, batch["placement"], batch["label"].shape[1:3])
        labels = tf.cast(batch["label"], tf.int32)
        labels = tf.where(real[:, tf.newaxis, tf.newaxis], labels, IGNORED)
        predicted = tf.argmax(outputs, -1, output_type=tf.int32)
        sums = {
            "examples": tf.reduce_sum(tf.cast(real, tf.int32)),
            "confusion": confusion(labels, predicted, self.num_classes),
        }
        return Measures(sums, {})

    def score(
        self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """Return the mean IoU, the share of right pixels, and the IoU of each class, all in [0, 1].

        Classes that are neither true nor predicted anywhere are left out.
        """
        counts = np.asarray(sums["confusion"], np.float64)
        each = intersection_over_union(counts)
        there = np.flatnonzero(np.isfinite(each))
        return {
            "mean_iou": float(each[there].mean()) if len(there) else 0.0,
            "pixel_accuracy": float(np.trace(counts) / max(counts.sum(), 1.0)),
            **{f"iou/{number}": float(each[number]) for number in there},
        }

    def format_score(self, figures: Mapping[str, float]) -> dict[str, str]:
        """Format the mean IoU and the accuracy in percent."""
        return {
            "mean IoU": f"{figures['mean_iou']:.2%}",
            "pixel accuracy": f"{figures['pixel_accuracy']:.2%}",
        }

    def per_class(
        self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return the pixels and the IoU of each class."""
        counts = np.asarray(sums["confusion"])
        return {"pixels": counts.sum(axis=1), "IoU": intersection_over_union(counts)}

    def errors(self, outputs: tf.Tensor, batch: Batch) -> tf.Tensor:
        """Return the share of the valid pixels of each image that are wrong."""
        labels = tf.cast(batch["label"], tf.int32)
        counts = labels != IGNORED
        wrong = counts & (tf.argmax(outputs, -1, output_type=tf.int32) != labels)
        pixels, mistakes = (
            tf.reduce_sum(tf.cast(flags, tf.float32), axis=[1, 2]) for flags in (counts, wrong)
        )
        return tf.math.divide_no_nan(mistakes, pixels) * batch["mask"]

    def evidence(self, outputs: tf.Tensor) -> tf.Tensor | None:
        """Return None: there is no single output that a map could explain."""
        return None

    def caption(
        self, output: Any, example: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> str:
        """Name the right share and the most frequent mistake: "91% right; sky taken for road 4%"."""
        labels, predicted = example["label"], np.argmax(output, axis=-1)
        counts = labels != IGNORED
        wrong = counts & (predicted != labels)
        said = f"{1 - wrong.sum() / max(counts.sum(), 1):.0%} right"
        if not wrong.any():
            return said
        pairs, found = np.unique(
            np.stack([labels[wrong], predicted[wrong]]), axis=1, return_counts=True
        )
        true, taken = (class_names[int(n)] for n in pairs[:, found.argmax()])
        return f"{said}; {true} taken for {taken} {found.max() / counts.sum():.0%}"

    def draw(
        self, outputs: Any, batch: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> list[list[np.ndarray]]:
        """Draw each image alone, with its labels, and with the predicted classes."""
        predicted = np.argmax(outputs, axis=-1)
        rows = zip(batch["image"], batch["label"], predicted, strict=True)
        return [
            [image, overlay_classes(image, labels), overlay_classes(image, answer)]
            for image, labels, answer in rows
        ]

    def _of_pixels(
        self, logits: tf.Tensor, labels: tf.Tensor, counts: tf.Tensor, divisor: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Compute this replica's shares of the losses that are means over pixels."""
        if self.class_weights:
            counts *= tf.gather(tf.constant(self.class_weights, tf.float32), labels)
        found = {}
        if "cross_entropy" in self.losses:
            each = cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            found["cross_entropy"] = tf.reduce_sum(each * counts) / divisor
        if "focal" in self.losses:
            each = focal_loss(logits, labels, gamma=self.focal_gamma)
            found["focal"] = tf.reduce_sum(each * counts) / divisor
        return found

    def _of_batch(
        self, logits: tf.Tensor, labels: tf.Tensor, counts: tf.Tensor, total: Total
    ) -> dict[str, tf.Tensor]:
        """Compute this replica's shares of the losses of the sums over the global batch.

        Every replica computes the whole loss. Its gradient flows through the replica's own part of the
        sums, and its value is divided by the number of replicas.
        """
        own = tf.concat(overlaps(logits, labels, counts), axis=0)
        found = total(tf.concat([own, [1.0]], axis=0))
        everywhere, replicas = found[:-1], found[-1]
        sums = Overlaps(*tf.split(own + tf.stop_gradient(everywhere - own), 3))
        weights = tf.constant(self.class_weights or 1.0, tf.float32)
        losses = {}
        for name, loss in OF_OVERLAP.items():
            if name in self.losses:
                whole = loss(sums, weights)
                losses[name] = whole - tf.stop_gradient(whole * (1.0 - 1.0 / replicas))
        return losses
