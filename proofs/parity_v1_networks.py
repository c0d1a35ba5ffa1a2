"""The rows of `proofs.parity` for EfficientNets: steps, a checkpoint, keras.applications, initial weights."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from efficientnet import build_model, complexity, endpoints, get_spec, normalize_images
from efficientnet.spec import ModelSpec
from efficientnet.weights import Weights
from efficientnet.weights.keras_applications import from_keras_applications
from efficientnet.weights.keras_file import assign_weights
from efficientnet.weights.tf1 import read_tf1_checkpoint, tf1_names
from proofs.parity_row import ParityRow, largest, relative_to_each, relative_to_largest
from tasks.classification import Classification
from training.devices.distribution import connect
from training.optimizers import RMSProp, schedules
from training.step.batch_norm import CrossReplicaBatchNormalization
from training.step.noise import MaskNoise
from training.step.recipe import TrainRecipe
from training.step.state import TrainState, WeightsKind, create_train_state
from training.step.train_step import make_train_loop

# The network of the goldens: small enough for five whole steps in a file.
TINY = get_spec("efficientnet-b0", width=0.25, depth=0.5, dropout=0.0, survival_probability=1.0)
TINY_CLASSES = 10


# -- whole training steps -----------------------------------------------------------------------


def train_tiny(goldens: Path) -> tuple[TrainState, dict[str, np.ndarray]]:
    """Repeat the golden run with our own network, loss, optimizer, average and training loop.

    Returns:
      The state after 5 steps, and the metrics by name, each float32 [5].
    """
    archive = np.load(goldens / "train_step_tiny_b0.npz")
    distribution, noise = connect("cpu"), MaskNoise(0)
    network = build_model(
        TINY,
        num_classes=TINY_CLASSES,
        image_size=64,
        batch_norm=CrossReplicaBatchNormalization,
        uniform=noise,
    )
    names = tf1_names(TINY, TINY_CLASSES)
    for variable in network.weights:
        variable.assign(archive[f"initial/{names[variable.path]}"])
    recipe = TrainRecipe(
        task=Classification(TINY_CLASSES),
        optimizer=RMSProp(),
        learning_rate=schedules.with_warmup(
            schedules.constant(peak=0.005), peak=0.005, warmup_steps=5
        ),
        normalize=functools.partial(
            normalize_images, mean_rgb=TINY.mean_rgb, stddev_rgb=TINY.stddev_rgb
        ),
        noise=noise,
    )
    state = create_train_state(
        network, distribution, optimizer=recipe.optimizer, with_ema=True, with_loss_scale=False
    )
    batches = tf.data.Dataset.from_tensor_slices(
        {"image": archive["images"], "label": archive["labels"]}
    )
    loop = make_train_loop(state, recipe, distribution, batches.element_spec)
    rows = loop(iter(batches), tf.constant(len(archive["images"]))).numpy()
    return state, dict(zip(recipe.metrics, rows.T, strict=True))


def training_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare five whole training steps: losses, weights, averages, logits and endpoints."""
    archive = np.load(goldens / "train_step_tiny_b0.npz")
    state, metrics = train_tiny(goldens)
    section = "five training steps"
    for metric, key, reference in (
        ("cross_entropy", "cross_entropy", "softmax, smoothing .1"),
        ("loss", "total_loss", "+ 1e-5 * sum of w^2/2, biases too"),
        ("learning_rate", "learning_rate", "linear warm-up"),
    ):
        found = metrics[metric]
        measured = relative_to_each(found, archive[key])
        yield ParityRow(section, key, reference, "the same", measured, 1e-4, "relative")

    paths, names = state.paths, tf1_names(TINY, TINY_CLASSES)
    kinds: tuple[tuple[WeightsKind, str, str], ...] = (
        ("raw", "final", "weights and batch statistics"),
        ("ema", "final_ema", "averages of weights and batch statistics"),
    )
    for weights_kind, kind, reference in kinds:
        weights, statistics = state.read_network(weights_kind)
        values = [tensor.numpy() for tensor in (*weights, *statistics)]
        named: Weights = dict(zip(paths, values, strict=True))
        measured = max(
            relative_to_largest(named[path], archive[f"{kind}/{name}"])
            for path, name in names.items()
        )
        item = f"{kind}, {len(names)} variables"
        yield ParityRow(section, item, reference, "the same", measured, 1e-3, "relative")
        outputs = _tiny_outputs(named, archive["images"][0])
        yield from _output_rows(section, outputs, archive, weights_kind)


def checkpoint_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare outputs with the weights of the same run's TF 1 checkpoint."""
    archive = np.load(goldens / "train_step_tiny_b0.npz")
    for weights_kind in ("ema", "raw"):
        weights = read_tf1_checkpoint(goldens / "tf1_checkpoint", TINY, raw=weights_kind == "raw")
        outputs = _tiny_outputs(weights, archive["images"][0])
        yield from _output_rows("TF 1 checkpoint", outputs, archive, weights_kind)


def _output_rows(
    section: str, outputs: dict[str, np.ndarray], archive: Any, weights_kind: str
) -> Iterator[ParityRow]:
    measured = largest(outputs["logits"], archive[f"eval_logits_{weights_kind}"])
    yield ParityRow(
        section,
        f"logits, {weights_kind} weights",
        "NHWC, float32",
        "the same",
        measured,
        1e-3,
        "absolute",
    )
    prefix = f"eval_endpoint_mean_{weights_kind}/"
    ours = {"pooled_features": outputs["pooled"]} | {
        name: np.mean(value, axis=(1, 2)) for name, value in outputs.items() if value.ndim == 4
    }
    stored = [key for key in archive.files if key.startswith(prefix)]
    if stored:
        measured = max(largest(ours[key.removeprefix(prefix)], archive[key]) for key in stored)
        item = f"{len(stored)} endpoints, {weights_kind} weights"
        text = "reduction_1..5, pooled_features"
        yield ParityRow(section, item, text, "reduction_1..5, pooled", measured, 1e-3, "absolute")


