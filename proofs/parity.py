"""Compare the recipe with outputs of the published code, number by number.

    python -m proofs.parity [--goldens=DIR] [--output=docs/parity.md]

measures every item and prints one table: what the reference does, what we do, how far they differ and
how far they may differ. The exit status is 1 if an item is out of bounds. --output replaces the table of
that page.
"""

import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

import keras
import numpy as np
import sklearn
import tensorflow as tf

from efficientnet import build_model, complexity, endpoints, get_spec, normalize_images
from efficientnet.spec import ModelSpec
from efficientnet.weights import Weights
from efficientnet.weights.keras_applications import from_keras_applications
from efficientnet.weights.keras_file import assign_weights
from efficientnet.weights.tf1 import read_tf1_checkpoint, tf1_names
from input_pipeline.augment import operations
from input_pipeline.images.crop import Resize
from input_pipeline.images.framing import CenterCrop, frame_eval, resized_part
from proofs import (
    parity_boxes,
    parity_detection,
    parity_detection_steps,
    parity_segmentation,
    parity_suppression,
    parity_v2,
)
from proofs.page import write_page
from proofs.parity_row import ParityRow, largest, relative_to_each, relative_to_largest
from system.command import Parser, command
from system.errors import UserError
from tasks.classification import Classification
from training.devices.distribution import connect
from training.optimizers import RMSProp, Slots, schedules
from training.step.batch_norm import CrossReplicaBatchNormalization
from training.step.ema import Averaging, ema_update
from training.step.noise import MaskNoise
from training.step.packed import Layout, Packed
from training.step.recipe import TrainRecipe
from training.step.state import TrainState, WeightsKind, create_train_state
from training.step.train_step import make_train_loop

ROOT = Path(__file__).resolve().parent.parent
GOLDENS = ROOT / "tests" / "goldens"

IMAGENET_TRAIN_EXAMPLES = 1_281_167
# The network of the goldens: small enough for five whole steps in a file.
TINY = get_spec("efficientnet-b0", width=0.25, depth=0.5, dropout=0.0, survival_probability=1.0)
TINY_CLASSES = 10


class MissingGoldensError(UserError):
    """The folder lacks the reference implementation's outputs."""


# -- augmentation -------------------------------------------------------------------------------

AUGMENTATIONS = {  # operation: (what the reference does, what we do)
    "autocontrast": ("stretch each channel to 0..255, truncate", "the same, on whole rows"),
    "brightness": ("blend with black, truncate", "one product"),
    "color": ("blend with the grey image, truncate", "the same, on planes"),
    "contrast": ("blend with H*W/256, meant as mean grey", "the same; the mean if quirks=false"),
    "equalize": ("flatten each channel's histogram", "the same, one table for 3 channels"),
    "invert": ("255 - value", "the same"),
    "posterize": ("clear low bits; 0 bits keep one", "one mask; black if quirks=false"),
    "rotate": ("projective transform, nearest pixel", "affine map and one gather"),
    "sharpness": ("blend with a 3x3 blur, borders kept", "nine shifted sums"),
    "shear_x": ("projective transform, nearest pixel", "affine map and one gather"),
    "shear_y": ("projective transform, nearest pixel", "affine map and one gather"),
    "solarize": ("invert from a threshold in uint8 on", "the same; 256 inverts nothing if "
                 "quirks=false"),
    "solarize_add": ("add below 128, saturate", "the same in uint8"),
    "translate_x": ("projective transform, nearest pixel", "affine map and one gather"),
    "translate_y": ("projective transform, nearest pixel", "affine map and one gather"),
}  # fmt: skip


