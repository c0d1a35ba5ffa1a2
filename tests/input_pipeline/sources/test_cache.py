import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.sources import IndexedExamples, ShardedExamples, cache, get_source
from input_pipeline.sources.cache import cache_source, load_into_memory
from tests.input_pipeline.conftest import label_of
from tests.input_pipeline.datasets import eval_dataset, train_dataset


def _labels(examples: IndexedExamples) -> list[int]:
    return [label_of(examples.read(tf.constant(n))) for n in range(examples.num_examples)]


def test_records_held_in_memory_are_those_on_disk(make_records):
    data_dir = make_records(train=[3, 0, 4, 6, 1, 1, 1, 1, 1, 5])
    loaded = load_into_memory(get_source("tfrecord", data_dir, num_classes=5).examples("train"))
    assert loaded.num_examples == 23
    assert _labels(loaded) == [n % 5 + 1 for n in range(23)]
    encoded, _ = loaded.read(tf.constant(3))
    assert loaded.file(tf.constant(3)).numpy().decode() == os.path.join(
        data_dir, "train-00002-of-00010"
    )
    assert tf.io.decode_png(encoded).shape == (12, 16, 3)


def test_a_damaged_shard_is_named_when_loaded(make_records):
    data_dir = make_records(train=[3])
    source = get_source("tfrecord", data_dir, num_classes=5)
    path = Path(data_dir, "train-00000-of-00001")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        DatasetError, match=r"train-00000-of-00001, record 1: damaged \(corrupted record"
    ):
        load_into_memory(source.examples("train"))


def test_a_file_with_fewer_records_than_counted_is_named(make_records):
    source = get_source("tfrecord", make_records(train=[3, 4]), num_classes=5)
    fewer = make_records(train=[3, 2])
    files = tuple(os.path.join(fewer, f"train-0000{n}-of-00002") for n in range(2))
    examples = ShardedExamples(files, source.examples("train").counts, 1000)
    with pytest.raises(
        DatasetError, match=r"train-00001-of-00002: fewer records than were counted"
    ):
        load_into_memory(examples)


def first_batch(source) -> dict[str, np.ndarray]:
    dataset = train_dataset(source, image_size=8, host_batch_size=8, seed=0)
    return next(dataset.as_numpy_iterator())


@pytest.mark.slow
def test_cached_records_train_without_their_files(make_records, tmp_path: Path, monkeypatch):
    data_dir = make_records(train=[5, 4, 3], validation=[2])
    source = get_source("tfrecord", data_dir, num_classes=5)
    in_memory = cache_source(source, "memory")
    on_disk = cache_source(source, "disk", str(tmp_path / "cache"))
    wanted = first_batch(source)
    for path in Path(data_dir).glob("*-of-*"):
        path.unlink()
    for cached in (in_memory, on_disk):
        batch = first_batch(cached)
        assert all(np.array_equal(batch[key], wanted[key]) for key in wanted)
        assert (
            sum(
                b["mask"].sum()
                for b in eval_dataset(cached, image_size=8, host_batch_size=2).as_numpy_iterator()
            )
            == 2
        )
    assert cache_source(source, "none") is source


def test_an_image_folder_is_cached_in_memory(tmp_path: Path):
    (tmp_path / "a").mkdir()
    for number in range(3):
        pixels = np.full([5, 5, 3], number, np.uint8)
        (tmp_path / "a" / f"{number}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    source = get_source("image_folder:0", str(tmp_path))
    with pytest.raises(DatasetError, match="copies record files, but this source has none"):
        cache_source(source, "disk", str(tmp_path / "cache"), splits=["train"])
    cached = cache_source(source, "memory", splits=["train"]).examples("train")
    for path in (tmp_path / "a").glob("*"):
        path.unlink()
    levels = [int(tf.io.decode_png(cached.read(tf.constant(n))[0])[0, 0, 0]) for n in range(3)]
    assert levels == [0, 1, 2]


def test_what_does_not_fit_into_memory_is_refused_with_the_sizes(make_records, monkeypatch):
    source = get_source("tfrecord", make_records(train=[5]), num_classes=5)
    need = cache.memory_needed(source.examples("train"))
    assert need == source.examples("train").num_bytes + 5 * 64
    monkeypatch.setattr(cache, "available_memory_bytes", lambda: need)
    with pytest.raises(DatasetError, match=r"cache=memory needs 0.0 GiB of memory, 0.0 GiB are"):
        cache_source(source, "memory")
    monkeypatch.setattr(cache, "available_memory_bytes", lambda: 2 * need)
    cache_source(source, "memory")


def test_what_does_not_fit_on_the_disk_is_refused_with_the_sizes(
    make_records, tmp_path: Path, monkeypatch
):
    source = get_source("tfrecord", make_records(train=[5, 5]), num_classes=5)
    with pytest.raises(DatasetError, match=r"needs data\.cache_dir"):
        cache_source(source, "disk")
    usage = type("usage", (), {"free": 100})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        DatasetError, match=r"cache=disk needs 0.0 GiB more in .*, 0.0 GiB are free"
    ):
        cache_source(source, "disk", str(tmp_path))


def test_copies_are_made_once_and_torn_ones_again(make_records, tmp_path: Path):
    source = get_source("tfrecord", make_records(train=[5, 5]), num_classes=5)
    files = cache_source(source, "disk", str(tmp_path)).examples("train").files
    times = [os.stat(file).st_mtime_ns for file in files]
    Path(files[1]).write_bytes(b"torn")
    again = cache_source(source, "disk", str(tmp_path)).examples("train").files
    assert again == files
    assert os.stat(files[0]).st_mtime_ns == times[0]
    assert Path(files[1]).read_bytes() == Path(source.examples("train").files[1]).read_bytes()
    other = get_source("tfrecord", make_records(train=[4, 4]), num_classes=5)
    elsewhere = cache_source(other, "disk", str(tmp_path)).examples("train").files
    assert not set(files) & set(elsewhere)
