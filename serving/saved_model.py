"""Export a SavedModel for TensorFlow Serving: encoded images in, labels and probabilities out.

Decoding, crop, resize, normalisation and class names are inside, in TensorFlow's own operations, so
serving it needs neither this project nor Keras. The variables are stored once; every signature calls
the same function of the network. Signatures, n being any number of images and k = min(5, classes):

  serving_default: `image_bytes`, string [n], JPEG, PNG, BMP or GIF (its first frame).
  predict_images: `images`, float32 [n, H, W, 3] on the scale 0..255, already framed; what a
    letterbox pads has the mean colour.
  predict_images_uint8: the same, uint8.
  features: `image_bytes` as above.
  endpoints: `images`, float32 as above.
  explain: `image_bytes` as above.

The first three return
  probabilities: float32 [n, classes].
  classes: int64 [n, k], the most probable classes, most probable first.
  labels: string [n, k], their names, UTF-8.
  scores: float32 [n, k], their probabilities.
  valid: bool [n], false for bytes that cannot be decoded and for pixels that are not finite.
    Such an image has zeros for probabilities and scores, -1 for classes and empty labels; it
    does not change the rest of the batch.
`features` returns `features`, float32 [n, F], pooled, zeros where not valid, and `valid`.
`endpoints` returns `reduction_1` .. `reduction_5`, float32 [n, h, w, C] at strides 2 .. 32.
`explain` returns, for the most probable class, `heatmaps` of Grad-CAM, float32 [n, H, W] in
[0, 1], the cropped `images`, uint8 [n, H, W, 3], and `valid`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from efficientnet import ModelSpec, endpoints, normalize_images
from efficientnet.blocks import Node
from input_pipeline.images.placement import height_width
from input_pipeline.images.view import EvalView
from serving.heatmaps import heat_of
from serving.network import ACTIVATIONS, ExportError, build_inference_network
from serving.version_folder import write_version
from serving.warmup import write_warmup_requests
from tasks.task import Task
from training.step.padding import fill_padding

MAX_LABELS = 5  # classes in an answer
MIN_HEATMAP_SIDE = 7  # cells; the last feature map of a published network has no fewer

ENCODED = tf.TensorSpec([None], tf.string, "image_bytes")

Outputs = dict[str, tf.Tensor]
RGB = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Servable:
    """A trained network, what it sees of an image, and what its outputs mean.

    Attributes:
      spec: the network.
      num_classes: units of the classifier.
      weights: values of the model's `trainable_variables`, in order.
      statistics: values of its `non_trainable_variables`, in order.
      view: makes the network's input of an image.
      class_names: one per class; None names them "0", "1", ...
      activation: from logits to probabilities, "softmax" or "sigmoid".
      layers: of the network; None: those of a classifier.
      task: what the network learned, for signatures that need more of it than `activation`.

    Raises:
      ExportError: the number of class names is not num_classes.
    """

    spec: ModelSpec
    num_classes: int
    weights: Sequence[np.ndarray]
    statistics: Sequence[np.ndarray]
    view: EvalView
    class_names: Sequence[str] | None = None
    activation: str = "softmax"
    layers: Sequence[Node] | None = None
    task: Task | None = None

    def __post_init__(self) -> None:
        if len(self.names) != self.num_classes:
            raise ExportError(
                f"{len(self.names)} class names for {self.num_classes} classes; expected one per class"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class."""
        if self.class_names is None:
            return tuple(map(str, range(self.num_classes)))
        return tuple(self.class_names)

    def build(self) -> keras.Model:
        """Build the network with its values; see `build_inference_network`."""
        return build_inference_network(
            self.spec,
            num_classes=self.num_classes,
            image_size=self.view.size,
            weights=self.weights,
            statistics=self.statistics,
            layers=self.layers,
            outputs=self.task.outputs if self.task else None,
        )


Signatures = Callable[[Servable, keras.Model], dict[str, Any]]


