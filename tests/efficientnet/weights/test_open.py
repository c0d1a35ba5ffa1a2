"""Weights of every format are recognised by their content, read to the bit, and refused when forged."""

import json
import shutil
import struct

import h5py
import numpy as np
import pytest

from configs.load import load_experiment
from efficientnet import build_model, complexity, get_spec
from efficientnet.weights import WeightsError, read_weights_file, write_weights_file
from efficientnet.weights.containers import identify
from efficientnet.weights.convert import main as convert
from efficientnet.weights.expectations import Expectations, published_expectations
from efficientnet.weights.keras_applications import write_keras_applications_file
from efficientnet.weights.keras_file import assign_weights, read_layers
from efficientnet.weights.lukemelas import lukemelas_layers
from efficientnet.weights.open import open_weights
from efficientnet.weights.safetensors_file import read_safetensors, write_safetensors
from efficientnet.weights.tf1 import read_tf1_checkpoint
from efficientnet.weights.timm import to_timm
from efficientnet.weights.torch_layout import to_torch
from efficientnet.weights.torch_pickle import read_torch_file
from run_folder.checkpoints import CheckpointStore
from run_folder.experiment import save_run_experiment
from system.errors import UserError
from tests.torch_files import torch_legacy, torch_zip

SPEC = get_spec("efficientnet-b0", width=0.125, depth=0.1)
FLAGS = ["--model=efficientnet-b0", "--width=0.125", "--depth=0.1"]
CLASSES = 5
IMAGENET = (SPEC.mean_rgb, SPEC.stddev_rgb)
HALF = ((127.5,) * 3, (127.5,) * 3)


def random_weights(spec, num_classes=CLASSES):
    random = np.random.default_rng(0)
    shapes = complexity(spec, num_classes=num_classes).variable_shapes
    return {
        path: random.uniform(0.5, 1.5, shape).astype(np.float32) for path, shape in shapes.items()
    }


WEIGHTS = random_weights(SPEC)


def as_ours(file):
    write_weights_file(f"{file}.weights.h5", SPEC, WEIGHTS)
    shutil.move(f"{file}.weights.h5", file)


def as_keras(file):
    model = build_model(SPEC, num_classes=CLASSES)
    assign_weights(model, WEIGHTS)
    model.save(f"{file}.keras")
    shutil.move(f"{file}.keras", file)


def as_lukemelas(write):
    tensors = to_torch(WEIGHTS, SPEC, lukemelas_layers(SPEC), CLASSES)
    return lambda file: file.write_bytes(write(tensors))


def as_timm(write):
    return lambda file: file.write_bytes(write(to_timm(WEIGHTS, SPEC, CLASSES)))


