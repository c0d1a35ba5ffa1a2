from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from input_pipeline.errors import DatasetError
from input_pipeline.prepare.ground_truth import label_validation
from input_pipeline.sources.listing import ImageFile

IMAGES = [ImageFile(f"ILSVRC2012_val_{n:08d}.JPEG", "val.tar", n, 1) for n in range(1, 5)]
CLASSES = ("n01", "n02", "n03")
WANTED = {1: 2, 2: 0, 3: 0, 4: 1}  # image -> class


def labels(path: Path) -> dict[int, int]:
    pairs = label_validation(IMAGES, str(path), CLASSES)
    assert [label for _, label in pairs] == sorted(label for _, label in pairs)
    return {image.offset: label for image, (label,) in pairs}


@pytest.mark.parametrize(
    "text",
    [
        "n03\nn01\nn01\nn02\n",
        "".join(
            f"ILSVRC2012_val_{n:08d}.JPEG n0{label + 1}\n" for n, label in reversed(WANTED.items())
        ),
        "ImageId,PredictionString\n"
        + "".join(
            f"ILSVRC2012_val_{n:08d},n0{label + 1} 1 2 3 4 n0{label + 1} 5 6 7 8 \n"
            for n, label in reversed(WANTED.items())
        ),
    ],
    ids=["names", "pairs", "csv"],
)
def test_every_form_of_labels_is_understood(tmp_path: Path, text: str):
    (tmp_path / "labels").write_text(text)
    assert labels(tmp_path / "labels") == WANTED


def test_the_kits_numbers_are_translated_by_its_table(tmp_path: Path):
    (tmp_path / "labels").write_text("3\n1\n1\n2\n")
    with pytest.raises(DatasetError, match=r"put its meta\.mat in the same folder"):
        labels(tmp_path / "labels")
    synsets = np.zeros((4, 1), [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")])
    for row, (number, name) in enumerate([(1, "n02"), (2, "n03"), (3, "n01"), (4, "n00")]):
        synsets[row, 0] = (number, name, "a thing")
    savemat(tmp_path / "meta.mat", {"synsets": synsets})
    assert labels(tmp_path / "labels") == {1: 0, 2: 1, 3: 1, 4: 2}
    (tmp_path / "labels").write_text("3\n1\n1\n9\n")
    with pytest.raises(DatasetError, match=r"meta\.mat: does not match the labels"):
        labels(tmp_path / "labels")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n01\nn02\n", "2 labels, but there are 4 validation images"),
        ("n01\nn02\nn03\nn09\n", "class 'n09' has no training images"),
        ("a.JPEG n01\n", "no label for ILSVRC2012_val_00000001.JPEG"),
        ("ImageId,PredictionString\nILSVRC2012_val_00000001,\n", "no class in line"),
        ("\n", "the file has no labels"),
    ],
)
def test_labels_that_do_not_fit_are_one_line(tmp_path: Path, text: str, expected: str):
    (tmp_path / "labels").write_text(text)
    with pytest.raises(DatasetError) as raised:
        labels(tmp_path / "labels")
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_one_line(tmp_path: Path):
    with pytest.raises(DatasetError, match="labels: cannot be read"):
        labels(tmp_path / "labels")