def export_saved_model(
    directory: str,
    servable: Servable,
    signatures: Signatures | None = None,
    *,
    version: int,
    finish: Callable[[str], object] | None = None,
) -> str:
    """Write DIRECTORY/VERSION atomically, with its signatures; replace an existing version.

    `assets.extra` holds requests that TensorFlow Serving warms up with.

    Args:
      directory: local or gs:// folder of versions, the `base_path` of TensorFlow Serving.
      servable: what is exported.
      signatures: of a servable and its network; None: `class_signatures`.
      version: 0 or above; TensorFlow Serving serves the highest.
      finish: called with the path of the temporary folder before it is renamed, to add files.

    Returns:
      Path of the version's folder.

    Raises:
      ExportError: the values are not those of the network, or the version is negative; nothing is
        written.
      OSError: the folder cannot be written; an existing version is unchanged.
    """
    if version < 0:
        raise ExportError(f"version is {version}; TensorFlow Serving takes 0 or more")
    network = servable.build()
    module = tf.Module()
    module.held = [variable.value for variable in network.variables]
    named = (signatures or class_signatures)(servable, network)

    def write(path: str) -> None:
        tf.saved_model.save(module, path, named)
        write_warmup_requests(
            path, servable.spec.name, height_width(servable.view.size), tuple(named)
        )
        if finish:
            finish(path)

    return write_version(directory, version, write)


def class_signatures(servable: Servable, network: keras.Model) -> dict[str, Any]:
    """Return the signatures above of a classifier."""
    spec, view = servable.spec, servable.view
    inside = keras.Model(network.input, endpoints(network))

    def compute(images: tf.Tensor) -> Outputs:
        return inside(normalize_images(images, spec.mean_rgb, spec.stddev_rgb), training=False)

    answer = functools.partial(
        _answer, activation=ACTIVATIONS[servable.activation], class_names=servable.names
    )
    return {
        **_signatures(compute, view, answer, spec.mean_rgb),
        "explain": _heatmap_signature(compute, view, heatmap_endpoint(network), spec.mean_rgb),
    }


def _signatures(
    compute: Callable[[tf.Tensor], Outputs],
    view: EvalView,
    answer: Callable[[tf.Tensor, tf.Tensor], Outputs],
    mean_rgb: RGB,
) -> dict[str, Any]:
    shape = [None, *view.pixels]
    # All signatures share one function of the network; loading prunes what a signature does not use.
    run = tf.function(compute, autograph=False, input_signature=[tf.TensorSpec(shape, tf.float32)])

    @tf.function(autograph=False, input_signature=[ENCODED])
    def predict_bytes(image_bytes: tf.Tensor) -> Outputs:
        framed, valid = crop_all(image_bytes, view)
        return answer(run(pixels_of(framed, mean_rgb))["logits"], valid)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, tf.float32, "images")])
    def predict_images(images: tf.Tensor) -> Outputs:
        valid = tf.reduce_all(tf.math.is_finite(images), axis=[1, 2, 3])
        return answer(run(images)["logits"], valid)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, tf.uint8, "images")])
    def predict_images_uint8(images: tf.Tensor) -> Outputs:
        return predict_images(tf.cast(images, tf.float32))

    @tf.function(autograph=False, input_signature=[ENCODED])
    def features(image_bytes: tf.Tensor) -> Outputs:
        framed, valid = crop_all(image_bytes, view)
        pooled = run(pixels_of(framed, mean_rgb))["pooled"]
        return {"features": tf.where(valid[:, tf.newaxis], pooled, 0.0), "valid": valid}

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, tf.float32, "images")])
    def reductions(images: tf.Tensor) -> Outputs:
        return {name: x for name, x in run(images).items() if name.startswith("reduction_")}

    return {
        "serving_default": predict_bytes,
        "predict_images": predict_images,
        "predict_images_uint8": predict_images_uint8,
        "features": features,
        "endpoints": reductions,
    }


def heatmap_endpoint(network: keras.Model) -> str:
    """Return the endpoint for Grad-CAM: the deepest one with at least MIN_HEATMAP_SIDE cells a side."""
    sides = {name: min(x.shape[1:3]) for name, x in endpoints(network).items() if len(x.shape) == 4}
    fine = [name for name, side in sides.items() if side >= MIN_HEATMAP_SIDE]
    return fine[-1] if fine else max(sides, key=lambda name: sides[name])


