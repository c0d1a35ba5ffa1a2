import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline.prepare.__main__ import main
from input_pipeline.prepare.convert import default_shards
from input_pipeline.sources import get_source
from input_pipeline.sources.dataset_info import read_dataset_info
from input_pipeline.stream import pipeline
from tests.input_pipeline.datasets import train_dataset

CLASSES = ["n01", "n02", "n03"]


def an_image(number: int, image_format: str = "JPEG", mode: str = "RGB") -> bytes:
    pixels = (
        np.random.default_rng(number).integers(0, 256, (9 + number % 4, 12, 3)).astype(np.uint8)
    )
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, image_format)
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 images in class folders: one is a PNG named .JPEG, one is CMYK, one is none."""
    root = tmp_path_factory.mktemp("images")
    for number in range(30):
        name = CLASSES[number % 3]
        content = an_image(number)
        if number == 4:
            content = an_image(number, "PNG")
        if number == 5:
            content = an_image(number, "JPEG", "CMYK")
        if number == 6:
            content = b"no image"
        (root / name).mkdir(exist_ok=True)
        (root / name / f"{name}_{number}.JPEG").write_bytes(content)
    return root


def run(folder: Path, output: Path, *more: str) -> int:
    flags = [f"--source={folder}", f"--output={output}", "--train_shards=4", *more]
    return main(["--validation_fraction=0.2", "--validation_shards=2", *flags])


def content(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def prepared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("prepared") / "pets"
    assert run(folder, output, "--workers=1") == 0
    return output


def test_records_carry_imagenets_keys_for_the_original_code(prepared: Path):
    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        "image/class/synset": tf.io.FixedLenFeature([], tf.string),
        "image/height": tf.io.FixedLenFeature([], tf.int64),
        "image/width": tf.io.FixedLenFeature([], tf.int64),
        "image/colorspace": tf.io.FixedLenFeature([], tf.string),
        "image/channels": tf.io.FixedLenFeature([], tf.int64),
        "image/format": tf.io.FixedLenFeature([], tf.string),
        "image/filename": tf.io.FixedLenFeature([], tf.string),
    }
    names = []
    for path in sorted(prepared.glob("*-of-*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            example = {
                k: v.numpy() for k, v in tf.io.parse_single_example(record, features).items()
            }
            synset = example["image/class/synset"].decode()
            names.append(example["image/filename"].decode())
            assert names[-1].startswith(synset)
            assert example["image/class/label"] == 1 + CLASSES.index(synset)
            shape = tf.io.extract_jpeg_shape(example["image/encoded"]).numpy().tolist()
            assert shape == [example["image/height"], example["image/width"], 3]
    wanted = {f"{CLASSES[n % 3]}_{n}.JPEG" for n in range(30) if n != 6}
    assert sorted(names) == sorted(wanted)


def test_the_description_counts_what_was_written(prepared: Path):
    info = read_dataset_info(str(prepared))
    assert (info.name, info.class_names) == ("pets", tuple(CLASSES))
    train, validation = info.splits["train"], info.splits["validation"]
    assert train.num_examples + validation.num_examples == 29
    assert sum(train.class_counts) == train.num_examples
    assert np.add(train.class_counts, validation.class_counts).tolist() == [9, 10, 10]
    assert [len(train.shards), len(validation.shards)] == [4, 2]
    assert train.image_sizes["width"] == [12] * 9
    assert train.image_sizes["height"][0] == 9
    assert train.image_sizes["height"][-1] == 12
    for shard in train.shards + validation.shards:
        content = (prepared / shard.file).read_bytes()
        assert shard.num_bytes == len(content)
        digest = subprocess.run(["sha256sum"], input=content, capture_output=True, check=True)
        assert shard.checksum == "sha256:" + digest.stdout.split()[0].decode()


def test_what_was_converted_or_left_out_is_reported(prepared: Path):
    report = json.loads((prepared / "prepare_report.json").read_text())
    rejected = [(entry["image"], entry["reason"]) for entry in report["rejected"]]
    assert rejected == [("n01/n01_6.JPEG", "not an image: it starts with 6e 6f 20 69 6d 61 67 65")]
    converted = {entry["image"]: entry["reason"] for entry in report["converted"]}
    assert converted == {
        "n02/n02_4.JPEG": "PNG converted to JPEG",
        "n03/n03_5.JPEG": "CMYK JPEG converted to RGB",
    }


def test_what_is_evaluated_and_what_is_not_used_is_printed(tmp_path: Path, capsys):
    for number, name in enumerate(("train/a", "train/b", "test/a", "more/a")):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "0.JPEG").write_bytes(an_image(number))
    assert main([f"--source={tmp_path}/images", f"--output={tmp_path}/records"]) == 0
    printed = capsys.readouterr().out
    assert "evaluation images: test/, because there is no val/ or validation/\n" in printed
    assert "not used: more/ (images: 1)\n" in printed
    splits = read_dataset_info(str(tmp_path / "records")).splits
    assert {name: split.num_examples for name, split in splits.items()} == {
        "train": 2,
        "validation": 1,
    }


def test_empty_class_folders_and_an_unread_list_are_printed(tmp_path: Path, capsys):
    images = tmp_path / "images"
    for number, name in enumerate(("cat", "dog", "bird")):
        (images / name).mkdir(parents=True)
        if name != "bird":
            (images / name / "0.JPEG").write_bytes(an_image(number))
    (images / "train.csv").write_text("path,label\ncat/0.JPEG,tabby\n")
    assert main([f"--source={images}", f"--output={tmp_path}/records"]) == 0
    printed = capsys.readouterr().out
    assert "bird/: no images; not a class\n" in printed
    assert f"train.csv is not read; to read it, give --source={images}/train.csv\n" in printed


@pytest.mark.slow
def test_what_was_prepared_trains(prepared: Path):
    source = get_source("tfrecord", str(prepared))
    total = source.info.splits["train"].num_examples
    dataset = train_dataset(source, image_size=8, host_batch_size=total, seed=0)
    (batch,) = dataset.take(1).as_numpy_iterator()
    assert sorted(batch["index"]) == list(range(total))
    assert np.bincount(batch["label"]).tolist() == list(source.info.splits["train"].class_counts)


def test_shards_do_not_depend_on_the_workers_but_on_the_seed(
    folder, prepared: Path, tmp_path: Path
):
    assert run(folder, tmp_path / "pets", "--workers=3") == 0
    assert content(tmp_path / "pets") == content(prepared)
    assert run(folder, tmp_path / "other", "--seed=1") == 0
    name = "train-00000-of-00004"
    assert (tmp_path / "other" / name).read_bytes() != (prepared / name).read_bytes()


def test_stopped_work_goes_on_and_keeps_finished_shards(folder, prepared: Path, tmp_path: Path):
    output = tmp_path / "pets"
    assert run(folder, output) == 0
    times = {path.name: path.stat().st_mtime_ns for path in output.glob("*-of-*")}
    (output / "train-00002-of-00004").write_bytes(b"torn")
    (output / ".prepare" / "validation-00001-of-00002.json").unlink()
    (output / ".prepare" / "train-00001-of-00004.json").write_text('{"file":')
    (output / "dataset_info.json").unlink()
    assert run(folder, output) == 0
    assert content(output) == content(prepared)
    kept = {name for name, time in times.items() if (output / name).stat().st_mtime_ns == time}
    remade = {"train-00002-of-00004", "validation-00001-of-00002", "train-00001-of-00004"}
    assert kept == set(times) - remade


@pytest.mark.slow
def test_killed_work_goes_on(folder, prepared: Path, tmp_path: Path):
    output = tmp_path / "pets"
    script = (
        "import os, signal, sys\n"
        "from input_pipeline.prepare import __main__ as command, convert\n"
        "whole, calls = convert.check_image, []\n"
        "def check(*args, **kwargs):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 14: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return whole(*args, **kwargs)\n"
        "convert.check_image = check\n"
        "command.main(sys.argv[1:])\n"
    )
    flags = [f"--source={folder}", f"--output={output}", "--train_shards=4", "--workers=1"]
    flags += ["--validation_fraction=0.2", "--validation_shards=2"]
    root = Path(pipeline.__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", script, *flags], cwd=root, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(output.glob("*-of-0000?"))) == 2
    assert not (output / "dataset_info.json").exists()
    assert run(folder, output) == 0
    for leftover in output.glob("*.tmp"):
        leftover.unlink()
    assert content(output) == content(prepared)


def test_machines_share_the_shards_and_the_last_one_describes_them(
    folder, prepared: Path, tmp_path: Path, capsys
):
    output = tmp_path / "pets"
    assert run(folder, output, "--shard_range=3:6") == 0
    assert not (output / "dataset_info.json").exists()
    assert "3 shards are written; others are still missing" in capsys.readouterr().out
    assert run(folder, output, "--shard_range=0:3") == 0
    assert content(output) == content(prepared)


def test_imagenet_as_downloaded(tmp_path: Path):
    with tarfile.open(tmp_path / "ILSVRC2012_img_train.tar", "w") as outer:
        for label, name in enumerate(CLASSES):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as inner:
                for number in range(4):
                    add(inner, f"{name}_{number}.JPEG", an_image(10 * label + number))
            add(outer, f"{name}.tar", buffer.getvalue())
    with tarfile.open(tmp_path / "ILSVRC2012_img_val.tar", "w") as tar:
        for number in range(1, 5):
            add(tar, f"ILSVRC2012_val_{number:08d}.JPEG", an_image(100 + number))
    labels = tmp_path / "imagenet_2012_validation_synset_labels.txt"
    labels.write_text("n03\nn01\nn01\nn02\n")
    output = tmp_path / "out"
    assert main([f"--source={tmp_path}", f"--output={output}"]) == 0
    info = read_dataset_info(str(output))
    assert info.class_names == tuple(CLASSES)
    assert info.splits["train"].class_counts == (4, 4, 4)
    assert info.splits["validation"].class_counts == (2, 1, 1)
    for record in tf.data.TFRecordDataset(str(output / "validation-00000-of-00001")):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        number = int(features["image/filename"].bytes_list.value[0][-7:-5])
        assert features["image/class/label"].int64_list.value[0] == [3, 1, 1, 2][number - 1]
        assert features["image/encoded"].bytes_list.value[0] == an_image(100 + number)


def test_imagenet_gets_its_published_number_of_shards():
    assert default_shards("train", 1_281_167) == 1024
    assert default_shards("validation", 50_000) == 128
    assert default_shards("train", 7) == 1


def test_another_plan_does_not_mix_into_an_output(folder, prepared: Path, tmp_path: Path, capsys):
    assert run(folder, prepared, "--seed=5") == 1
    assert "started with other images or options" in capsys.readouterr().err
    (tmp_path / "dataset_info.json").write_text("{}")
    assert run(folder, tmp_path) == 1
    assert "already holds a data set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "code", "expected"),
    [
        (["--source=/nowhere", "--output={out}"], 1, "/nowhere: no such folder or tar"),
        (["--source={folder}"], 2, "the following arguments are required: --output"),
        (
            ["--source={folder}", "--output={out}", "--workers=0"],
            2,
            "not a whole number of at least 1",
        ),
        (
            ["--source={folder}", "--output={out}", "--seed=-1"],
            2,
            "not a whole number of at least 0",
        ),
        (["--source={folder}", "--output={out}", "--shard_range=3"], 2, "expected FIRST:LAST"),
        (["--source={folder}", "--output={out}", "--shard_range=0:9"], 1, "expected a part of 0:2"),
        (["--source={folder}", "--output={out}", "--train_shards=99"], 1, "99 train shards for 27"),
        (
            ["--source={folder}", "--output={out}", "--validation={folder}"],
            1,
            "set --validation_labels=FILE",
        ),
    ],
)
def test_wrong_use_is_one_line(folder, tmp_path: Path, capsys, flags, code: int, expected: str):
    filled = [flag.format(folder=folder, out=tmp_path / "out") for flag in flags]
    if code == 2:
        with pytest.raises(SystemExit, match="2"):
            main(filled)
    else:
        assert main(filled) == code
    error = capsys.readouterr().err
    assert expected in error
    assert error.startswith("input_pipeline.prepare: ")
    assert error.count("\n") == 1
    assert not os.path.exists(tmp_path / "out" / "dataset_info.json")
