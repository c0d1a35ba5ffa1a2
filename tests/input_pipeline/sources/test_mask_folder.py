"""Folders of images and masks, and PASCAL VOC's."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import inspect
from input_pipeline.errors import DatasetError
from input_pipeline.images.framing import Squash
from input_pipeline.images.view import EvalView
from input_pipeline.prepare.__main__ import main as prepare
from input_pipeline.sources import get_source
from input_pipeline.stream.pipeline import make_eval_dataset
from input_pipeline.targets.mask import MASK, Mask
from tests.input_pipeline.images.test_label_map import palette

pytestmark = pytest.mark.slow

SIZE = (12, 16)


def write_pairs(folder: Path, numbers, images="images", masks="masks", encode=None) -> None:
    """JPEGs and masks of which pixel (0, 0) is the number, and all others 0."""
    for name in (images, masks):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pixels = np.full([*SIZE, 3], 10 * number, np.uint8)
        mask = np.zeros(SIZE, np.uint8)
        mask[0, 0] = number
        (folder / images / f"{number:03}.jpg").write_bytes(tf.io.encode_jpeg(pixels).numpy())
        content = encode(mask) if encode else tf.io.encode_png(mask[..., np.newaxis]).numpy()
        (folder / masks / f"{number:03}.png").write_bytes(content)


def numbers(source, split: str) -> list[int]:
    """The pixel (0, 0) of each mask, checked against the image it came with."""
    view = EvalView(SIZE, Squash())
    found = []
    for batch in make_eval_dataset(source, view, split, host_batch_size=1):
        number = int(batch["label"][0, 0, 0])
        assert abs(int(batch["image"][0, 5, 5, 0]) - 10 * number) < 5
        found.append(number)
    return found


def test_images_and_masks_are_paired_by_name_in_each_split(tmp_path: Path):
    write_pairs(tmp_path / "train", [3, 1, 2])
    write_pairs(tmp_path / "val", [5, 4])
    (tmp_path / "classes.txt").write_text("\n".join(f"class {n}" for n in range(6)))
    source = get_source("mask_folder", str(tmp_path), target=Mask())
    assert source.info.class_names[1] == "class 1"
    assert numbers(source, "train") == [1, 2, 3]
    assert numbers(source, "validation") == [4, 5]
    assert source.notes == ("evaluation images: val/",)


def test_test_is_evaluated_where_there_is_no_val(tmp_path: Path):
    write_pairs(tmp_path / "train", [1])
    write_pairs(tmp_path / "test", [2])
    source = get_source("mask_folder", str(tmp_path), num_classes=3, target=Mask())
    assert numbers(source, "validation") == [2]


def test_a_share_is_held_out_of_one_folder(tmp_path: Path):
    write_pairs(tmp_path, range(10), encode=palette)
    source = get_source("mask_folder:0.3", str(tmp_path), num_classes=10, target=Mask())
    train, validation = numbers(source, "train"), numbers(source, "validation")
    assert len(validation) == 3
    assert sorted(train + validation) == list(range(10))


def test_voc_is_read_by_its_lists(tmp_path: Path):
    write_pairs(tmp_path, range(6), "JPEGImages", "SegmentationClass", palette)
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("001\n004\n")
    (lists / "val.txt").write_text("002\n")
    source = get_source("voc", str(tmp_path), target=Mask())
    assert source.info.num_classes == 21
    assert numbers(source, "train") == [1, 4]
    assert numbers(source, "validation") == [2]
    (lists / "trainaug.txt").write_text("000\n003\n005\n")
    source = get_source("voc", str(tmp_path), target=Mask())
    assert source.info.splits["train"].num_examples == 3


def test_missing_masks_are_counted_and_the_first_named(tmp_path: Path):
    write_pairs(tmp_path / "train", range(8))
    for number in (1, 3, 5, 6):
        (tmp_path / "train" / "masks" / f"00{number}.png").unlink()
    with pytest.raises(DatasetError) as error:
        get_source("mask_folder", str(tmp_path), num_classes=8, target=Mask())
    text = str(error.value)
    assert "4 of 8 images have no mask here: 001.jpg, 003.jpg, 005.jpg and 1 more" in text


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ([], "neither images/ nor train/images/ in it"),
        (["train/images", "val/images"], "no such folder; expected a mask for each file"),
        (["images", "masks"], "holds no images"),
    ],
)
def test_folders_that_are_not_there_are_one_line(tmp_path: Path, folders, expected: str):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DatasetError, match=expected):
        get_source("mask_folder", str(tmp_path), num_classes=3, target=Mask())


def test_what_a_source_does_not_hold_is_one_line(tmp_path: Path):
    write_pairs(tmp_path, range(2))
    with pytest.raises(DatasetError, match=r"holds masks; set task\.name=segmentation"):
        get_source("mask_folder", str(tmp_path), num_classes=2)
    with pytest.raises(DatasetError, match="number of classes is not known"):
        get_source("mask_folder", str(tmp_path), target=Mask())
    with pytest.raises(DatasetError, match=f"holds classes of whole images.*{MASK}"):
        get_source("image_folder", str(tmp_path), target=Mask())


def test_masks_are_prepared_as_grey_classes_and_rejected_with_reasons(tmp_path: Path, capsys):
    folder, output = tmp_path / "set", tmp_path / "records"
    write_pairs(folder / "train", range(1, 7), encode=palette)
    write_pairs(folder / "val", [2, 9])
    small = tf.io.encode_png(np.zeros([3, 4, 1], np.uint8)).numpy()
    (folder / "train" / "masks" / "004.png").write_bytes(small)
    flags = [f"--source={folder}", f"--output={output}", "--workers=1", "--num_classes=6"]
    assert prepare([*flags, "--target=mask:first_value=1"]) == 0
    out = capsys.readouterr().out
    assert "rejected 2" in out
    assert "004.png: the mask is 3 x 4, the image 12 x 16" in out
    assert "009.png: mask value 9 is outside 1..6" in out
    source = get_source("tfrecord", str(output), target=Mask())
    assert source.info.num_classes == 6
    view = EvalView(SIZE, Squash())
    labels = [
        batch["label"].numpy()[0]
        for batch in make_eval_dataset(source, view, "train", host_batch_size=1)
    ]
    assert sorted(int(label[0, 0]) for label in labels) == [0, 1, 2, 4, 5]
    assert all((label.ravel()[1:] == 255).all() for label in labels)
    assert source.info.splits["train"].class_counts == (1, 1, 1, 0, 1, 1)
    assert prepare([*flags, "--target=mask"]) == 1
    assert "started with other images or options" in capsys.readouterr().err


def test_a_set_without_classes_is_not_prepared(tmp_path: Path, capsys):
    write_pairs(tmp_path / "set", range(4))
    arguments = [f"--source={tmp_path / 'set'}", f"--output={tmp_path / 'out'}", "--target=mask"]
    assert prepare(arguments) == 1
    assert "set --num_classes, or write the names" in capsys.readouterr().err


def test_masks_are_inspected_with_overlays(tmp_path: Path, capsys):
    write_pairs(tmp_path / "train", range(6))
    write_pairs(tmp_path / "val", range(3))
    (tmp_path / "train" / "masks" / "002.png").write_bytes(b"broken")
    sheet = tmp_path / "sheet.png"
    flags = ["--source=mask_folder", f"--data_dir={tmp_path}", "--target=mask", "--num_classes=6"]
    flags += [f"--sheet={sheet}", "--images=2", "--image_size=32", "--workers=1"]
    assert inspect.main(flags) == 1
    out = capsys.readouterr().out
    assert "train: 1 broken" in out
    assert "002.jpg, example 2: the mask is no PNG file" in out
    assert "labels 0..5, allowed 0..5" in out
    assert tf.io.decode_png(sheet.read_bytes()).shape[1] == 5 * inspect.TILE


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("masks", "no target 'masks'"),
        ("mask:first=1", "invalid option 'first=1'"),
        ("mask:first_value=x", "invalid option"),
    ],
)
def test_an_unknown_target_is_one_line(target: str, expected: str, capsys):
    assert inspect.main([f"--target={target}", "--data_dir=nowhere"]) == 1
    assert expected in capsys.readouterr().err
