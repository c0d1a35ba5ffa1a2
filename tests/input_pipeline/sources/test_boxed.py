"""Images with boxes described by COCO's JSON, VOC's XML and YOLO's text."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from input_pipeline.errors import DatasetError
from input_pipeline.images.framing import Letterbox
from input_pipeline.images.view import EvalView
from input_pipeline.sources import get_source
from input_pipeline.sources.cache import cache_source
from input_pipeline.sources.coco import COCO_IDS, list_coco
from input_pipeline.sources.voc_boxes import list_voc_boxes
from input_pipeline.sources.yolo import list_yolo
from input_pipeline.stream.pipeline import make_eval_dataset
from input_pipeline.targets.boxes import NO_CLASS, Boxes
from tests.input_pipeline.sources.boxed_folders import (
    OBJECTS,
    coco,
    voc,
    write_coco,
    write_voc,
    write_yolo,
)

WRITE = {"coco": write_coco, "voc_boxes": write_voc, "yolo": write_yolo}


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITE)
def test_the_same_objects_are_read_in_every_layout(kind, tmp_path: Path):
    WRITE[kind](tmp_path)
    source = get_source(kind, str(tmp_path), target=Boxes(4))
    assert source.info.class_names == ("cat", "dog")
    view = EvalView(32, Letterbox())
    in_memory = cache_source(source, "memory")
    for split, ours in {"train": "train", "val": "validation"}.items():
        batches = list(make_eval_dataset(source, view, ours, host_batch_size=1))
        assert len(batches) == len(OBJECTS[split])
        cached = list(make_eval_dataset(in_memory, view, ours, host_batch_size=1))
        rows = zip(OBJECTS[split].values(), batches, cached, strict=True)
        for objects, batch, again in rows:
            real = batch["classes"][0] != NO_CLASS
            assert batch["classes"][0][real].numpy().tolist() == [each[0] for each in objects]
            expected = np.reshape([each[1:] for each in objects], [-1, 4])
            np.testing.assert_allclose(batch["boxes"][0][real], expected, atol=1e-5)
            np.testing.assert_allclose(batch["boxes"], again["boxes"])
            if kind == "coco" and objects:
                assert batch["area"][0, 0] == 10.5
                assert batch["crowd"][0, 0] == float(objects[0][3] == 24)
    assert all(note.startswith(("train images: ", "validation images: ")) for note in source.notes)


def test_coco_beside_one_folder_of_images_holds_out_a_share(tmp_path: Path):
    write_coco(tmp_path)
    content = coco("train")
    (tmp_path / "train2017").rename(tmp_path / "images")
    shutil.rmtree(tmp_path / "annotations")
    for row in content["annotations"]:
        row.pop("area")
    content["annotations"].append({**content["annotations"][0], "image_id": 1, "id": 5})
    (tmp_path / "train.json").write_text(json.dumps(content))
    images = list_coco(str(tmp_path), 0.34)
    assert [len(images.splits[split]) for split in ("train", "validation")] == [2, 1]
    every = {image.name: objects for part in images.splits.values() for image, objects in part}
    np.testing.assert_allclose(every["a.jpg"].area, [96, 176])
    assert images.notes[-1] == "evaluation images: 0.34 of the training images"


def test_coco_s_own_categories_keep_their_ids(tmp_path: Path):
    write_coco(tmp_path)
    for split in OBJECTS:
        content = coco(split)
        content["categories"] = [{"id": n, "name": f"name {n}"} for n in sorted(COCO_IDS)]
        file = tmp_path / "annotations" / f"instances_{split}2017.json"
        file.write_text(json.dumps(content))
    images = list_coco(str(tmp_path))
    assert len(images.class_names) == 90
    assert images.class_names[11:13] == ("unused 12", "name 13")
    assert images.splits["train"][0][1].classes.tolist() == [2, 6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_id": 8}, "annotation 100: no category 8; known ids: 3, 7"),
        ({"image_id": 9}, "annotation 100: no image 9"),
        ({"bbox": [1, 2, 3]}, r"annotation 100: bbox is \[1, 2, 3\]; expected \[x, y, width"),
        ({"bbox": [1, 2, 3, "4"]}, r"annotation 100: bbox is \[1, 2, 3, '4'\]; expected"),
        ({"category_id": None}, "annotation 100: category_id is None; expected int"),
    ],
)
def test_annotations_that_coco_does_not_have_are_named(change, message, tmp_path: Path):
    write_coco(tmp_path)
    content = coco("train")
    content["annotations"][0].update(change)
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=f"instances_train2017.json, {message}"):
        list_coco(str(tmp_path))


def test_missing_images_of_coco_are_counted_and_the_first_three_named(tmp_path: Path):
    write_coco(tmp_path)
    for name in "bc":
        (tmp_path / "train2017" / f"{name}.jpg").unlink()
    with pytest.raises(
        DatasetError, match=r"2 of its 3 files are not in .*train2017/: b.jpg, c.jpg"
    ):
        list_coco(str(tmp_path))
    shutil.rmtree(tmp_path / "train2017")
    content = coco("train")
    content["images"] += [{**content["images"][0], "id": 9, "file_name": "e.jpg"}]
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"4 of its 4 .*: a.jpg, b.jpg, c.jpg and 1 more"):
        list_coco(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [\n1,,2]}', "train.json, line 2: not JSON"),
        ("[]", "train.json: expected an object with images, annotations and categories"),
        ('{"categories": {}}', "train.json: 'categories' must be a list of objects"),
        ('{"categories": []}', "train.json: no categories"),
        ("[" * 100_000, "train.json: not JSON of COCO"),
        ("[" + "1" * 5000 + "]", "train.json: not JSON of COCO"),
    ],
)
def test_files_that_are_not_coco_s_are_named(content, message, tmp_path: Path):
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        list_coco(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation>\n<size>\n</annotation>", r"a.xml, line 3: not XML"),
        (voc("a", []).replace("24", "0"), "a.xml: size is 0 x 32; expected more than 0"),
        (voc("a", []).replace("height", "x"), "a.xml: size/height is None; expected a number"),
        (voc("a", [(0, 1, 2, 3, "nan")]), "a.xml, object 1: bndbox/xmax is 'nan'; expected"),
        (voc("a", [(0, 1, 2, 3, 4)]).replace("cat", " "), "a.xml, object 1: no name"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><a/>", "a.xml: defines XML entities"),
        ("<?xml version='1.0' encoding='none'?><a/>", "a.xml"),
    ],
)
def test_xml_that_is_not_voc_s_is_named_with_its_line(content, message, tmp_path: Path):
    write_voc(tmp_path)
    (tmp_path / "Annotations" / "a.xml").write_text(content)
    with pytest.raises(DatasetError, match=message):
        list_voc_boxes(str(tmp_path))


def test_a_class_that_only_validation_has_is_named(tmp_path: Path):
    write_voc(tmp_path)
    (tmp_path / "classes.txt").write_text("dog\n")
    with pytest.raises(DatasetError, match=r"a.xml, object 1: no class 'cat'; known: dog"):
        list_voc_boxes(str(tmp_path))


def test_lists_of_voc_whose_files_are_missing_are_named(tmp_path: Path):
    write_voc(tmp_path)
    (tmp_path / "Annotations" / "c.xml").unlink()
    with pytest.raises(DatasetError, match=r"train.txt: 1 of its 3 files .*Annotations/: c.xml"):
        list_voc_boxes(str(tmp_path))
    write_voc_again = tmp_path / "Annotations" / "c.xml"
    write_voc_again.write_text(voc("c", []))
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(DatasetError, match=r"train.txt: 1 of its 3 files .*JPEGImages/: b"):
        list_voc_boxes(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0 .5 .5 .1 .1\n2 .5 .5 .1 .1", "a.txt, line 2: class 2 is outside 0..1"),
        ("\n0 .5 .5 .1", "a.txt, line 2: '0 .5 .5 .1'; expected CLASS CENTRE_X"),
        ("0 .5 .5 .1 nan", "a.txt, line 1"),
        ("0.5 .5 .5 .1 .1", "a.txt, line 1: class 0.5 is outside"),
        ("0 .1 .1 .2 .1 .2 .2", "a.txt, line 1"),
    ],
)
def test_lines_that_are_not_yolo_s_are_named(content, message, tmp_path: Path):
    write_yolo(tmp_path)
    (tmp_path / "labels" / "train" / "a.txt").write_text(content)
    with pytest.raises(DatasetError, match=message):
        list_yolo(str(tmp_path))


def test_yolo_s_folders_of_splits_and_lists_of_names_are_read(tmp_path: Path):
    write_yolo(tmp_path / "there")
    for split, folder in {"train": "train", "val": "valid"}.items():
        (tmp_path / folder).mkdir()
        for kind in ("images", "labels"):
            (tmp_path / "there" / kind / split).rename(tmp_path / folder / kind)
    with pytest.raises(DatasetError, match="the names of the classes are not known"):
        list_yolo(str(tmp_path))
    (tmp_path / "data.yaml").write_text("names: [cat, dog, bird]")
    images = list_yolo(str(tmp_path))
    assert images.class_names == ("cat", "dog", "bird")
    assert [len(objects.classes) for _, objects in images.splits["train"]] == [2, 0, 1]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("nc: 2\nnames: [ 'a', \"b c\" ]  # two\nval: x", ("a", "b c")),
        ("names: ['a',\n  b]\n", ("a", "b")),
        ("names:\n- a\n- b  # c\nval: x\n", ("a", "b")),
        ("names:\n\n  0: a\n  1: b\n", ("a", "b")),
        ("names:\n  1: a", r"data.yaml, line 2: class 1; expected 0"),
        ("names: {0: a}", r"data.yaml, line 1: names are none"),
        ("names: [a, a]", r"data.yaml, line 1: names are a, a; expected a different"),
        ("nc: 2", r"data.yaml: no key 'names'"),
    ],
)
def test_the_names_in_data_yaml_are_read_or_the_line_is_named(content, names, tmp_path: Path):
    write_yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(content)
    if isinstance(names, tuple):
        assert list_yolo(str(tmp_path)).class_names == names
    else:
        with pytest.raises(DatasetError, match=names):
            list_yolo(str(tmp_path))


@pytest.mark.parametrize("kind", WRITE)
def test_a_set_without_any_box_is_refused(kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(OBJECTS, "val", {"d": []})
    WRITE[kind](tmp_path)
    with pytest.raises(
        DatasetError, match="none of the 1 images of the split validation has a box"
    ):
        get_source(kind, str(tmp_path), target=Boxes())


@pytest.mark.parametrize("kind", WRITE)
def test_a_source_of_boxes_needs_its_folder_and_the_task(kind, tmp_path: Path):
    with pytest.raises(DatasetError, match=f"{kind} needs data_dir"):
        get_source(kind, target=Boxes())
    with pytest.raises(DatasetError, match="no such folder"):
        get_source(kind, str(tmp_path / "none"), target=Boxes())
    with pytest.raises(DatasetError, match=r"expected a folder with"):
        get_source(kind, str(tmp_path), target=Boxes())
    with pytest.raises(DatasetError, match=r"set task.name=detection"):
        get_source(kind, str(tmp_path))
