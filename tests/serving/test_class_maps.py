"""Exports that answer with a class for each pixel of the original image."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.load import load_experiment, save_experiment
from efficientnet import get_spec, normalize_images
from efficientnet.builder import build_network
from efficientnet.segmentation.unet import UNet, unet_layers
from input_pipeline.images.framing import CenterCrop, Letterbox, Squash
from input_pipeline.images.label_map import IGNORED, decode_label_map
from input_pipeline.images.view import EvalView
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo, write_dataset_info
from run_folder.checkpoints import CheckpointStore
from serving import predict
from serving.class_maps import class_maps, place_all, probability_maps
from serving.export import export_run
from serving.model_card import read_model_card
from serving.network import ExportError
from serving.predictor import find_export, load_signatures, open_map_predictor, open_predictor

SIZE, CLASSES = 32, 4
NAMES = ("ground", "sky", "fünf", "six six")
MODEL = ["model.name=efficientnet-lite0", "model.width=0.25", "model.depth=0.1"]


@pytest.fixture(scope="module")
def network(picture):
    """Lite with statistics of real images and logits that differ from pixel to pixel."""
    keras.utils.set_random_seed(3)
    spec = get_spec("efficientnet-lite0", width=0.25, depth=0.1)
    decoder = UNet((12, 10, 8, 6, 4))
    model = build_network(
        unet_layers(spec, decoder, CLASSES),
        name=spec.name,
        uniform=lambda shape, index: keras.ops.zeros(shape),
        batch_norm=lambda **settings: keras.layers.BatchNormalization(
            **{**settings, "momentum": 0.0}
        ),
    )
    pictures = np.stack([picture(SIZE, SIZE, seed) for seed in range(8)])
    model(normalize_images(pictures, spec.mean_rgb, spec.stddev_rgb), training=True)
    return spec, model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, network) -> str:
    """A run as training leaves it, exported in every format."""
    model_dir = str(tmp_path_factory.mktemp("segmentation"))
    experiment = load_experiment(
        overrides=[
            *MODEL,
            f"model.num_classes={CLASSES}",
            f"model.image_size={SIZE}",
            "task.name=segmentation",
            "task.decoder_filters=[12, 10, 8, 6, 4]",
            "data.source=synthetic",
            "data.num_train_examples=16",
            "eval.framing=letterbox",
            "augment.resize=bilinear",
            "export.formats=[saved_model, tflite, onnx]",
        ]
    )
    save_experiment(experiment, model_dir + "/experiment.yaml")
    splits = {"train": SplitInfo(16), "validation": SplitInfo(4)}
    write_dataset_info(DatasetInfo("scenes", CLASSES, NAMES, splits, 0), model_dir)
    arrays = {"step": np.array(40, np.int32)}
    for variable in network[1].weights:
        arrays[f"ema/{variable.path}"] = variable.numpy()
        arrays[f"network/{variable.path}"] = np.zeros(variable.shape, np.float32)
    CheckpointStore(model_dir, best_metric="mean_iou").save(40, arrays, {"mean_iou": 0.75})
    export_run(model_dir)
    return model_dir


@pytest.mark.slow
def test_maps_have_the_size_of_each_original(run, network, encoded, broken):
    signatures = load_signatures(find_export(run))
    images = [*encoded.values(), broken["text"]]
    outputs = signatures["serving_default"](image_bytes=tf.constant(images))
    maps, sizes, valid = (outputs[name].numpy() for name in ("classes", "sizes", "valid"))
    assert maps.dtype == np.uint8
    assert valid.tolist() == [True] * len(encoded) + [False]
    for image, classes, (height, width) in zip(images[:-1], maps, sizes, strict=False):
        assert tf.io.decode_image(image, expand_animations=False).shape[:2] == (height, width)
        inside = classes[:height, :width]
        assert inside.max() < CLASSES
        assert (classes[height:] == IGNORED).all()
        assert (classes[:, width:] == IGNORED).all()
    assert sizes[-1].tolist() == [0, 0]
    assert (maps[-1] == IGNORED).all()
    assert len(np.unique(maps[:-1])) > 2
    probabilities = signatures["probabilities"](image_bytes=tf.constant(images))["probabilities"]
    there = maps != IGNORED
    np.testing.assert_allclose(probabilities.numpy().sum(-1), there, atol=1e-5)
    np.testing.assert_array_equal(probabilities.numpy().argmax(-1)[there], maps[there])


@pytest.mark.slow
def test_all_formats_agree(run, encoded, broken):
    images = [*list(encoded.values())[:3], broken["text"]]
    reference = open_map_predictor(find_export(run)).predict(images)
    for name, variant, least in (
        ("onnx", "", 0.999),
        ("tflite", "float32", 0.999),
        ("tflite", "float16", 0.99),
        ("tflite", "int8", 0.75),
    ):
        found = open_map_predictor(find_export(run, name), variant).predict(images)
        assert found.valid.tolist() == reference.valid.tolist()
        for ours, theirs in zip(found.maps, reference.maps, strict=True):
            assert ours.shape == theirs.shape
            if ours.size:
                assert (ours == theirs).mean() >= least, (name, variant)
    card = read_model_card(find_export(run, "tflite"))
    assert (card.answers, card.class_names) == ("class_maps", NAMES)
    with pytest.raises(ExportError, match="answers with class_maps"):
        open_predictor(find_export(run))


@pytest.mark.slow
def test_predict_writes_masks_and_overlays(run, encoded, broken, tmp_path: Path, capsys):
    (tmp_path / "good.jpg").write_bytes(encoded["jpeg"])
    (tmp_path / "bad.png").write_bytes(broken["text"])
    arguments = [f"--model_dir={run}", str(tmp_path)]
    assert predict.main([*arguments, "--json"]) == 1
    captured = capsys.readouterr()
    bad, good = (json.loads(line) for line in captured.out.splitlines())
    assert "error" in bad
    assert "bad.png" in captured.err
    labels, problem = decode_label_map(tf.constant(Path(good["mask"]).read_bytes()))
    assert problem == ""
    shares = {each["class"]: each["share"] for each in good["classes"]}
    for number, share in shares.items():
        assert share == pytest.approx((labels.numpy() == number).mean(), abs=1e-6)
    assert {each["label"] for each in good["classes"]} <= set(NAMES)
    assert tf.io.decode_png(Path(good["overlay"]).read_bytes()).shape == (50, 70, 3)
    # What it wrote is no image to predict.
    assert predict.main(arguments) == 1
    assert "share of pixels" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bad.png",
        "good.jpg",
        "good.jpg.mask.png",
        "good.jpg.overlay.png",
    ]
    assert predict.main([*arguments, "--explain"]) == 1
    assert "--explain draws the class of a whole image" in capsys.readouterr().err


@pytest.mark.parametrize("resize", ["bilinear", "bilinear_half_pixel"])
@pytest.mark.parametrize("framing", [Squash(), Letterbox(), Letterbox("top_left")])
def test_a_region_is_where_it_is_in_the_original(framing, resize):
    """Logits that show the image's own regions are mapped back onto them."""
    regions = np.kron([[0, 1, 2], [2, 0, 1]], np.ones([20, 30])).astype(np.uint8)
    image = tf.io.encode_png(np.repeat(100 * regions[..., np.newaxis], 3, axis=-1)).numpy()
    view = EvalView((64, 80), framing, resize)
    placed = place_all(tf.constant([image, b"broken"]), view)
    seen = np.round(placed.framed["image"].numpy()[..., 0] / 100).astype(int)
    outputs = class_maps(tf.constant(np.eye(3, dtype=np.float32)[seen]), placed)
    found = outputs["classes"].numpy()
    assert found.shape == (2, 40, 90)
    assert (found[0] == regions).mean() > 0.95
    assert (found[1] == IGNORED).all()
    probabilities = probability_maps(tf.constant(np.eye(3, dtype=np.float32)[seen]), placed)
    assert (probabilities["probabilities"][1].numpy() == 0).all()


def test_what_a_crop_does_not_show_has_no_class():
    image = tf.io.encode_png(np.zeros([40, 80, 3], np.uint8)).numpy()
    view = EvalView(40, CenterCrop(0), "bilinear")
    placed = place_all(tf.constant([image]), view)
    found = class_maps(tf.zeros([1, 40, 40, 3]), placed)["classes"].numpy()[0]
    assert (found[:, 22:58] == 0).all()
    assert (found[:, :18] == IGNORED).all()
    assert (found[:, 62:] == IGNORED).all()


def test_a_batch_of_broken_images_alone_has_empty_maps():
    placed = place_all(tf.constant([b"a", b"b"]), EvalView(16, Squash()))
    outputs = class_maps(tf.zeros([2, 16, 16, 3]), placed)
    assert outputs["classes"].shape == (2, 0, 0)
    assert not outputs["valid"].numpy().any()
