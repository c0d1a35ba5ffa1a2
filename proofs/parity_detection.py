"""The rows of `proofs.parity` for EfficientDet's networks, input and rates: outputs of its published code."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from efficientnet import get_spec, normalize_images
from efficientnet.detection import (
    Anchors,
    DetectorSpec,
    build_detector,
    detector_complexity,
    get_detector,
    level_sizes,
)
from efficientnet.detection.anchors import MIN_LEVEL
from efficientnet.weights.efficientdet import efficientdet_names
from input_pipeline.images.crop import Resize
from input_pipeline.images.framing import Letterbox, ScaleJitter, resized_part
from input_pipeline.images.placement import Placement
from input_pipeline.images.view import TrainView
from input_pipeline.targets.boxes import BOX_FEATURES, BOX_LABELS, ENDS, NO_CLASS, Boxes
from proofs.parity_row import ParityRow, largest, relative_to_each, relative_to_largest
from training.optimizers import schedules

BACKBONE = get_spec("efficientnet-b0", survival_probability=1.0)
TINY = dataclasses.replace(get_detector("efficientdet-d0"), filters=16, cells=2, head_repeats=2)
ODD = dataclasses.replace(TINY, filters=24, cells=1, fusion="sum")
NETWORKS = {"tiny": TINY, "odd": ODD}


def drawn_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the golden weight of that name: a function of the name (tests/goldens/README.md)."""
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    last = name.rsplit("/", 1)[-1]
    if last.startswith("WSM"):
        return np.array(1 + 0.8 * random.randn(), np.float32)
    if last == "moving_variance":
        value = 0.7 + 0.6 * random.rand(*shape)
    elif last == "gamma":
        value = 1 + 0.2 * random.randn(*shape)
    elif last in ("beta", "bias", "moving_mean"):
        value = 0.1 * random.randn(*shape)
    else:
        fan = shape[0] * shape[1] * (1 if last == "depthwise_kernel" else shape[2])
        value = random.randn(*shape) * np.sqrt(2 / fan)
    return value.astype(np.float32)


def by_level(values: np.ndarray, image_size: tuple[int, int], anchors: Anchors) -> list[np.ndarray]:
    """Split [b, anchors, n] to the published layout of each level: [b, H, W, n * anchors of a place]."""
    sizes = level_sizes(image_size, anchors.max_level)[MIN_LEVEL:]
    ends = np.cumsum([height * width * anchors.per_place for height, width in sizes])
    parts = np.split(values, ends[:-1], axis=1)
    return [part.reshape(len(values), *size, -1) for part, size in zip(parts, sizes, strict=True)]


# -- whole networks -----------------------------------------------------------------------------


def network_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare the endpoints and outputs of two small detectors in inference mode."""
    for name, spec in NETWORKS.items():
        archive = np.load(goldens / f"det_model_{name}.npz")
        row = functools.partial(ParityRow, f"EfficientDet networks: {name}")
        levels = list(spec.anchors.levels)
        classes = archive[f"class_{levels[0]}"].shape[-1] // spec.anchors.per_place
        costs = detector_complexity(spec, BACKBONE, num_classes=classes)
        counts = {
            "trainable_parameters": costs.trainable_parameters,
            "all_parameters": costs.all_parameters,
        }
        if "segmentation" in archive.files:  # a head that this project has not is counted too
            counts = {}
        for key, count in counts.items():
            measured, text = largest(np.array(count), archive[key]), key.replace("_", " ")
            yield row(text, f"{int(archive[key]):,}", "the same", measured, 0.0, "parameters")
        found = network_outputs(spec, archive)
        for item, pairs in found.items():
            measured = max(relative_to_largest(ours, theirs) for ours, theirs in pairs)
            text = f"{len(pairs)} tensors, inference, random weights"
            yield row(item, text, "the same", measured, 1e-5, "relative")


def network_outputs(
    spec: DetectorSpec, archive: Any
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Return pairs of our tensors and the published ones: reductions, pyramid, BiFPN and outputs."""
    levels = list(spec.anchors.levels)
    batch, height, width = archive[f"class_{levels[0]}"].shape[:3]
    size = (height * 8, width * 8)
    num_classes = archive[f"class_{levels[0]}"].shape[-1] // spec.anchors.per_place
    network = build_detector(spec, BACKBONE, num_classes=num_classes, image_size=size)
    assign_drawn(network, efficientdet_names(spec, BACKBONE, num_classes), archive)
    outputs = _all_tensors(network, spec)
    images = drawn_images(int(archive["image_seed"]), (batch, *size, 3))
    tensors = {name: value.numpy() for name, value in outputs(images).items()}
    classes, boxes = (by_level(tensors[name], size, spec.anchors) for name in ("classes", "boxes"))
    return {
        "reductions, mean": [
            (tensors[f"reduction_{i}"].mean((1, 2)), archive[f"reduction_{i}_mean"])
            for i in range(1, 6)
        ],
        "P6 and P7 before the BiFPN": [
            (tensors[f"p{i}_pooling"], archive[f"p{i}_before_bifpn"]) for i in (6, 7)
        ],
        "BiFPN": [(tensors[f"bifpn_{i}"], archive[f"bifpn_{i}"]) for i in levels],
        "class outputs": [
            (classes[i], archive[f"class_{level}"]) for i, level in enumerate(levels)
        ],
        "box outputs": [(boxes[i], archive[f"box_{level}"]) for i, level in enumerate(levels)],
    }


