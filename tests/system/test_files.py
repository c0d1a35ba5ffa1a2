"""Atomic writes and fingerprints; `ram://`, TensorFlow's file system in memory, replaces `gs://`."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from system import files
from system.errors import UserError
from tests.full_disk import full_disk

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["local", "remote"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that does not exist yet."""
    return f"{tmp_path}/a/b" if request.param == "local" else f"ram://{tmp_path.name}/a/b"


def content(path: str) -> bytes:
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read()


def test_what_is_written_is_read_and_nothing_is_left_beside_it(folder: str) -> None:
    path = f"{folder}/x.json"
    for text in ("ä\r\nlong", "b"):
        files.write_text(path, text)
        assert files.read_text(path, limit=100) == text
        assert content(path) == text.encode()
    assert tf.io.gfile.listdir(folder) == ["x.json"]


def test_a_file_over_the_limit_is_refused(folder: str) -> None:
    files.write_bytes(f"{folder}/x", b"12345")
    assert files.read_text(f"{folder}/x", limit=5) == "12345"
    with pytest.raises(ValueError, match="more than 4 bytes"):
        files.read_text(f"{folder}/x", limit=4)


def test_a_block_that_raises_leaves_the_old_content_and_no_temporary_file(folder: str) -> None:
    path = f"{folder}/train-00000"
    files.write_bytes(path, b"old")

    def write_half() -> None:
        with files.replacing(path) as temporary, tf.io.gfile.GFile(temporary, "wb") as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert content(path) == b"old"
    assert tf.io.gfile.listdir(folder) == ["train-00000"]


def test_a_temporary_file_is_in_the_same_folder_under_a_name_that_no_reader_matches(
    folder: str,
) -> None:
    with files.replacing(f"{folder}/train-00000.tfevents") as temporary:
        parent, _, name = temporary.rpartition("/")
        assert parent == folder
        assert "train" not in name
        assert "tfevents" not in name
        with tf.io.gfile.GFile(temporary, "wb") as file:
            file.write(b"")


def test_a_full_disk_leaves_the_old_content_and_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    files.write_bytes(str(path), b"old")
    with full_disk(4), pytest.raises(OSError, match="File too large"):
        files.write_bytes(str(path), b"longer than 4 bytes")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


KILLED = """
import os, sys
from system.files import replacing
with replacing(sys.argv[1]) as temporary:
    open(temporary, "wb").write(b"half")
    os._exit(9)
"""


def test_a_killed_writer_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, path], cwd=ROOT, check=False)
    assert done.returncode == 9
    assert path.read_bytes() == b"old"


def test_a_local_file_is_synced_before_it_takes_its_name(tmp_path: Path, monkeypatch) -> None:
    path, synced = tmp_path / "x", []
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: synced.append(path.exists()))
    files.write_bytes(str(path), b"new")
    assert synced == [False]
    assert path.exists()


def test_a_fingerprint_is_size_and_sha256(folder: str, monkeypatch) -> None:
    monkeypatch.setattr(files, "_BLOCK_BYTES", 3)
    files.write_bytes(f"{folder}/x", b"12345678")
    digest = hashlib.sha256(b"12345678").hexdigest()
    assert files.fingerprint(f"{folder}/x") == {"bytes": 8, "sha256": digest}


@pytest.mark.parametrize("path", ["/no/such/file", "ram://no/such/file"])
def test_a_missing_file_is_a_file_not_found_error(path: str) -> None:
    for read in (files.fingerprint, lambda path: files.read_text(path, limit=9)):
        with pytest.raises(FileNotFoundError):
            read(path)


def test_a_file_system_that_is_not_there_is_an_oserror() -> None:
    with pytest.raises(OSError, match="File system scheme 'nosuch' not implemented"):
        files.write_text("nosuch://b/x", "")


def test_a_remote_file_without_a_folder_makes_none_here(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = f"ram://{tmp_path.name}.png"
    files.write_bytes(path, b"new")
    assert content(path) == b"new"
    assert list(tmp_path.iterdir()) == []


def test_the_local_path_needs_no_tensorflow(tmp_path: Path) -> None:
    program = (
        "import sys; from system import files; files.write_text(sys.argv[1], 'x');"
        "files.read_text(sys.argv[1], limit=9); files.fingerprint(sys.argv[1]);"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "x"], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied"),
        tf.errors.PermissionDeniedError(None, None, "Permission denied\nat file.cc:1"),
        tf.errors.UnimplementedError(None, None, "File system scheme 'x' not implemented"),
        tf.errors.ResourceExhaustedError(None, None, "x; No space left on device"),
    ],
)
def test_an_error_about_a_file_becomes_one_line_with_advice(error: Exception) -> None:
    with pytest.raises(UserError) as raised, files.file_errors("check --data_dir"):
        raise error
    assert str(raised.value) == f"{str(error).splitlines()[0]}; check --data_dir"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        tf.errors.InvalidArgumentError(None, None, "a bug"),
        tf.errors.UnimplementedError(None, None, "no such kernel"),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"),
    ],
)
def test_other_errors_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)), files.file_errors():
        raise error
