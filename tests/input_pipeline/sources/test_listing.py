import io
import tarfile
from pathlib import Path

import pytest

from input_pipeline.errors import DatasetError
from input_pipeline.sources.listing import ClassImages, ImageFile, arrange, list_images


def names(images: list[ImageFile]) -> list[str]:
    return [image.name for image in images]


def files(*names: str) -> list[ImageFile]:
    return [ImageFile(name, f"/data/{name}") for name in sorted(names)]


def labels(images: ClassImages, split: str) -> dict[str, int]:
    return {image.name: label for image, (label,) in images.splits[split]}


def a_tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_a_folder_lists_images_of_all_depths_and_nothing_else(tmp_path: Path):
    for name in ("b/2.JPEG", "a/1.png", "a/deep/0.jpg", "a/notes.txt", "a/.x.png", ".git/y.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    images = list_images(str(tmp_path))
    assert names(images) == ["a/1.png", "a/deep/0.jpg", "b/2.JPEG"]
    assert [image.read().decode() for image in images] == names(images)


def test_tars_in_a_tar_are_folders_and_are_read_in_place(tmp_path: Path):
    path = tmp_path / "train.tar"
    inner = {
        f"n{c}.tar": a_tar({f"n{c}_{n}.JPEG": f"{c} {n}".encode() * 300 for n in range(3)})
        for c in range(2)
    }
    path.write_bytes(a_tar({**inner, "README": b"?", "./flat/x.png": b"flat"}))
    images = list_images(str(path))
    assert names(images) == ["flat/x.png"] + [
        f"n{c}/n{c}_{n}.JPEG" for c in range(2) for n in range(3)
    ]
    assert images[0].read() == b"flat"
    assert images[5].read() == b"1 1" * 300


def test_a_tar_cannot_reach_outside(tmp_path: Path):
    path = tmp_path / "bad.tar"
    path.write_bytes(a_tar({"../../evil/a.png": b"x", "/etc/b.png": b"y"}))
    assert all(image.path == str(path) for image in list_images(str(path)))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("gone.tar", None, "no such folder or tar"),
        ("some.zip", b"PK", "neither a folder nor a .tar"),
        ("torn.tar", b"torn" * 1000, "not a readable, uncompressed tar"),
        ("packed.tar", a_tar({"a/1.png": b"x"}, "w:gz"), "not a readable, uncompressed tar"),
        ("empty.tar", a_tar({"notes.txt": b"x"}), "holds no images; expected .jpg, "),
    ],
    # By name: pytest would otherwise name the tests after the bytes, and gzip writes the time into them,
    # so that two collecting processes would disagree on the names.
    ids=["gone", "zip", "torn", "compressed", "empty"],
)
def test_what_is_neither_folder_nor_tar_is_one_line(tmp_path: Path, name, content, expected: str):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError) as raised:
        list_images(str(tmp_path / name))
    assert expected in str(raised.value)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_train_and_val_folders_are_the_splits():
    images = arrange(
        files("train/b/0.png", "train/a/0.png", "train/a/deep/1.png", "val/b/0.png", "test/9.png"),
        "/data",
    )
    assert images.class_names == ("a", "b")
    assert labels(images, "train") == {
        "train/a/0.png": 0,
        "train/a/deep/1.png": 0,
        "train/b/0.png": 1,
    }
    assert labels(images, "validation") == {"val/b/0.png": 1}
    assert images.notes == ("not used: test/ (images: 1)",)


def test_test_is_evaluated_where_there_is_no_val():
    images = arrange(
        files("train/a/0.png", "train/b/0.png", "test/a/1.png", "test/b/2.png", "extra/x.png"),
        "/data",
    )
    assert labels(images, "train") == {"train/a/0.png": 0, "train/b/0.png": 1}
    assert labels(images, "validation") == {"test/a/1.png": 0, "test/b/2.png": 1}
    assert images.notes == (
        "evaluation images: test/, because there is no val/ or validation/",
        "not used: extra/ (images: 1)",
    )


def test_val_comes_before_test():
    images = arrange(files("train/a/0.png", "test/a/1.png", "val/a/2.png"), "/data")
    assert labels(images, "validation") == {"val/a/2.png": 0}
    assert images.notes == ("not used: test/ (images: 1)",)


@pytest.mark.parametrize("name", ["test/1.png", "test/images/1.png"])
def test_a_test_folder_without_labels_is_named_and_not_evaluated(name: str):
    train = [f"train/a/{number}.png" for number in range(10)]
    images = arrange(files(*train, name, "0.png"), "/data")
    assert len(images.splits["validation"]) == 1
    assert images.notes == (
        "evaluation images: 0.1 of each class of the training images",
        "not used: ./ (images: 1), test/ (images: 1)",
    )


def test_with_validation_images_from_elsewhere_only_train_is_taken():
    images = arrange(files("train/a/0.png", "test/a/1.png"), "/data", train_only=True)
    assert images.splits.keys() == {"train"}
    assert images.notes == ("not used: test/ (images: 1)",)


def test_a_fraction_of_every_class_is_held_out_and_always_the_same():
    of_all = files(*(f"{c}/{n}.png" for c, many in (("a", 10), ("b", 20)) for n in range(many)))
    images = arrange(of_all, "/data", 0.3)
    held_out = labels(images, "validation")
    assert sorted(held_out.values()) == [0] * 3 + [1] * 6
    assert len({**labels(images, "train"), **held_out}) == 30
    assert arrange(of_all, "/data", 0.3) == images
    assert arrange(of_all, "/data", 0.0).splits["validation"] == ()


def test_images_that_have_no_class_are_named():
    with pytest.raises(DatasetError, match=r"/data/1.png: not in a class folder"):
        arrange(files("1.png"), "/data")
    with pytest.raises(DatasetError, match=r"/data/train/1.png: not in a class folder"):
        arrange(files("train/1.png", "train/a/1.png"), "/data")
    with pytest.raises(DatasetError, match=r"/data/val/c/1.png: no class 'c' in the training"):
        arrange(files("train/a/1.png", "val/c/1.png"), "/data")
    with pytest.raises(DatasetError, match=r"fraction 1; expected \[0, 1\)"):
        arrange(files("a/1.png"), "/data", 1.0)