def _heatmap_signature(
    compute: Callable[[tf.Tensor], Outputs],
    view: EvalView,
    endpoint: str,
    mean_rgb: RGB,
) -> Any:
    """Return Grad-CAM (arXiv 1610.02391): feature maps weighted by the gradient of the best logit."""

    @tf.function(autograph=False, input_signature=[ENCODED])
    def heatmaps(image_bytes: tf.Tensor) -> Outputs:
        framed, valid = crop_all(image_bytes, view)
        inside = compute(pixels_of(framed, mean_rgb))
        best = tf.reduce_max(inside["logits"], axis=1)
        maps = inside[endpoint]
        (gradient,) = tf.gradients(best, maps)
        heat = heat_of(maps, gradient, height_width(view.size))
        return {
            "heatmaps": tf.where(valid[:, tf.newaxis, tf.newaxis], heat, 0.0),
            "images": framed["image"],
            "valid": valid,
        }

    return heatmaps


def pixels_of(framed: Mapping[str, tf.Tensor], mean_rgb: RGB) -> tf.Tensor:
    """Return framed images as float32 [n, H, W, 3]; padding gets the mean, which normalises to 0."""
    return fill_padding(tf.cast(framed["image"], tf.float32), framed, mean_rgb)


def crop_all(image_bytes: tf.Tensor, view: EvalView) -> tuple[Outputs, tf.Tensor]:
    """Crop images in parallel; an image that cannot be decoded becomes black.

    Args:
      image_bytes: string [n].
      view: makes the network's input of an image.

    Returns:
      {"image": uint8 [n, H, W, 3]} and, if the framing pads, what says where; see `View.finish`. And
      valid: bool [n].
    """
    return crop_each(image_bytes, view, view.blank())


@tf.autograph.experimental.do_not_convert  # nor may its dataset's map be converted
def crop_each(
    image_bytes: tf.Tensor, make: Callable[[tf.Tensor], Outputs], blank: Outputs
) -> tuple[Outputs, tf.Tensor]:
    """Apply `make` to encoded images in parallel; one that cannot be decoded gives `blank`.

    In a graph only a data set can catch an error, so the batch goes through one that ignores errors.
    The numbers of the images that come out show which ones failed.

    Args:
      image_bytes: string [n].
      make: of the bytes of an image, string [], tensors with the names and shapes of `blank`.
      blank: stands for an image that cannot be decoded.

    Returns:
      The tensors of all images, and valid: bool [n].
    """
    with tf.device("/device:CPU:0"):
        n = tf.size(image_bytes, out_type=tf.int64)
        numbered = tf.data.Dataset.from_tensor_slices((tf.range(n), image_bytes))
        cropped = numbered.map(
            lambda place, encoded: (place, make(encoded)),
            num_parallel_calls=tf.data.AUTOTUNE,
        ).ignore_errors()
        # One more image, so that the batch is never empty.
        done = cropped.concatenate(tf.data.Dataset.from_tensors((n, blank))).batch(n + 1)
        places, made = done.get_single_element()
        made = {key: tf.ensure_shape(part, [None, *blank[key].shape]) for key, part in made.items()}
        ones = tf.ones_like(places, tf.int32)
        valid = tf.scatter_nd(places[:, tf.newaxis], ones, [n + 1]) > 0
        # tf.gather takes uint8 on every device, scatter_nd on the CPU alone; blank is the last image.
        last = tf.size(places, out_type=tf.int64) - 1
        row = tf.where(valid, tf.cumsum(tf.cast(valid, tf.int64)) - 1, last)
        return {key: tf.gather(part, row[:n]) for key, part in made.items()}, valid[:n]


def _answer(
    logits: tf.Tensor,
    valid: tf.Tensor,
    *,
    activation: Callable[[tf.Tensor], tf.Tensor],
    class_names: Sequence[str],
) -> Outputs:
    probabilities = activation(logits)
    probabilities = tf.where(valid[:, tf.newaxis], probabilities, 0.0)
    scores, best = tf.math.top_k(probabilities, k=min(MAX_LABELS, len(class_names)))
    labels = tf.gather(tf.constant(list(class_names), tf.string), best)
    shown = valid[:, tf.newaxis]
    return {
        "probabilities": probabilities,
        "classes": tf.where(shown, tf.cast(best, tf.int64), tf.constant(-1, tf.int64)),
        "labels": tf.where(shown, labels, ""),
        "scores": scores,
        "valid": valid,
    }