def _tiny_outputs(weights: Weights, images: np.ndarray) -> dict[str, np.ndarray]:
    """Compute every endpoint of the golden network in inference mode."""
    network = build_model(TINY, num_classes=TINY_CLASSES, image_size=images.shape[1])
    for variable in network.weights:
        variable.assign(weights[variable.path])
    every = keras.Model(network.input, endpoints(network))
    outputs = every(normalize_images(images, TINY.mean_rgb, TINY.stddev_rgb))
    return {name: value.numpy() for name, value in outputs.items()}


# -- keras.applications -------------------------------------------------------------------------


def keras_applications_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare keras.applications' networks, random weights: logits of b0..b3, shapes of b4..b7."""
    del goldens
    section, source = "keras.applications", "normalises inside the network, from 0..255"
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    for number in range(4):
        spec = get_spec(f"efficientnet-b{number}")
        theirs = _random_keras_applications(number, spec, image_size=64)
        ours = build_model(spec, num_classes=TINY_CLASSES, image_size=64)
        assign_weights(ours, from_keras_applications(theirs, spec))
        logits = ours(normalize_images(images, spec.mean_rgb, spec.stddev_rgb))
        measured = largest(logits.numpy(), theirs(images).numpy())
        text = "normalised before it; the deviation folded"
        yield ParityRow(section, f"b{number}, logits", source, text, measured, 1e-4, "absolute")
    for number in range(4, 8):
        spec = get_spec(f"efficientnet-b{number}")
        theirs = _random_keras_applications(number, spec, image_size=64)
        found = {path: a.shape for path, a in from_keras_applications(theirs, spec).items()}
        expected = complexity(spec, num_classes=TINY_CLASSES).variable_shapes
        measured = float(len(set(found.items()) ^ set(expected.items())))
        item = f"b{number}, {len(expected)} variables"
        text = "the same, mapped by layer"
        yield ParityRow(section, item, "layers by name", text, measured, 0.0, "that differ")


def _random_keras_applications(number: int, spec: ModelSpec, *, image_size: int) -> keras.Model:
    """Build EfficientNetB0..B7 with random weights, batch norm statistics included."""
    keras.utils.set_random_seed(number)
    random = np.random.default_rng(number)
    model = getattr(keras.applications, f"EfficientNetB{number}")(
        weights=None,
        input_shape=(image_size, image_size, 3),
        classes=TINY_CLASSES,
        classifier_activation=None,
    )
    for variable in model.weights:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.7, 1.3, variable.shape))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(random.normal(0.0, 0.1, variable.shape))
    inside = next(x for x in model.layers if isinstance(x, keras.layers.Normalization))
    mean, deviation = np.array(spec.mean_rgb) / 255, np.array(spec.stddev_rgb) / 255
    inside.set_weights([mean, np.square(deviation), np.zeros(())])
    inside.finalize_state()
    return model


# -- initialisers -------------------------------------------------------------------------------

BEYOND_TWO_SIGMA = 0.0455  # share of a normal distribution; Keras' truncated one has .027


def initialiser_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare the distribution of efficientnet-b0's initial weights, by kind of layer."""
    del goldens
    keras.utils.set_random_seed(0)
    network = build_model("efficientnet-b0")
    kernels = {v.path: v.numpy() for v in network.weights if v.path.endswith("/kernel")}
    depthwise = {path: k for path, k in kernels.items() if "depthwise" in path}
    classifier = kernels.pop("classifier/kernel")
    plain = {path: k for path, k in kernels.items() if path not in depthwise}
    for name, group, fan_out, text in (
        ("convolutions", plain, lambda k: k.shape[0] * k.shape[1] * k.shape[3], "2 / (kh kw out)"),
        ("depthwise", depthwise, lambda k: k.shape[0] * k.shape[1], "2 / (kh kw)"),
    ):
        z = np.concatenate([k.ravel() / np.sqrt(2 / fan_out(k)) for k in group.values()])
        yield ParityRow("initialisers", f"{name}, deviation", f"normal of variance {text}", "the same",
                  abs(float(z.std()) - 1), 0.01, "relative")  # fmt: skip
        tails = abs(float(np.mean(np.abs(z) > 2)) - BEYOND_TWO_SIGMA)
        yield ParityRow("initialisers", f"{name}, share beyond 2 sigma", "not truncated",
                  "the same; Keras' default is", tails, 0.003, "absolute")  # fmt: skip
    limit = 1 / np.sqrt(classifier.shape[1])
    counts, _ = np.histogram(classifier, bins=20, range=(-limit, limit))
    measured = float(np.max(np.abs(counts / classifier.size * 20 - 1)))
    yield ParityRow("initialisers", "classifier of 1,000, 20 bins", "uniform in +-1 / sqrt(classes)",
              "the same", measured, 0.02, "relative")  # fmt: skip


SECTIONS: tuple[Callable[[Path], Iterator[ParityRow]], ...] = (
    training_rows,
    checkpoint_rows,
    keras_applications_rows,
    initialiser_rows,
)