def augmentation_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare every operation on five images with every argument, eagerly and inside tf.data."""
    archive = np.load(goldens / "augment_ops.npz")
    for operation, (reference, ours) in AUGMENTATIONS.items():
        cases = _augmentation_cases(archive, operation)
        for place, results in (
            ("eager", _augment_eagerly(operation, cases)),
            ("in tf.data", _augment_in_dataset(operation, cases)),
        ):
            differences = [
                np.max(np.abs(result.astype(int) - expected.astype(int)))
                for result, (_, _, expected) in zip(results, cases, strict=True)
            ]
            item = f"{operation}, {place}, {len(cases)} images"
            measured = float(max(differences))
            yield ParityRow("augmentation", item, reference, ours, measured, 0.0, "grey levels")


Case = tuple[np.ndarray, tuple[float, ...], np.ndarray]  # image, arguments, expected


def _augmentation_cases(archive: Any, operation: str) -> list[Case]:
    cases: list[Case] = []
    for key in archive.files:
        kind, image, *rest = key.split("/")
        if kind == "op" and rest[0] == operation:
            arguments = (float(rest[1].split("=")[1]),) if rest[1] else ()
            cases.append((archive[f"image/{image}"], arguments, archive[key]))
    return cases


def _augment_eagerly(operation: str, cases: list[Case]) -> list[np.ndarray]:
    function = getattr(operations, operation)
    return [function(tf.constant(image), *args).numpy() for image, args, _ in cases]


def _augment_in_dataset(operation: str, cases: list[Case]) -> list[np.ndarray]:
    function = getattr(operations, operation)
    arguments = len(cases[0][1])
    dataset = tf.data.Dataset.from_generator(
        lambda: ((image, *args) for image, args, _ in cases),
        output_signature=(
            tf.TensorSpec([None, None, 3], tf.uint8),
            *[tf.TensorSpec([], tf.float32)] * arguments,
        ),
    )
    return list(dataset.map(function).as_numpy_iterator())


# -- evaluation preprocessing -------------------------------------------------------------------


def preprocessing_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare the evaluation crop of two photographs at three sizes, before rounding."""
    archive = np.load(goldens / "eval_preprocess.npz")
    kernels: dict[Resize, str] = {
        "bicubic": "TF 1 bicubic (a = -0.75, no half-pixel centres)",
        "bilinear": "TF 1 bilinear (no half-pixel centres)",
    }
    for method, reference in kernels.items():
        differences = []
        for key in archive.files:
            image, size, kernel = key.split("/")
            if kernel == method:
                encoded = _photograph(image)
                result, _ = resized_part(encoded, CenterCrop(), int(size), resize=method)
                differences.append(np.abs(_kept_rows(result, archive[key]) - archive[key]))
        largest = float(max(np.max(d) for d in differences))
        mean = float(max(np.mean(d) for d in differences))
        ours = "the same kernel, on a JPEG decoded only where it is cropped"
        section, unit = "evaluation images", "grey levels"
        yield ParityRow(section, f"{method}, largest pixel", reference, ours, largest, 1.0, unit)
        yield ParityRow(section, f"{method}, mean of an image", reference, ours, mean, 0.05, unit)
    yield _uint8_row(archive)


def _uint8_row(archive: Any) -> ParityRow:
    """Measure a deliberate deviation: evaluation sends rounded uint8 pixels to the device."""
    found = frame_eval(_photograph("flower"), CenterCrop(), 224).image
    expected = np.clip(archive["flower/224/bicubic"], 0, 255)
    reference, ours = "float32 pixels", "rounded and clipped to uint8 (a deviation, see below)"
    measured = largest(_kept_rows(found, expected).astype(np.float32), expected)
    item = "bicubic, sent to the device"
    return ParityRow("evaluation images", item, reference, ours, measured, 0.501, "grey levels")