FILES = {
    "ours": as_ours,
    "keras": as_keras,
    "keras.applications": lambda file: write_keras_applications_file(file, SPEC, WEIGHTS),
    "timm's safetensors": lambda file: write_safetensors(file, to_timm(WEIGHTS, SPEC, CLASSES), {}),
    "timm's zip": as_timm(torch_zip),
    "timm's legacy": as_timm(torch_legacy),
    "lukemelas' zip": as_lukemelas(torch_zip),
    "lukemelas' legacy": as_lukemelas(torch_legacy),
}
CONTAINERS = {
    "ours": "an HDF5 file",
    "keras": "a .keras archive",
    "keras.applications": "an HDF5 file",
    "timm's safetensors": "a safetensors file",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file of each format, under a name that does not show it."""
    folder = tmp_path_factory.mktemp("files")
    made = {name: folder / f"weights_{number}" for number, name in enumerate(FILES)}
    for name, write in FILES.items():
        write(made[name])
    return made


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        assert found[path].dtype == np.float32, path
        np.testing.assert_array_equal(found[path], array, err_msg=path)


@pytest.mark.parametrize("name", FILES)
def test_every_format_is_recognised_and_read_to_the_bit(name, files):
    assert identify(files[name]) == CONTAINERS.get(name, "a PyTorch file")
    assert_equal(open_weights(files[name], SPEC).weights, WEIGHTS)


@pytest.mark.parametrize("model", ["efficientnet-b1", "efficientnet-lite1", "efficientnetv2-b0"])
def test_other_networks_go_to_pytorchs_names_and_back(model, tmp_path):
    spec = get_spec(model, width=0.125, depth=0.4)
    weights = random_weights(spec, None)
    write_safetensors(tmp_path / "x", to_timm(weights, spec, None), {})
    assert_equal(open_weights(tmp_path / "x", spec).weights, weights)
    if "v2" not in model:
        tensors = to_torch(weights, spec, lukemelas_layers(spec), None)
        (tmp_path / "x.pth").write_bytes(torch_zip({"state_dict": tensors}))
        assert_equal(open_weights(tmp_path / "x.pth", spec).weights, weights)


def test_timms_names_differ_in_blocks_without_expansion():
    spec = get_spec("efficientnet-b0", width=0.125)
    weights = random_weights(spec)
    tensors = to_timm(weights, spec, CLASSES)
    for theirs, ours in {
        "blocks.0.0.bn1.weight": "block_0_depthwise_bn/gamma",
        "blocks.0.0.bn2.running_mean": "block_0_project_bn/moving_mean",
        "blocks.1.1.bn1.bias": "block_2_expand_bn/beta",
        "blocks.1.1.bn2.weight": "block_2_depthwise_bn/gamma",
        "blocks.1.1.bn3.running_var": "block_2_project_bn/moving_variance",
        "blocks.6.0.se.conv_reduce.bias": "block_15_se_reduce/bias",
        "bn2.weight": "head_bn/gamma",
    }.items():
        np.testing.assert_array_equal(tensors[theirs], weights[ours], err_msg=theirs)
    assert "blocks.0.0.bn3.weight" not in tensors
    kernel = weights["block_0_project_conv/kernel"]
    np.testing.assert_array_equal(tensors["blocks.0.0.conv_pw.weight"][:, :, 0, 0], kernel[0, 0].T)
    kernel = weights["block_2_depthwise_conv/kernel"]
    np.testing.assert_array_equal(tensors["blocks.1.1.conv_dw.weight"][5, 0], kernel[:, :, 5, 0])
    np.testing.assert_array_equal(tensors["classifier.weight"], weights["classifier/kernel"].T)


def test_timms_names_differ_in_fused_blocks():
    spec = get_spec("efficientnetv2-s", width=0.125)
    weights = random_weights(spec)
    tensors = to_timm(weights, spec, CLASSES)
    for theirs, ours in {
        "blocks.0.1.bn1.weight": "block_1_project_bn/gamma",
        "blocks.1.0.bn1.weight": "block_2_expand_bn/gamma",
        "blocks.1.0.bn2.weight": "block_2_project_bn/gamma",
        "blocks.3.0.bn3.weight": "block_10_project_bn/gamma",
    }.items():
        np.testing.assert_array_equal(tensors[theirs], weights[ours], err_msg=theirs)
    kernel = weights["block_2_expand_conv/kernel"]
    np.testing.assert_array_equal(
        tensors["blocks.1.0.conv_exp.weight"], kernel.transpose(3, 2, 0, 1)
    )
    assert {"blocks.0.1.conv.weight", "blocks.3.0.conv_pw.weight"} <= tensors.keys()
    assert tensors["blocks.1.0.bn1.num_batches_tracked"] == 0


def test_published_checkpoints_are_recognised_by_their_names(goldens):
    tiny = get_spec("efficientnet-b0", width=0.25, depth=0.5)
    for raw in (False, True):
        opened = open_weights(goldens / "tf1_checkpoint", tiny, raw=raw)
        assert_equal(opened.weights, read_tf1_checkpoint(goldens / "tf1_checkpoint", tiny, raw=raw))
        assert opened.expectations == published_expectations(tiny, "a TensorFlow 1 checkpoint")
    v2 = get_spec("efficientnetv2-b0", width=0.125, depth=0.3)
    opened = open_weights(goldens / "v2_checkpoint" / "keras", v2)
    assert opened.expectations.source == "a TensorFlow 2 checkpoint"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two checkpoints, the first of which is the better; each array is WEIGHTS times a number."""
    folder = tmp_path_factory.mktemp("run")
    settings = ["model.image_size=32", "batch_norm.epsilon=0.01", "eval.crop_padding=4"]
    save_run_experiment(load_experiment(overrides=settings), str(folder))
    store = CheckpointStore(str(folder), best_metric="top_1")
    for step, top_1 in ((1, 0.9), (2, 0.3)):
        arrays = {f"network/{path}": array * step for path, array in WEIGHTS.items()}
        arrays |= {f"ema/{path}": array * -step for path, array in WEIGHTS.items()}
        store.save(step, {**arrays, "step": np.int32(step)}, {"top_1": top_1})
    return folder


def times(number):
    return {path: array * number for path, array in WEIGHTS.items()}


def test_a_run_gives_the_averages_of_its_best_checkpoint_or_the_last_weights(run):
    assert_equal(open_weights(run, SPEC).weights, times(-1))
    assert_equal(open_weights(run, SPEC, raw=True).weights, times(1))
    second = run / "checkpoints" / "step_00000002"
    for path in (second, second / "values"):
        assert_equal(open_weights(path, SPEC).weights, times(-2))


def test_a_run_without_averages_gives_its_last_weights(tmp_path):
    arrays = {f"network/{path}": array for path, array in WEIGHTS.items()}
    CheckpointStore(str(tmp_path), best_metric="top_1").save(7, arrays)
    opened = open_weights(tmp_path / "checkpoints" / "step_00000007", SPEC)
    assert_equal(opened.weights, WEIGHTS)
    assert opened.expectations.note


def test_a_run_expects_what_its_experiment_set(run):
    for path in (run, run / "checkpoints" / "step_00000002"):
        expected = open_weights(path, SPEC).expectations
        assert expected.normalization == IMAGENET
        assert (expected.batch_norm_epsilon, expected.image_size) == (0.01, 32)
        assert expected.crop_padding(64) == 8


def test_a_damaged_run_is_one_line(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    for values in copy.glob("checkpoints/*/values.data*"):
        values.write_bytes(values.read_bytes()[:100])
    with pytest.raises(UserError, match=r"^[^\n]*no checkpoint here[^\n]*$"):
        open_weights(copy, SPEC)
    with pytest.raises(UserError, match=r"^[^\n]*step_00000002: damaged \(values\.data[^\n]*$"):
        open_weights(copy / "checkpoints" / "step_00000002", SPEC)
    (copy / "checkpoints" / "step_00000001" / "manifest.json").unlink()
    with pytest.raises(
        UserError, match=r"step_00000001: half-written \(no manifest\); give another"
    ):
        open_weights(copy / "checkpoints" / "step_00000001" / "values", SPEC)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(WeightsError, match="is a SavedModel"):
        open_weights(tmp_path, SPEC)


# -- converting -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("lukemelas' legacy", "weights.h5"),
        ("ours", "safetensors"),
        ("keras", "h5"),
        ("keras.applications", "safetensors"),
        ("timm's zip", "h5"),
    ],
)
def test_a_format_is_converted_to_another_to_the_bit(name, ending, files, tmp_path, capsys):
    output = tmp_path / f"made.{ending}"
    assert convert([f"--input={files[name]}", *FLAGS, f"--output={output}"]) == 0
    assert "5 classes" in capsys.readouterr().out
    assert_equal(open_weights(output, SPEC).weights, WEIGHTS)


