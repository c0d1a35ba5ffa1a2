"""A tiny network with values of its own, and encoded images of every kind."""

import struct
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.load import load_experiment, save_experiment
from efficientnet import ModelSpec, build_model, get_spec, normalize_images
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo, write_dataset_info
from run_folder.checkpoints import CheckpointStore
from serving.network import build_inference_network

CLASSES = 7
SIZE = 32
NAMES = ("zero", "one", "two", "three", "four", "fünf", "six six")

Picture = Callable[[int, int, int], np.ndarray]


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    return get_spec("efficientnet-b0", width=0.25, depth=0.1)


@pytest.fixture(scope="session")
def values(spec: ModelSpec, picture: Picture) -> dict[str, list[np.ndarray]]:
    """Return statistics of real images, and weights that classify them differently."""
    keras.utils.set_random_seed(5)
    model = build_model(
        spec,
        num_classes=CLASSES,
        uniform=lambda shape, index: keras.ops.zeros(shape),  # keeps everything
        batch_norm=lambda **settings: keras.layers.BatchNormalization(
            **{**settings, "momentum": 0.0}
        ),
    )
    pictures = np.stack([picture(SIZE, SIZE, seed) for seed in range(16)])
    model(normalize_images(pictures, spec.mean_rgb, spec.stddev_rgb), training=True)
    model.trainable_variables[-2].assign(model.trainable_variables[-2] * 0.2)
    return {
        "weights": [v.numpy() for v in model.trainable_variables],
        "statistics": [v.numpy() for v in model.non_trainable_variables],
    }


@pytest.fixture(scope="session")
def network(spec: ModelSpec, values: dict[str, list[np.ndarray]]) -> keras.Model:
    """The live model."""
    return build_inference_network(spec, num_classes=CLASSES, image_size=SIZE, **values)


@pytest.fixture(scope="session")
def picture() -> Picture:
    """(height, width, seed) -> smooth uint8 picture [height, width, 3] with noise on it."""

    def make(height: int, width: int, seed: int) -> np.ndarray:
        random = np.random.default_rng(seed)
        coarse = random.uniform(0, 255, [1, 4, 5, 3])
        smooth = tf.image.resize(coarse, [height, width], "bicubic")[0].numpy()
        return np.clip(smooth + random.normal(0, 8, smooth.shape), 0, 255).astype("uint8")

    return make


@pytest.fixture(scope="session")
def encoded(picture: Picture) -> dict[str, bytes]:
    """Encoded images by what they are."""
    colour, tall = picture(50, 70, 1), picture(64, 41, 2)
    return {
        "jpeg": tf.io.encode_jpeg(colour, quality=90).numpy(),
        "tall jpeg": tf.io.encode_jpeg(tall).numpy(),
        "grey jpeg": tf.io.encode_jpeg(colour[..., :1], format="grayscale").numpy(),
        "png": tf.io.encode_png(tall).numpy(),
        "grey png": tf.io.encode_png(colour[..., :1]).numpy(),
        "png with alpha": tf.io.encode_png(np.concatenate([colour, colour[..., :1]], -1)).numpy(),
    }


@pytest.fixture(scope="session")
def broken(encoded: dict[str, bytes]) -> dict[str, bytes]:
    """Bytes that are no image, by what is wrong with them."""
    return {
        "text": b"this is no image",
        "nothing": b"",
        "jpeg header only": encoded["jpeg"][:20],
        "jpeg cut in its body": encoded["jpeg"][: len(encoded["jpeg"]) // 2],
        "png cut in its body": encoded["png"][: len(encoded["png"]) // 2],
        "png that claims 30000 x 30000": _claiming(encoded["png"], 16, ">II"),
        "jpeg that claims 30000 x 30000": _claiming(
            encoded["jpeg"], encoded["jpeg"].index(b"\xff\xc0") + 5, ">HH"
        ),
    }


def _claiming(image: bytes, at: int, form: str) -> bytes:
    claim = struct.pack(form, 30_000, 30_000)
    return image[:at] + claim + image[at + len(claim) :]


@pytest.fixture(scope="module")  # tests export into it: one's exports are no other module's
def run_folder(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, list[np.ndarray]]
) -> str:
    """A run as training leaves it: experiment, data set and a checkpoint; no exports."""
    model_dir = str(tmp_path_factory.mktemp("run"))
    experiment = load_experiment(
        overrides=[
            "model.width=0.25",
            "model.depth=0.1",
            f"model.num_classes={CLASSES}",
            f"model.image_size={SIZE}",
            "data.source=synthetic",
            "data.num_train_examples=16",
            "eval.crop_padding=6",
        ]
    )
    save_experiment(experiment, model_dir + "/experiment.yaml")
    splits = {"train": SplitInfo(16), "validation": SplitInfo(4)}
    write_dataset_info(DatasetInfo("shapes", CLASSES, NAMES, splits), model_dir)
    network = build_model(get_spec("efficientnet-b0", width=0.25, depth=0.1), num_classes=CLASSES)
    averages = values["weights"] + values["statistics"]
    variables = network.trainable_variables + [
        v for v in network.non_trainable_variables if "seed" not in v.path
    ]
    arrays = {"step": np.array(40, np.int32)}
    for variable, average in zip(variables, averages, strict=True):
        arrays[f"ema/{variable.path}"] = average
        arrays[f"network/{variable.path}"] = np.zeros_like(average)
    CheckpointStore(model_dir, best_metric="top_1").save(40, arrays, {"top_1": 0.75})
    return model_dir
