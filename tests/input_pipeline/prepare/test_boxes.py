"""Images with boxes become records in the published keys, with a report of what was left out."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import inspect
from input_pipeline.images.framing import Letterbox
from input_pipeline.images.view import EvalView
from input_pipeline.prepare.__main__ import main as prepare
from input_pipeline.sources import get_source
from input_pipeline.stream.pipeline import make_eval_dataset
from input_pipeline.targets.boxes import NO_CLASS, Boxes
from tests.input_pipeline.sources.boxed_folders import (
    HEIGHT,
    WIDTH,
    coco,
    write_coco,
    write_voc,
    write_yolo,
)

pytestmark = pytest.mark.slow

# Boxes of the image "a" as COCO has them, and why they are not written.
FAULTS = {
    (4, 4, -2, 4): "negative size",
    (4, 4, 0, 4): "no area",
    (-2, 4, 8, 4): "outside the image",
    (31, 4, 2.5, 4): "outside the image",
    (40, 30, 4, 4): "outside the image",
}
CUT = (-0.5, 20, 8, 4.25)  # less than a pixel over two edges


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of COCO's folders with boxes that cannot be written, and an image of another size."""
    root = tmp_path_factory.mktemp("boxes")
    write_coco(root / "raw")
    content = coco("train")
    first = content["annotations"][0]
    content["annotations"] += [
        {**first, "id": 200 + n, "bbox": box} for n, box in enumerate([*FAULTS, CUT])
    ]
    content["images"][2]["height"] = HEIGHT + 1
    file = root / "raw" / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps(content))
    flags = [f"--source={root}/raw", f"--output={root}/records", "--train_shards=2"]
    assert prepare([*flags, "--target=boxes", "--workers=1"]) == 0
    return root


def test_boxes_that_cannot_be_written_are_reported(prepared: Path, capsys):
    report = json.loads((prepared / "records" / "prepare_report.json").read_text())
    assert [row["image"] for row in report["rejected"]] == ["c.jpg"]
    assert report["rejected"][0]["reason"] == "annotated as 25 x 32, but it is 24 x 32 pixels"
    reasons = [row["reason"] for row in report["dropped"]]
    for number, (reason, fault) in enumerate(zip(reasons, FAULTS.values(), strict=True), 3):
        assert reason.startswith(f"box {number} of 8: {fault}")
    flags = [f"--source={prepared}/raw", f"--output={prepared}/records", "--train_shards=2"]
    assert prepare([*flags, "--target=boxes"]) == 0
    out = capsys.readouterr().out
    assert "wrote 3 images, 0 of them re-encoded; rejected 1\n" in out
    assert "dropped 5 boxes of 1 images" in out
    assert "dropped of a.jpg: box 3 of 8: negative size" in out


def test_records_hold_the_published_keys(prepared: Path):
    records = {}
    for path in sorted((prepared / "records").glob("train-*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            records[feature["image/filename"].bytes_list.value[0]] = feature
    first = records[b"a.jpg"]
    size = [first[f"image/{side}"].int64_list.value[0] for side in ("height", "width")]
    assert size == [HEIGHT, WIDTH]
    assert first["image/source_id"].bytes_list.value[0] == b"0"
    digest = hashlib.sha256(first["image/encoded"].bytes_list.value[0]).hexdigest()
    assert first["image/key/sha256"].bytes_list.value[0].decode() == digest
    assert list(first["image/object/class/label"].int64_list.value) == [1, 2, 1]
    assert list(first["image/object/class/text"].bytes_list.value) == [b"cat", b"dog", b"cat"]
    assert list(first["image/object/is_crowd"].int64_list.value) == [0, 0, 0]
    assert list(first["image/object/area"].float_list.value) == [10.5] * 3
    ends = {end: first[f"image/object/bbox/{end}"].float_list.value for end in ("xmin", "ymax")}
    np.testing.assert_allclose(ends["xmin"], [4 / 32, 8 / 32, 0], rtol=1e-6)
    np.testing.assert_allclose(ends["ymax"], [10 / 24, 20 / 24, 1], rtol=1e-6)
    assert not records[b"b.jpg"]["image/object/class/label"].int64_list.value


def test_records_are_read_and_inspected(prepared: Path, capsys):
    source = get_source("tfrecord", str(prepared / "records"), target=Boxes(3))
    assert source.info.class_names == ("cat", "dog")
    assert source.info.splits["train"].class_counts == (1, 1)
    (batch,) = make_eval_dataset(source, EvalView(32, Letterbox()), "train", host_batch_size=2)
    assert sorted((batch["classes"] != NO_CLASS).numpy().sum(axis=1)) == [0, 3]
    sheet = prepared / "sheet.png"
    flags = [f"--data_dir={prepared}/records", "--target=boxes", f"--sheet={sheet}", "--images=2"]
    more = ["--framing=scale_jitter", "--image_size=96", "--policy=randaugment"]
    assert inspect.main([*flags, *more]) == 0
    assert "labels 1..2, allowed 1..2" in capsys.readouterr().out
    colours = tf.io.decode_png(sheet.read_bytes()).numpy().reshape(-1, 3)
    assert (colours == (255, 64, 64)).all(axis=1).any()


def test_an_image_with_too_many_boxes_is_rejected(tmp_path: Path):
    write_voc(tmp_path / "raw")
    flags = [f"--source={tmp_path}/raw", f"--output={tmp_path}/records"]
    assert prepare([*flags, "--target=boxes:max_boxes=1"]) == 0
    report = json.loads((tmp_path / "records" / "prepare_report.json").read_text())
    assert report["rejected"][0]["image"] == "a.jpg"
    assert report["rejected"][0]["reason"].startswith(
        "2 boxes, more than max_boxes=1; set --target"
    )


def test_yolo_is_recognised_and_other_folders_are_not(tmp_path: Path, capsys):
    write_yolo(tmp_path / "raw")
    flags = [f"--source={tmp_path}/raw", f"--output={tmp_path}/records", "--target=boxes"]
    assert prepare(flags) == 0
    assert "train: 3 images in 1 shards" in capsys.readouterr().out
    flags[0] = f"--source={tmp_path}"
    assert prepare(flags) == 1
    assert "no boxes found; expected COCO's" in capsys.readouterr().err
    assert prepare([*flags, "--num_classes=3"]) == 1
    assert prepare([*flags, "--validation=x"]) == 1