def test_a_network_that_keras_applications_lacks_is_refused(tmp_path):
    lite = get_spec("efficientnet-lite0", width=0.125)
    with pytest.raises(WeightsError, match=r"keras\.applications has no efficientnet-lite0"):
        write_keras_applications_file(tmp_path / "x.h5", lite, random_weights(lite))


def test_a_converted_file_keeps_what_its_weights_expect(tmp_path):
    write_safetensors(
        tmp_path / "x",
        to_timm(WEIGHTS, SPEC, CLASSES),
        {"architecture": "tf_efficientnet_b0.ap_in1k"},
    )
    expected = open_weights(tmp_path / "x", SPEC).expectations
    assert expected.normalization == HALF
    output = tmp_path / "ours.weights.h5"
    assert convert([f"--input={tmp_path / 'x'}", *FLAGS, f"--output={output}"]) == 0
    assert open_weights(output, SPEC).expectations == expected
    assert_equal(read_weights_file(output), WEIGHTS)
    assert convert([f"--input={output}", *FLAGS, f"--output={tmp_path / 'theirs.h5'}"]) == 0
    mean, variance, _ = read_layers(tmp_path / "theirs.h5")["normalization"]
    np.testing.assert_allclose(np.sqrt(variance) * 255, HALF[1], rtol=1e-6)
    np.testing.assert_allclose(mean * 255, HALF[0], rtol=1e-6)


