"""From a run's folder to exports with model cards, and to answers from the command line."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from configs.load import load_experiment
from efficientnet import normalize_images
from input_pipeline.sources.dataset_info import DatasetInfo, SplitInfo, write_dataset_info
from serving import features, predict
from serving.export import _training_images, export_run, load_trained_network
from serving.images import find_images
from serving.model_card import read_model_card
from serving.network import ExportError, NoRunError
from serving.predictor import find_export, open_predictor
from tests.crops import eval_crop_uint8
from tests.input_pipeline.datasets import eval_dataset
from training.job import open_source

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # converters use what other packages deprecated
]

SIZE, CLASSES = 32, 7
NAMES = ("zero", "one", "two", "three", "four", "fünf", "six six")


def wanting(run_folder, formats):
    return load_experiment(
        run_folder + "/experiment.yaml", overrides=[f"export.formats=[{formats}]"]
    )


@pytest.fixture(scope="module")
def exported(run_folder):
    return export_run(run_folder)


@pytest.fixture
def folder_of_images(encoded, broken, tmp_path):
    (tmp_path / "deeper").mkdir()
    (tmp_path / "a.jpg").write_bytes(encoded["jpeg"])
    (tmp_path / "b.PNG").write_bytes(encoded["png"])
    (tmp_path / "c.jpeg").write_bytes(broken["jpeg cut in its body"])
    (tmp_path / "deeper" / "d.png").write_bytes(encoded["grey png"])
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def live_probabilities(network, spec, images):
    pixels = np.stack(
        [eval_crop_uint8(image, image_size=SIZE, crop_padding=6).numpy() for image in images]
    )
    logits = network(normalize_images(pixels, spec.mean_rgb, spec.stddev_rgb))
    return tf.nn.softmax(logits).numpy()


def test_a_run_is_exported_with_its_average_under_its_step(
    exported, run_folder, network, spec, encoded
):
    assert exported == {"saved_model": f"{run_folder}/export/saved_model/40"}
    images = list(encoded.values())
    found = open_predictor(exported["saved_model"]).predict(images)
    assert found.valid.all()
    np.testing.assert_allclose(found.values, live_probabilities(network, spec, images), atol=1e-5)


def test_the_card_tells_what_the_export_is(exported, network):
    folder = exported["saved_model"]
    card = read_model_card(folder)
    assert (card.name, card.format, card.weights, card.step) == (
        "efficientnet-b0",
        "saved_model",
        "ema",
        40,
    )
    assert card.class_names == NAMES
    assert (card.preprocessing.image_size, card.preprocessing.crop_padding) == (SIZE, 6)
    assert card.metrics == {"top_1": 0.75}
    assert card.data == {"name": "shapes", "splits": {"train": 16, "validation": 4}}
    assert card.recipe["model"]["width"] == 0.25
    assert card.parameters == network.count_params()
    assert {"saved_model.pb", "variables/variables.index"} < set(card.files)
    for name, file in card.files.items():
        content = Path(folder, name).read_bytes()
        assert file == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    text = Path(folder, "MODEL_CARD.md").read_text()
    for fact in ("top_1: 0.7500", "shapes, 16 train, 4 validation", "padding 6 px", "bicubic"):
        assert fact in text


def test_an_export_that_is_there_is_left_alone_when_asked(exported, run_folder):
    marker = Path(exported["saved_model"], "marker")
    marker.write_text("still here")
    assert export_run(run_folder, only_missing=True) == exported
    assert marker.exists()
    marker.unlink()


def test_tflite_and_onnx_exports_answer_as_the_live_model(
    run_folder, network, spec, encoded, monkeypatch
):
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("serving.export.VARIANTS", ("float32", "int8"))  # the others cost time
    paths = export_run(run_folder, wanting(run_folder, "tflite, onnx"))
    images = list(encoded.values())
    expected = live_probabilities(network, spec, images)
    for name in ("tflite", "onnx"):
        assert paths[name] == find_export(run_folder, name)
        found = open_predictor(paths[name]).predict([*images[:2], b"broken", *images[2:]])
        assert found.valid.tolist() == [True, True, False] + [True] * (len(images) - 2)
        np.testing.assert_allclose(found.values[found.valid], expected, atol=1e-4)
    assert set(read_model_card(paths["tflite"]).files) == {"float32.tflite", "int8.tflite"}
    with pytest.raises(ExportError, match=r"no float16\.tflite here; it holds float32"):
        open_predictor(paths["tflite"], "float16")


def test_int8_is_calibrated_with_training_images_cropped_as_for_evaluation(run_folder):
    network = load_trained_network(run_folder, "ema")
    images = _training_images(network, 100)
    assert len(images) == 16  # as many as the training split has; validation has fewer
    split = eval_dataset(
        open_source(network.experiment, network.spec),
        "train",
        image_size=SIZE,
        host_batch_size=16,
        crop_padding=6,
    )
    np.testing.assert_array_equal(images, next(iter(split))["image"])
    np.testing.assert_array_equal(_training_images(network, 3), images[:3])


def test_a_copied_folder_of_exports_is_not_taken_for_a_missing_run(tmp_path):
    (tmp_path / "export/saved_model/7").mkdir(parents=True)
    assert find_export(str(tmp_path)).endswith("saved_model/7")
    with pytest.raises(ExportError, match="onnx: no export here; write one"):
        find_export(str(tmp_path), "onnx")
    with pytest.raises(NoRunError):
        find_export(str(tmp_path / "nothing"), "onnx")


def test_predict_answers_each_image_and_reports_the_broken_one(
    exported, run_folder, folder_of_images, network, spec, encoded, capsys
):
    arguments = ["--model_dir", run_folder, "--json", "--images_per_batch=2", "--top=3"]
    assert predict.main([*arguments, str(folder_of_images)]) == 1
    printed = capsys.readouterr()
    answers = {Path(a["file"]).name: a for a in map(json.loads, printed.out.splitlines())}
    assert list(answers) == ["a.jpg", "b.PNG", "c.jpeg", "d.png"]
    assert "error" in answers["c.jpeg"]
    assert len(printed.err.splitlines()) == 1
    assert "c.jpeg: cannot be decoded" in printed.err
    good = {"a.jpg": "jpeg", "b.PNG": "png", "d.png": "grey png"}
    expected = live_probabilities(network, spec, [encoded[kind] for kind in good.values()])
    for name, row in zip(good, expected, strict=True):
        best = np.argsort(-row)[:3]
        found = answers[name]["predictions"]
        assert [p["label"] for p in found] == [NAMES[index] for index in best]
        np.testing.assert_allclose([p["probability"] for p in found], row[best], atol=1e-5)


def test_predict_prints_a_table_and_explains(exported, run_folder, folder_of_images, capsys):
    images = [str(folder_of_images / name) for name in ("a.jpg", "deeper/d.png")]
    assert predict.main(["--model_dir", run_folder, "--explain", *images]) == 0
    printed = capsys.readouterr().out
    assert "a.jpg" in printed.replace("\n", "")
    assert "%" in printed
    pictures = [folder_of_images / name for name in ("a.jpg.cam.png", "deeper/d.png.cam.png")]
    for picture in pictures:
        assert tf.io.decode_png(picture.read_bytes()).shape == (SIZE, SIZE, 3)
    # Another run over the folder doesn't take the maps for images.
    predict.main(["--model_dir", run_folder, "--json", str(folder_of_images)])
    assert ".cam." not in capsys.readouterr().out


def test_images_of_one_name_and_two_endings_have_a_map_each(
    exported, run_folder, encoded, tmp_path, capsys
):
    (tmp_path / "a.jpg").write_bytes(encoded["jpeg"])
    (tmp_path / "a.png").write_bytes(encoded["grey png"])
    assert predict.main(["--model_dir", run_folder, "--explain", str(tmp_path)]) == 0
    maps = [(tmp_path / name).read_bytes() for name in ("a.jpg.cam.png", "a.png.cam.png")]
    assert maps[0] != maps[1]
    capsys.readouterr()


def test_answers_of_any_format_are_explained_by_the_saved_model_of_their_step(
    exported, run_folder, folder_of_images, tmp_path, capsys
):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    export_run(run_folder, wanting(run_folder, "onnx"), only_missing=True)
    image = folder_of_images / "a.jpg"
    written = image.with_name("a.jpg.cam.png")
    maps = {}
    for name in ("saved_model", "onnx"):
        arguments = ["--model_dir", run_folder, "--format", name, "--explain", str(image)]
        assert predict.main(arguments) == 0
        maps[name] = written.read_bytes()
        written.unlink()
    assert maps["onnx"] == maps["saved_model"]
    capsys.readouterr()
    alone = tmp_path / "alone"
    shutil.copytree(f"{run_folder}/export/onnx", alone / "export" / "onnx")
    arguments = ["--model_dir", str(alone), "--format=onnx", "--explain", str(image)]
    assert predict.main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert "export/saved_model/40: no SavedModel here, and --explain needs its gradients" in line
    assert "--set 'export.formats=[saved_model]'" in line


def test_a_map_that_cannot_be_written_is_one_line(exported, run_folder, folder_of_images, capsys):
    (folder_of_images / "a.jpg.cam.png").mkdir()
    image = str(folder_of_images / "a.jpg")
    assert predict.main(["--model_dir", run_folder, "--explain", image]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "a.jpg.cam.png: cannot be written" in line


@pytest.mark.parametrize("formats", ["saved_model", "tflite", "onnx"])
def test_class_names_of_another_number_are_one_line(formats, run_folder, tmp_path):
    model_dir = str(tmp_path / "run")
    shutil.copytree(run_folder, model_dir, ignore=shutil.ignore_patterns("export"))
    splits = {"train": SplitInfo(16), "validation": SplitInfo(4)}
    write_dataset_info(DatasetInfo("shapes", 2, ("one", "two"), splits), model_dir)
    with pytest.raises(ExportError) as caught:
        export_run(model_dir, wanting(model_dir, formats))
    assert str(caught.value) == (
        f"{model_dir}/dataset_info.json: 2 class names for the 7 classes of the network; "
        "expected one name per class, in label order"
    )
    assert not (tmp_path / "run" / "export").exists()


@pytest.mark.parametrize("ending", ["npz", "tfrecord"])
def test_features_of_a_folder_are_written(ending, exported, run_folder, folder_of_images, capsys):
    output = str(folder_of_images / f"out.{ending}")
    arguments = ["--model_dir", run_folder, "--output", output, str(folder_of_images)]
    assert features.main(arguments) == 1  # one image is broken
    printed = capsys.readouterr()
    assert "3 images" in printed.out
    assert "c.jpeg: cannot be decoded, left out" in printed.err
    names, rows = _read_features(output)
    assert [Path(name).name for name in names] == ["a.jpg", "b.PNG", "d.png"]
    signature = tf.saved_model.load(exported["saved_model"]).signatures["features"]
    # The broken one too: rounding differs between batches of three and of four on some processors.
    contents = [Path(name).read_bytes() for name in find_images([str(folder_of_images)])]
    answer = signature(image_bytes=tf.constant(contents))
    expected = answer["features"].numpy()[answer["valid"].numpy()]
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def _read_features(path):
    if path.endswith(".npz"):
        with np.load(path) as content:
            return content["files"].tolist(), content["features"]
    parsed = [
        tf.train.Example.FromString(record.numpy()).features.feature
        for record in tf.data.TFRecordDataset(path)
    ]
    return (
        [p["image/filename"].bytes_list.value[0].decode() for p in parsed],
        np.array([p["features"].float_list.value for p in parsed]),
    )


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"images": ["nowhere.jpg"]}, 1, "nowhere.jpg: no such file or folder"),
        ({"images": ["EMPTY"]}, 1, "no image in this folder"),
        ({"model_dir": "nowhere"}, 2, "nowhere: no run here (no experiment.yaml); train first"),
        ({"format": "onnx", "model_dir": "EMPTY"}, 1, "export.formats=[onnx]"),
    ],
)
def test_what_is_wrong_with_a_prediction_is_one_line(
    change, status, message, exported, run_folder, folder_of_images, tmp_path, capsys
):
    empty = tmp_path / "empty"
    empty.mkdir()
    asked = {
        "model_dir": run_folder,
        "format": "saved_model",
        "images": [str(folder_of_images / "a.jpg")],
        **change,
    }
    (empty / "experiment.yaml").touch()
    images = [path.replace("EMPTY", str(empty)) for path in asked["images"]]
    model_dir = asked["model_dir"].replace("EMPTY", str(empty))
    arguments = ["--model_dir", model_dir, "--format", asked["format"], *images]
    assert predict.main(arguments) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (features, ["--output=x.csv"], "argument --output: 'x.csv' must end in .npz or .tfrecord"),
        (features, [], "the following arguments are required: --output"),
        (predict, ["--top=0"], "argument --top: '0' is not a whole number of at least 1"),
        (predict, ["--format=caffe"], "argument --format: invalid choice: 'caffe'"),
        (predict, ["--batch=3"], "unknown flag --batch; see --help"),
    ],
)
def test_a_mistake_in_the_arguments_is_one_line(command, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["--model_dir=nowhere", *arguments, "image.jpg"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{command.__name__}: {message}")
