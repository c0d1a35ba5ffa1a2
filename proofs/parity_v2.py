"""The rows of `proofs.parity` for EfficientNetV2: outputs of its published code beside ours."""

import functools
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from efficientnet import build_model, endpoints, get_spec, normalize_images
from efficientnet.spec import ModelSpec
from efficientnet.weights.tf1 import tf1_names
from input_pipeline.augment.policies import make_operations
from input_pipeline.augment.published_mixing import blend_with_reverse, paste_from_reverse
from input_pipeline.images.crop import Resize
from input_pipeline.images.framing import CenterCrop, Framing, Squash, resized_part
from proofs.parity_row import ParityRow, largest, relative_to_each, relative_to_largest
from tasks.classification import Classification
from training.devices.distribution import connect
from training.optimizers import RMSProp, schedules
from training.step.batch_norm import CrossReplicaBatchNormalization
from training.step.noise import MaskNoise
from training.step.recipe import TrainRecipe
from training.step.state import TrainState, WeightsKind, create_train_state
from training.step.train_step import make_train_loop
from training.step.weight_decay import WeightDecay

TRAIN_EXAMPLES = 1_256_144  # 1004 of ImageNet's 1024 shards: the published runs keep 20 back
TINY = get_spec("efficientnetv2-b0", width=0.25, depth=0.6, dropout=0.0, survival_probability=1.0)
TINY_CLASSES = 10
KERNELS = r".*/kernel$"  # what V2 decays: neither biases nor batch norm


def drawn_weight(name: str, shape: tuple[int, ...], gamma_scale: float = 1.0) -> np.ndarray:
    """Return the golden weight of that name: a function of the name (tests/goldens/README.md)."""
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    if name.endswith("moving_variance"):
        value = 0.7 + 0.6 * random.rand(*shape)
    elif name.endswith("gamma"):
        value = gamma_scale * (1 + 0.2 * random.randn(*shape))
    elif name.endswith(("beta", "bias", "moving_mean")):
        value = 0.1 * random.randn(*shape)
    else:
        fan = np.prod(shape[:-1]) if len(shape) == 4 else shape[0]
        fan = np.prod(shape[:2]) if "depthwise_kernel" in name else fan
        value = random.randn(*shape) * np.sqrt(2 / fan)
    return value.astype(np.float32)