# -- expectations -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "normalization"),
    [
        ("tf_efficientnet_b0_aa-827b6e33.pth", IMAGENET),
        ("tf_efficientnet_b0_ap-f262efe1.pth", HALF),
        ("epoch_17.pth", IMAGENET),
    ],
)
def test_a_file_of_timm_is_named_by_itself(file, normalization, tmp_path):
    (tmp_path / file).write_bytes(torch_zip(to_timm(WEIGHTS, SPEC, CLASSES)))
    expected = open_weights(tmp_path / file, SPEC).expectations
    assert expected.normalization == normalization
    assert (expected.batch_norm_epsilon, expected.crop_fraction) == (1e-3, 0.875)
    assert bool(expected.note) == file.startswith("epoch")


@pytest.mark.parametrize(
    ("file", "normalization"),
    [("efficientnet-b0-355c32eb.pth", IMAGENET), ("adv-efficientnet-b0-b64d5a18.pth", HALF)],
)
def test_advprops_weights_of_efficientnet_pytorch_are_known_by_their_name(
    file, normalization, tmp_path
):
    as_lukemelas(torch_legacy)(tmp_path / file)
    assert open_weights(tmp_path / file, SPEC).expectations.normalization == normalization


def hub_folder(folder, **config):
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", to_timm(WEIGHTS, SPEC, CLASSES), {})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_folder_from_the_hub_says_what_it_expects(tmp_path):
    config = {"mean": [0.5] * 3, "std": [0.25] * 3, "input_size": [3, 96, 96], "crop_pct": 0.9}
    folder = hub_folder(
        tmp_path / "hub",
        architecture="tf_efficientnet_b0",
        pretrained_cfg=config | {"interpolation": "bilinear"},
    )
    opened = open_weights(folder, SPEC)
    assert_equal(opened.weights, WEIGHTS)
    expected = opened.expectations
    assert expected.normalization == ((127.5,) * 3, (63.75,) * 3)
    assert (expected.image_size, expected.resize) == (96, "bilinear")
    config["input_size"] = "large"
    (folder / "config.json").write_text(
        json.dumps({"architecture": "tf_efficientnet_b0", "pretrained_cfg": config})
    )
    with pytest.raises(WeightsError, match=r"config\.json beside it is damaged"):
        open_weights(folder, SPEC)


def test_variants_of_pytorch_expect_symmetric_padding(tmp_path):
    file = tmp_path / "efficientnet_b0_ra-3dd342df.pth"
    as_timm(torch_legacy)(file)
    for given in (file, hub_folder(tmp_path / "hub", architecture="efficientnet_b0.ra_in1k")):
        expected = open_weights(given, SPEC).expectations
        assert (expected.padding, expected.batch_norm_epsilon) == ("symmetric", 1e-5)
    assert open_weights(hub_folder(tmp_path / "tf"), SPEC).expectations.padding == "same"


def test_variants_of_another_network_are_refused_by_name(tmp_path):
    for name in ("efficientnet_b0_pruned", "efficientnetv2_rw_s.ra2_in1k", "efficientnet_b1"):
        folder = hub_folder(tmp_path / name, architecture=name)
        with pytest.raises(
            WeightsError, match=rf"timm's {name}, another network than efficientnet-b0"
        ):
            open_weights(folder, SPEC)
    (tmp_path / "x.pth").write_bytes(torch_zip({"features.0.0.weight": np.zeros(1, np.float32)}))
    with pytest.raises(WeightsError, match="is of torchvision"):
        open_weights(tmp_path / "x.pth", SPEC)