def _kept_rows(image: tf.Tensor, golden: np.ndarray) -> np.ndarray:
    """Select the pixel rows that the golden holds: all, or one in n (tests/goldens/README.md)."""
    return image.numpy()[:: len(image) // len(golden)]


def _photograph(name: str) -> tf.Tensor:
    folder = Path(sklearn.__file__).parent / "datasets" / "images"
    return tf.io.read_file(str(folder / f"{name}.jpg"))


# -- schedules, optimizer and average -----------------------------------------------------------


def schedule_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare every schedule with 5 epochs of warm-up at every golden batch size."""
    archive = np.load(goldens / "learning_rate.npz")
    texts = {
        "exponential": (
            "0.97 every 2.4 epochs, staircase; warm-up overrides",
            "the same; the quotient in float64",
        ),
        "cosine": ("half a cosine over 350 epochs; warm-up overrides", "the same"),
        "constant": ("the peak; warm-up overrides", "the same"),
    }
    for size in (256, 2048, 4096):
        epoch = IMAGENET_TRAIN_EXAMPLES / size
        peak = schedules.scaled_rate(0.016, size)
        by_name = {
            "exponential": schedules.exponential(
                peak=peak, decay_every=2.4 * epoch, decay_rate=0.97
            ),
            "cosine": schedules.cosine(peak=peak, total_steps=int(350 * epoch)),
            "constant": schedules.constant(peak=peak),
        }
        for name, schedule in by_name.items():
            rate = schedules.with_warmup(schedule, peak=peak, warmup_steps=int(5 * epoch))
            steps, expected = archive[f"steps/{size}"], archive[f"{name}/{size}"]
            found = np.array([rate(tf.constant(step, tf.int32)) for step in steps])
            item = f"{name}, batch {size}, {len(steps)} steps"
            measured = relative_to_each(found, expected)
            yield ParityRow("learning rate", item, *texts[name], measured, 1e-6, "relative")


def optimizer_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare forty RMSProp updates of three variables, each followed by the moving average."""
    archive = np.load(goldens / "rmsprop_ema.npz")
    texts = {
        "variable": ("w -= m", "the same"),
        "ema": ("decay min(.9999, (1 + t) / (10 + t))", "the same, counting the update"),
        "rms": (".9 rms + .1 g^2, from 1", "the same"),
        "momentum": (".9 m + rate g / sqrt(rms + .001)", "the same"),
    }
    measured = dict.fromkeys(texts, 0.0)
    for name in "abc":
        found = _forty_updates(archive, name)
        for kind in texts:
            difference = relative_to_largest(found[kind], archive[f"{kind}/{name}"])
            measured[kind] = max(measured[kind], difference)
    for kind, (reference, ours) in texts.items():
        yield ParityRow("RMSProp", kind, reference, ours, measured[kind], 1e-5, "relative")


def _forty_updates(archive: Any, name: str) -> dict[str, np.ndarray]:
    optimizer = RMSProp()
    weight = average = tf.constant(archive[f"initial/{name}"])
    slots: Slots = {slot: tf.fill(weight.shape, v) for slot, v in optimizer.initial_slots.items()}
    history = []
    for t, gradient in enumerate(archive[f"gradients/{name}"]):
        rate = tf.constant(archive["learning_rate"][t])
        layout = Layout((name,), (weight.shape.num_elements(),))
        weight, slots = optimizer.update(
            Packed(weight, layout), tf.constant(gradient), slots, rate, np.zeros(1, np.float32)
        )
        decay = Averaging().decay_at(tf.constant(t))
        average = ema_update(average, weight, decay)
        history.append({"variable": weight, "ema": average, **slots})
    return {kind: np.stack([update[kind] for update in history]) for kind in history[0]}


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


# -- differences --------------------------------------------------------------------------------


# -- the command --------------------------------------------------------------------------------

SECTIONS: tuple[Callable[[Path], Iterator[ParityRow]], ...] = (
    augmentation_rows,
    preprocessing_rows,
    schedule_rows,
    optimizer_rows,
    training_rows,
    checkpoint_rows,
    keras_applications_rows,
    initialiser_rows,
    *parity_v2.SECTIONS,
    *parity_segmentation.SECTIONS,
    *parity_boxes.SECTIONS,
    *parity_suppression.SECTIONS,
    *parity_detection.SECTIONS,
    *parity_detection_steps.SECTIONS,
)

HEADER = ("item", "reference", "ours", "measured", "bound", "")


def require_goldens(folder: Path) -> None:
    """Raise MissingGoldensError unless a folder holds the reference implementation's outputs."""
    if not (folder / "augment_ops.npz").is_file():
        raise MissingGoldensError(
            f"no outputs of the reference implementation in --goldens={folder}; expected "
            "augment_ops.npz and the other files of tests/goldens"
        )


def markdown_table(rows: Sequence[ParityRow]) -> str:
    """Render one Markdown table, with a heading line for each section."""
    lines = [_line(HEADER), _line(["---"] * len(HEADER))]
    section = None
    for row in rows:
        if row.section != section:
            section = row.section
            lines.append(_line([f"**{section}**", *[""] * (len(HEADER) - 1)]))
        lines.append(_line(_cells(row)))
    return "\n".join(lines) + "\n"


def _cells(row: ParityRow) -> list[str]:
    measured, bound = (f"{number:.2g}" for number in (row.measured, row.bound))
    verdict = "ok" if row.passed else "OUT OF BOUNDS"
    return [row.item, row.reference, row.ours, measured, f"{bound} {row.unit}", verdict]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


@command("proofs.parity")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit status, 1 if an item is out of bounds."""
    parser = Parser("proofs.parity", __doc__)
    parser.add_argument(
        "--goldens",
        type=Path,
        default=GOLDENS,
        help="folder of the reference implementation's outputs",
    )
    parser.add_argument("--output", type=Path, help="page whose table is replaced")
    flags = parser.parse_args(argv)
    start = time.monotonic()
    require_goldens(flags.goldens)
    rows = [row for section in SECTIONS for row in section(flags.goldens)]
    table = markdown_table(rows)
    if flags.output:
        write_page(flags.output, table)
    failed = [row for row in rows if not row.passed]
    print(table)
    print(
        f"{len(rows) - len(failed)} of {len(rows)} items within bounds, measured in "
        f"{time.monotonic() - start:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
