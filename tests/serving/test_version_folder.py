"""A version is there whole or not there, and a failed write leaves the one before."""

from pathlib import Path

import pytest
import tensorflow as tf

from serving.version_folder import write_version


def fill_with(text):
    def write(path):
        tf.io.gfile.makedirs(path)
        Path(path, "model").write_text(text)

    return write


def test_a_write_that_fails_leaves_the_version_before(tmp_path):
    write_version(str(tmp_path), 7, fill_with("good"))

    def fail(path):
        fill_with("half")(path)
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_version(str(tmp_path), 7, fail)
    assert (tmp_path / "7" / "model").read_text() == "good"
    assert [path.name for path in tmp_path.iterdir()] == ["7"]


def test_a_rename_that_fails_brings_the_version_before_back(tmp_path):
    write_version(str(tmp_path), 7, fill_with("good"))
    with pytest.raises(OSError, match=r"/7: cannot be written"):
        write_version(str(tmp_path), 7, lambda path: None)  # nothing there to rename
    assert (tmp_path / "7" / "model").read_text() == "good"
    assert [path.name for path in tmp_path.iterdir()] == ["7"]


def test_the_folder_being_filled_is_no_version_number(tmp_path):
    seen = []

    def write(path):
        fill_with("x")(path)
        seen.extend(entry.name for entry in tmp_path.iterdir())

    write_version(str(tmp_path), 7, write)
    assert len(seen) == 1
    with pytest.raises(ValueError, match="invalid literal"):
        int(seen[0])


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"file/versions/7: cannot be written") as caught:
        write_version(str(tmp_path / "file" / "versions"), 7, fill_with("x"))
    assert "\n" not in str(caught.value)


def test_it_writes_to_file_systems_that_rename_no_folders():
    def write(path):
        tf.io.gfile.makedirs(path + "/variables")
        for name in ("saved_model.pb", "variables/data"):
            with tf.io.gfile.GFile(f"{path}/{name}", "w") as file:
                file.write(name)

    for _ in range(2):
        assert write_version("ram://versions", 4, write) == "ram://versions/4"
        assert tf.io.gfile.listdir("ram://versions") == ["4"]
        with tf.io.gfile.GFile("ram://versions/4/variables/data") as file:
            assert file.read() == "variables/data"
        assert tf.io.gfile.exists("ram://versions/4/saved_model.pb")


def test_what_a_killed_export_left_is_cleaned_up_by_the_next(tmp_path):
    for left in ("temporary-7-dead", "replaced-7-dead", "temporary-8-alive"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "file").write_text(left)
    write_version(str(tmp_path), 7, fill_with("new"))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["7", "temporary-8-alive"]


def test_a_version_that_a_killed_export_had_moved_away_is_not_lost(tmp_path):
    (tmp_path / "replaced-7-dead").mkdir()
    (tmp_path / "replaced-7-dead" / "file").write_text("old")

    def fail(path):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_version(str(tmp_path), 7, fail)
    assert [entry.name for entry in tmp_path.iterdir()] == ["7"]
    assert (tmp_path / "7" / "file").read_text() == "old"
