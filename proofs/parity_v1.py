"""The rows of `proofs.parity` for EfficientNet's images, rates and updates: outputs of its published code."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import tensorflow as tf

from input_pipeline.augment import operations
from input_pipeline.images.crop import Resize
from input_pipeline.images.framing import CenterCrop, frame_eval, resized_part
from proofs.parity_row import ParityRow, largest, relative_to_each, relative_to_largest
from training.optimizers import RMSProp, Slots, schedules
from training.step.ema import Averaging, ema_update
from training.step.packed import Layout, Packed

IMAGENET_TRAIN_EXAMPLES = 1_281_167

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


SECTIONS: tuple[Callable[[Path], Iterator[ParityRow]], ...] = (
    augmentation_rows,
    preprocessing_rows,
    schedule_rows,
    optimizer_rows,
)