def drawn_inputs(archive: Any, steps: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return the golden images [steps, b, H, W, 3] on 0..255 and labels [steps, b]."""
    size, batch, classes = (int(archive[key]) for key in ("res", "bs", "ncls"))
    random = np.random.RandomState(99)
    images = random.randint(0, 256, (steps, batch, size, size, 3))
    return images.astype(np.uint8), random.randint(0, classes, (steps, batch)).astype(np.int32)


# -- whole networks -----------------------------------------------------------------------------


def inference_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare logits, endpoints and the mean of every block of two published networks."""
    for name in ("efficientnetv2-b0", "efficientnetv2-s"):
        archive = np.load(goldens / f"v2_infer_{name}.npz")
        spec = get_spec(name)
        outputs = _inference(spec, archive)
        row = functools.partial(ParityRow, f"V2 networks: {name}")
        measured = relative_to_largest(outputs["logits"], archive["logits"])
        text = "whole network, inference, random weights"
        yield row("logits", text, "the same", measured, 1e-5, "relative")
        named = {f"reduction_{i}": f"reduction_{i}" for i in range(1, 6)}
        named |= {"stem": "stem_activation", "head": "features", "pooled": "pooled"}
        measured = max(
            relative_to_largest(_mean(outputs[ours]), archive[theirs])
            for theirs, ours in named.items()
        )
        yield row(f"{len(named)} endpoints", text, "the same", measured, 1e-5, "relative")
        means = np.concatenate(
            [outputs[_last_layer(block.name, outputs)].mean((0, 1, 2)) for block in spec.blocks]
        )
        measured = relative_to_largest(means, archive["block_means"])
        item = f"mean of {len(spec.blocks)} blocks"
        yield row(item, text, "the same", measured, 1e-5, "relative")


def _inference(spec: ModelSpec, archive: Any) -> dict[str, np.ndarray]:
    classes = int(archive["ncls"])
    names = tf1_names(spec, classes)
    if set(names.values()) != set(archive["names"]):
        raise AssertionError(f"{spec.name}: other variables than the published network's")
    network = build_model(spec, num_classes=classes, image_size=int(archive["res"]))
    for variable in network.weights:
        name, shape = names[variable.path], tuple(variable.shape)
        variable.assign(drawn_weight(name, shape, float(archive["gamma_scale"])))
    layers = {layer.name: layer.output for layer in network.layers}
    every = keras.Model(network.input, layers | endpoints(network))
    images = drawn_inputs(archive)[0][0]
    outputs = every(normalize_images(images, archive["mean_rgb"], archive["std_rgb"]))
    return {name: value.numpy() for name, value in outputs.items()}


def _last_layer(block: str, outputs: Mapping[str, np.ndarray]) -> str:
    """Return the name of the last layer of a block."""
    ends = (f"{block}_add", f"{block}_project_activation", f"{block}_project_bn")
    return next(name for name in ends if name in outputs)


def _mean(value: np.ndarray) -> np.ndarray:
    return value.reshape(len(value), -1, value.shape[-1]).mean(1)


# -- learning rate ------------------------------------------------------------------------------


def schedule_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare the schedules of training, of ImageNet-21k and of fine-tuning."""
    archive = np.load(goldens / "v2_schedules.npz")
    epoch = TRAIN_EXAMPLES / 4096
    first, second = (schedules.scaled_rate(rate, 4096) for rate in (0.016, 0.008))
    large = 12_720_275 / 4096
    by_key: dict[str, tuple[schedules.Schedule, float, float, str]] = {
        "imagenet_4096": (
            schedules.exponential(peak=first, decay_every=2.4 * epoch, decay_rate=0.97),
            first,
            5 * epoch,
            "0.97 every 2.4 epochs; warm-up overrides",
        ),
        "imagenet21k_4096": (
            schedules.cosine(peak=second, total_steps=int(60 * large)),
            second,
            large,
            "cosine to 0; 1 epoch of warm-up",
        ),
        "finetune_512": (
            schedules.constant(peak=0.001),
            0.001,
            TRAIN_EXAMPLES / 512,
            "constant; 1 epoch of warm-up",
        ),
    }
    for key, (schedule, peak, warmup, text) in by_key.items():
        rate = schedules.with_warmup(schedule, peak=peak, warmup_steps=int(warmup))
        steps, expected = archive[f"lr/{key}/steps"], archive[f"lr/{key}/rate"]
        found = np.array([rate(tf.constant(step, tf.int32)) for step in steps])
        measured = relative_to_each(found, expected)
        item = f"{key}, {len(steps)} steps"
        yield ParityRow("V2 learning rate", item, text, "the same", measured, 1e-5, "relative")


# -- whole training steps -----------------------------------------------------------------------


def train_tiny(archive: Any) -> tuple[TrainState, dict[str, np.ndarray], list[float]]:
    """Repeat the golden run of six steps.

    Returns:
      The state after it; the metrics by name, each float32 [6]; the norm of all averages after each step.
    """
    steps = int(archive["steps"])
    distribution, noise = connect("cpu"), MaskNoise(0)
    network = build_model(
        TINY,
        num_classes=TINY_CLASSES,
        image_size=int(archive["res"]),
        batch_norm=CrossReplicaBatchNormalization,
        uniform=noise,
    )
    names = tf1_names(TINY, TINY_CLASSES)
    for variable in network.weights:
        variable.assign(drawn_weight(names[variable.path], tuple(variable.shape)))
    decaying = schedules.exponential(peak=0.008, decay_every=4.8, decay_rate=0.97)
    recipe = TrainRecipe(
        task=Classification(TINY_CLASSES),
        optimizer=RMSProp(),
        learning_rate=schedules.with_warmup(decaying, peak=0.008, warmup_steps=2),
        normalize=functools.partial(
            normalize_images, mean_rgb=archive["mean_rgb"], stddev_rgb=archive["std_rgb"]
        ),
        noise=noise,
        weight_decay=WeightDecay(1e-5, coupled=True, pattern=KERNELS),
    )
    state = create_train_state(
        network, distribution, optimizer=recipe.optimizer, with_ema=True, with_loss_scale=False
    )
    images, labels = drawn_inputs(archive, steps)
    batches = tf.data.Dataset.from_tensor_slices({"image": images, "label": labels})
    loop, iterator = (
        make_train_loop(state, recipe, distribution, batches.element_spec),
        iter(batches),
    )
    rows, norms = [], []
    for _ in range(steps):
        rows.append(loop(iterator, tf.constant(1)).numpy()[0])
        norms.append(float(tf.norm(state.variables.ema)))
    return state, dict(zip(recipe.metrics, np.stack(rows).T, strict=True)), norms


def training_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare six whole training steps: losses, rates, weights, averages and outputs."""
    archive = np.load(goldens / "v2_train_tiny_b0.npz")
    state, metrics, norms = train_tiny(archive)
    row = functools.partial(ParityRow, "V2: six training steps")
    for metric, key, reference in (
        ("cross_entropy", "cross_entropy", "softmax, smoothing .1"),
        ("loss", "total_loss", "+ 1e-5 * sum of w^2/2 over kernels alone"),
        ("learning_rate", "learning_rate", "warm-up, then stairs"),
    ):
        measured = relative_to_each(metrics[metric], archive[key])
        yield row(key, reference, "the same", measured, 1e-4, "relative")
    measured = relative_to_each(np.array(norms), archive["ema_norm"])
    text = "L2 norm of weights and statistics"
    yield row("averages, every step", text, "the same", measured, 1e-4, "relative")

    paths, names = state.paths, tf1_names(TINY, TINY_CLASSES)
    kinds: tuple[tuple[WeightsKind, str], ...] = (("raw", "final"), ("ema", "final_ema"))
    for weights_kind, kind in kinds:
        weights, statistics = state.read_network(weights_kind)
        named = dict(zip(paths, [x.numpy() for x in (*weights, *statistics)], strict=True))
        stored = {p: n for p, n in names.items() if f"{kind}/{n}" in archive.files}
        measured = max(
            relative_to_largest(named[path], archive[f"{kind}/{name}"])
            for path, name in stored.items()
        )
        item = f"{kind}, {len(stored)} variables"
        yield row(item, "weights and statistics", "the same", measured, 1e-3, "relative")
        outputs = _tiny_outputs(named, archive)
        measured = largest(outputs["logits"], archive[f"eval_logits_{weights_kind}"])
        item = f"logits, {weights_kind} weights"
        yield row(item, "NHWC, float32", "the same", measured, 1e-3, "absolute")
        prefix = f"eval_endpoint_mean_{weights_kind}/"
        ours = {"head_1x1": outputs["features"], "pooled_features": outputs["pooled"]} | outputs
        keys = [key for key in archive.files if key.startswith(prefix)]
        measured = max(largest(_mean(ours[key.removeprefix(prefix)]), archive[key]) for key in keys)
        item = f"{len(keys)} endpoints, {weights_kind} weights"
        yield row(item, "reduction_1..5, head, pooled", "the same", measured, 1e-3, "absolute")


def _tiny_outputs(weights: Mapping[str, np.ndarray], archive: Any) -> dict[str, np.ndarray]:
    network = build_model(TINY, num_classes=TINY_CLASSES, image_size=int(archive["res"]))
    for variable in network.weights:
        variable.assign(weights[variable.path])
    every = keras.Model(network.input, endpoints(network))
    images = drawn_inputs(archive, int(archive["steps"]))[0][0]
    outputs = every(normalize_images(images, archive["mean_rgb"], archive["std_rgb"]))
    return {name: value.numpy() for name, value in outputs.items()}


# -- RandAugment at V2's magnitudes -------------------------------------------------------------


def augmentation_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare every operation at the seven magnitudes of V2's stages."""
    archive = np.load(goldens / "v2_augment_levels.npz")
    catalogue = make_operations(quirks=True, translate_const=100.0, cutout_const=40.0)
    found: dict[str, list[float]] = {}
    for key in archive.files:
        if not key.startswith("op/"):
            continue
        operation, *rest = key.removeprefix("op/").split("/")
        image = archive["image/strip" if operation.startswith("Translate") else "image/photo"]
        level = next(x for x in archive["levels"] if f"{x:.4f}" == rest[0])
        sign = -1.0 if rest[1] == "-" else 1.0
        result = catalogue[operation](tf.constant(image), float(level), sign, tf.zeros([2])).numpy()
        difference = np.abs(result.astype(int) - archive[key].astype(int)).max()
        found.setdefault(operation, []).append(float(difference))
    for operation, differences in found.items():
        item = f"{operation}, {len(differences)} levels and signs"
        text = "levels 5 to 20, thresholds past 255 wrap round"
        yield ParityRow(
            "V2 augmentation", item, text, "the same", max(differences), 0.0, "grey levels"
        )


# -- mixup and cutmix ---------------------------------------------------------------------------


def mixing_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare mixup, cutmix and both of one batch, with the recorded draws."""
    archive = np.load(goldens / "v2_mixing.npz")
    images = tf.constant(np.round(archive["images"] * 128 + 128).astype(np.uint8))
    labels, own = tf.constant(archive["labels"]), tf.constant(archive["lambda"][:, 0])
    centre = tf.constant(archive["centre_yx"].astype(np.int32))
    kept, half = tf.constant(archive["beta"]), images.shape[0] // 2
    pasted_half = paste_from_reverse(images[half:], labels[half:], kept[half:], centre[half:])
    blended_half = blend_with_reverse(images[:half], labels[:half], own[:half])
    results = {
        "mixup": blend_with_reverse(images, labels, own),
        "cutmix": paste_from_reverse(images, labels, kept, centre),
        "mixing": tuple(tf.concat(both, 0) for both in zip(blended_half, pasted_half, strict=True)),
    }
    row = functools.partial(ParityRow, "V2 mixing")
    for kind, (mixed, shares) in results.items():
        expected = archive[f"{kind}/images"] * 128 + 128
        measured = largest(mixed.numpy().astype(np.float32), expected)
        yield row(f"{kind}, pixels", "blended as floats", "uint8", measured, 0.501, "grey levels")
        measured = largest(shares.numpy(), archive[f"{kind}/labels"])
        text = "reversed pairs, one area for all"
        yield row(f"{kind}, labels", text, "the same", measured, 1e-6, "absolute")


# -- evaluation preprocessing -------------------------------------------------------------------


def preprocessing_rows(goldens: Path) -> Iterator[ParityRow]:
    """Compare the evaluation images of V2's three kinds of preprocessing, before rounding."""
    archive = np.load(goldens / "v2_eval_preprocess.npz")
    row = functools.partial(ParityRow, "V2 evaluation images")
    # V2's code decodes all of a JPEG, V1's and ours the crop alone: colours along its border differ.
    jpeg, lossless = tf.constant(archive["jpeg"].tobytes()), tf.io.encode_png(archive["decoded"])
    half: Resize = "bilinear_half_pixel"
    v1 = get_spec("efficientnetv2-b0")  # normalises as V1
    crop, whole = CenterCrop(crop_padding=32, odd_pixels="after"), Squash()
    cases: tuple[tuple[str, str, Framing, int, Resize, Any, Any], ...] = (
        (
            "v2/64",
            "below 320 px: centre S / (S + 32), half-pixel centres",
            crop,
            64,
            half,
            128,
            128,
        ),
        (
            "v2/320_every_16th_row",
            "from 320 px on: all of it, squashed",
            whole,
            320,
            half,
            128,
            128,
        ),
        ("ft/64", "fine-tuning: all of it, squashed", whole, 64, half, 127.5, 127.5),
        (
            "legacy/64",
            "b0 to b3: V1's",
            CenterCrop(crop_padding=32),
            64,
            "bicubic",
            v1.mean_rgb,
            v1.stddev_rgb,
        ),
    )
    for key, text, framing, size, resize, mean, stddev in cases:
        image = jpeg if key == "legacy/64" else lossless
        pixels, _ = resized_part(image, framing, size, resize=resize)
        expected = archive[key] * np.float32(stddev) + np.float32(mean)
        found = pixels.numpy()[:: size // len(expected)]
        measured = largest(found, expected)
        yield row(key, text, "the same", measured, 0.01, "grey levels")
    pixels, _ = resized_part(jpeg, crop, 64, resize=half)
    measured = float(np.mean(np.abs(pixels.numpy() - (archive["v2/64"] * 128 + 128))))
    text = "decodes the crop alone"
    yield row("v2/64, mean", "decodes the whole JPEG", text, measured, 0.05, "grey levels")


SECTIONS: tuple[Callable[[Path], Iterator[ParityRow]], ...] = (
    inference_rows,
    schedule_rows,
    training_rows,
    augmentation_rows,
    mixing_rows,
    preprocessing_rows,
)