def test_the_crop_shows_the_published_share_at_every_size():
    b4 = published_expectations(get_spec("efficientnet-b4"), "x")
    assert b4.crop_padding(380) == 32
    assert b4.crop_padding((190, 300)) == 16
    assert published_expectations(get_spec("efficientnetv2-s"), "x").crop_padding(384) == 0
    assert Expectations("x").crop_padding(224) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"source": 1}', '{"normalization": [1]}'])
def test_forged_expectations_are_one_line(text, files, tmp_path):
    file = shutil.copy(files["ours"], tmp_path / "forged")
    with h5py.File(file, "r+") as h5:
        h5.attrs["expectations"] = text
    with pytest.raises(WeightsError, match=r"^cannot read [^\n]*$"):
        open_weights(file, SPEC)


# -- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_each_reader_names_the_format_that_it_found(name, files):
    file = files[name]
    kind = CONTAINERS.get(name, "a PyTorch file")
    readers = {
        "an HDF5 file": read_layers,
        "a PyTorch file": lambda file: read_torch_file(file.read_bytes(), str(file)),
        "a safetensors file": lambda file: read_safetensors(file.read_bytes(), str(file)),
        "a TensorFlow checkpoint": lambda file: read_tf1_checkpoint(file, SPEC),
    }
    for reads, read in readers.items():
        if reads != kind:
            with pytest.raises(WeightsError, match=rf"^[^\n]*{file}[^\n]*{kind}[^\n]*$"):
                read(file)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_one_line(name, files, tmp_path):
    content = files[name].read_bytes()
    for length in (0, 3, 12, 70, len(content) // 3, len(content) - 40):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"^[^\n]*$"):
            open_weights(tmp_path / "cut", SPEC)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "an empty file"),
        (b"hello", "a file of unknown format"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (b"<!DOCTYPE html>", "an HTML or XML page"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"\x80\x04K\x01.", "a pickle that torch.save did not write"),
        (b"PK\x03\x04", "a damaged zip archive"),
        (b"\x00\x00\x00\x00TFL3", "a TFLite file"),
        (struct.pack("<Q", 2**40) + b"{}", "a file of unknown format"),
    ],
)
def test_what_holds_no_weights_is_named(content, named, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=rf"x\.pth is {named}[^\n]*; expected a run"):
        open_weights(tmp_path / "x.pth", SPEC)


@pytest.mark.parametrize(
    "header",
    [
        {"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}},
        {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**40]}},
        {"x": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}},
        {"x": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}},
        {"x": 1},
    ],
)
def test_a_forged_header_of_safetensors_is_one_line(header, tmp_path):
    text = json.dumps(header).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(WeightsError, match=r"^cannot read [^\n]* as a safetensors file: [^\n]*$"):
        open_weights(tmp_path / "x", SPEC)


def test_an_array_that_a_forged_hdf5_file_does_not_hold_is_refused(tmp_path):
    with h5py.File(tmp_path / "x", "w") as h5:
        group = h5.create_group("stem_conv")
        group.attrs["weight_names"] = [b"kernel"]
        group.create_dataset("kernel", (2**40,), "f4", chunks=(2**10,))
    with pytest.raises(WeightsError, match="/stem_conv/kernel is not stored in the file"):
        open_weights(tmp_path / "x", SPEC)


def test_missing_extra_and_misshaped_tensors_are_listed(tmp_path):
    tensors = to_timm(WEIGHTS, SPEC, CLASSES)
    tensors["extra.weight"] = tensors.pop("bn1.weight")
    tensors["conv_stem.weight"] = tensors["conv_stem.weight"][:, :1]
    (tmp_path / "x").write_bytes(torch_zip(tensors))
    with pytest.raises(
        WeightsError,
        match=r"missing \(first: bn1\.weight\), 1 of .* \(first: extra\.weight\), 1 have another shape",
    ):
        open_weights(tmp_path / "x", SPEC)


def test_raw_weights_of_a_file_with_one_set_are_refused(files):
    with pytest.raises(WeightsError, match="holds one set of weights"):
        open_weights(files["ours"], SPEC, raw=True)