def assign_drawn(network: Any, names: Mapping[str, str], archive: Any) -> None:
    """Give every variable its golden weight.

    Raises:
      AssertionError: the published network has other variables.
    """
    stored = {str(name) for name in archive["names"] if "segmentation" not in str(name)}
    if set(names.values()) != stored:
        difference = sorted(set(names.values()) ^ stored)
        raise AssertionError(f"other variables than the published network's: {difference[:5]}")
    for variable in network.weights:
        variable.assign(drawn_weight(names[variable.path], tuple(variable.shape)))


def drawn_images(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return golden images, normalised: float32."""
    images = np.random.RandomState(seed).randint(0, 256, shape).astype(np.float32)
    return np.asarray(normalize_images(images, BACKBONE.mean_rgb, BACKBONE.stddev_rgb))


def _all_tensors(network: keras.Model, spec: DetectorSpec) -> keras.Model:
    layers = {layer.name: layer for layer in network.layers}
    wanted = {f"reduction_{i}": layers[f"reduction_{i}"].output for i in range(1, 6)}
    wanted |= {f"p{i}_pooling": layers[f"p{i}_pooling"].output for i in (6, 7)}
    # In order of the cell's nodes, the last of a level is its output: P6 to P3, then P4 to P7.
    numbers = {3: 3, 4: 4, 5: 5, 6: 6, 7: 7}
    cell = f"bifpn_{spec.cells - 1}"
    wanted |= {f"bifpn_{i}": layers[f"{cell}_node_{n}_bn"].output for i, n in numbers.items()}
    return keras.Model(network.input, wanted | dict(network.output))


# -- input --------------------------------------------------------------------------------------

INPUT_SIZES: Mapping[str, tuple[int, int]] = {"eval_96": (96, 96), "eval_80x128": (80, 128)}
KERNEL: Resize = "bilinear_half_pixel"
# By case, a seed that draws a window within a pixel of the golden one.
JITTERS = {".5": (0.5, 0), "1.6": (1.6, 181)}


def input_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare resized and padded images, and boxes in pixels of the network's input."""
    archive = np.load(goldens / "det_input.npz")
    row = functools.partial(ParityRow, "EfficientDet input")
    encoded = tf.io.encode_png(archive["image"])
    edge = "cut off at the input's edge"
    for case, size in INPUT_SIZES.items():
        letterbox = Letterbox("top_left")
        pixels, placement = resized_part(encoded, letterbox, size, resize=KERNEL)
        yield from _placement_rows(archive, case, placement, row)
        image = np.asarray(normalize_images(pixels, BACKBONE.mean_rgb, BACKBONE.stddev_rgb))
        padded = np.pad(image, [(0, size[0] - len(image)), (0, size[1] - image.shape[1]), (0, 0)])
        measured = largest(padded, archive[f"{case}/output"])
        text = "bilinear with half-pixel centres, 0 after normalising"
        yield row(f"{case}, pixels", text, "the same before rounding", measured, 1e-5, "deviations")
        boxes, classes = input_boxes(archive, TrainView(size, letterbox, KERNEL, flip=False))
        measured = largest(classes + 1, archive[f"{case}/classes"])
        yield row(f"{case}, classes", "from 1", "from 0", measured, 0.0, "classes")
        expected = archive[f"{case}/boxes"]
        inside = np.minimum(boxes, np.tile(np.array(size) - 1, 2))
        yield row(
            f"{case}, boxes", "cut off at size - 1", edge, largest(boxes, expected), 1.0, "pixels"
        )
        text = "the same cut"
        yield row(
            f"{case}, boxes without edges", text, text, largest(inside, expected), 1e-4, "pixels"
        )
    for case, (scale, seed) in JITTERS.items():
        view = TrainView((96, 96), ScaleJitter((scale, scale)), KERNEL, flip=False)
        boxes, classes = input_boxes(archive, view, seed)
        measured = largest(classes + 1, archive[f"train_scale_{case}/classes"])
        yield row(
            f"scale {case}, classes", "those still visible", "the same", measured, 0.0, "classes"
        )
        measured = largest(boxes, archive[f"train_scale_{case}/boxes"])
        text = "resized whole, sides cut off to pixels, then cropped"
        ours = "cropped first, sides rounded"
        yield row(f"scale {case}, boxes", text, ours, measured, 1.5, "pixels")


def _placement_rows(
    archive: Any, case: str, placement: Placement, row: Callable[..., ParityRow]
) -> Iterator[ParityRow]:
    measured = largest(placement.valid.numpy(), archive[f"{case}/scaled_h_w"])
    yield row(
        f"{case}, size of the image", "cut off to pixels", "the same", measured, 0.0, "pixels"
    )
    measured = largest(placement.corner.numpy(), archive[f"{case}/crop_offset_y_x"])
    yield row(f"{case}, corner", "top left", "the same", measured, 0.0, "pixels")
    # Where a side is cut off to pixels, the published scale is that before.
    expected = np.tile(archive[f"{case}/scale_to_original"], 2)
    measured = relative_to_each(1.0 / placement.scale.numpy(), expected)
    text, ours = "one number", "of each side, from whole pixels"
    yield row(f"{case}, scale to the original", text, ours, measured, 0.02, "relative")


def input_boxes(archive: Any, view: TrainView, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes of the golden image in a view, float32 [n, 4], and their classes, int32 [n]."""
    seeds = tf.constant([seed, 0], tf.int64)
    seen = view.show(tf.io.encode_png(archive["image"]), seeds, seeds).seen
    classes = archive["classes"].astype(np.int64)
    lists = {name: tf.zeros([0], kind.dtype) for name, kind in BOX_FEATURES.items()}
    ends = dict(zip(ENDS, archive["boxes"].T, strict=True))
    target = Boxes(len(classes))
    value, _ = target.check(
        {**lists, **ends, BOX_LABELS: tf.constant(classes)}, num_classes=5, label_offset=1
    )
    row, _ = target.place(value, seen)
    real = row["classes"] != NO_CLASS
    return np.asarray(row["boxes"][real]), np.asarray(row["classes"][real])


# -- learning rate ------------------------------------------------------------------------------


def schedule_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare the schedules with their warm-up."""
    archive = np.load(goldens / "det_schedule.npz")
    row = functools.partial(ParityRow, "EfficientDet learning rate")
    for key in archive.files:
        kind, _, batch = key.partition("/")
        if kind not in ("cosine", "stepwise", "polynomial"):
            continue
        per_epoch, epochs = (
            float(archive[f"{name}/{batch}"]) for name in ("steps_per_epoch", "epochs")
        )
        peak, start = 0.08 * int(batch) / 64, 0.008
        schedule = detector_schedule(kind, peak, per_epoch, epochs)
        rate = schedules.with_warmup(schedule, peak=peak, warmup_steps=int(per_epoch), start=start)
        steps = archive[f"steps/{batch}"]
        found = np.array([rate(tf.constant(step, tf.int32)) for step in steps])
        # The rate passes 0: relative to the peak.
        measured = largest(found, archive[key]) / peak
        text = f"{epochs:g} epochs of {per_epoch:g} steps, 1 of warm-up"
        # The published cosine reaches 0 one warm-up before the end, and then rises a little; ours stays at 0.
        ours, bound = ("0 to the end", 5e-5) if kind == "cosine" else ("the same", 1e-6)
        yield row(f"{kind}, batch {batch}", text, ours, measured, bound, "of the peak")


def detector_schedule(
    kind: str, peak: float, steps_per_epoch: float, epochs: float
) -> schedules.Schedule:
    """Return a published schedule, without its warm-up of one epoch."""
    total = steps_per_epoch * epochs
    if kind == "cosine":
        return schedules.cosine(peak=peak, total_steps=total - steps_per_epoch)
    if kind == "polynomial":
        return schedules.polynomial(peak=peak, total_steps=total, power=0.9, end_share=0.0)
    return schedules.stepwise(
        peak=peak,
        total_steps=total,
        boundaries=(200 * steps_per_epoch, 250 * steps_per_epoch),
        factors=(1.0, 0.1, 0.01),
    )


SECTIONS: tuple[Callable[[Path], Iterator[ParityRow]], ...] = (
    network_rows,
    input_rows,
    schedule_rows,
)
