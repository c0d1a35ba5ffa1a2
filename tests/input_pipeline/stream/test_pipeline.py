import os
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.images.framing import Letterbox, ScaleJitter
from input_pipeline.sources import get_source, records
from input_pipeline.stream import decode, pipeline
from tests.input_pipeline.datasets import eval_dataset, train_dataset

TRAIN = [5, 9, 4, 7, 3, 8, 6, 2, 9, 4, 5]  # 62 examples


def add_noise(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """An augmentation that draws different numbers for every seed."""
    noise = tf.random.stateless_uniform(tf.shape(image), seed, 0, 256, tf.int32, alg="philox")
    return tf.bitwise.bitwise_xor(image, tf.cast(noise, tf.uint8))


@pytest.fixture
def in_memory(make_records):
    return get_source("tfrecord", make_records(TRAIN, [3, 6, 4]), num_classes=5)


@pytest.fixture
def streamed(in_memory, monkeypatch):
    monkeypatch.setattr(pipeline, "IN_MEMORY_BYTES", 0)
    return in_memory


@pytest.fixture(params=["in_memory", "streamed"])
def source(request):
    return request.getfixturevalue(request.param)


def train(source, steps: int, **kwargs) -> list[dict[str, np.ndarray]]:
    defaults = {
        "image_size": 8,
        "host_batch_size": 4,
        "seed": 1,
        "augment": add_noise,
        "shuffle_buffer_mib": 0.02,
        "num_parallel_calls": 1,  # starts quicker
    }
    dataset = train_dataset(source, **{**defaults, **kwargs})
    return list(dataset.take(steps).as_numpy_iterator())


def same(one: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a
    )


def pixels_by_index(batches: list[dict[str, np.ndarray]]) -> dict[int, bytes]:
    return {
        int(index): image.tobytes()
        for batch in batches
        for index, image in zip(batch["index"], batch["image"], strict=True)
    }


@pytest.mark.slow
def test_training_batches_have_static_shapes(in_memory):
    dataset = train_dataset(in_memory, image_size=8, host_batch_size=4, seed=0)
    assert dataset.element_spec == {
        "image": tf.TensorSpec([4, 8, 8, 3], tf.uint8),
        "label": tf.TensorSpec([4], tf.int32),
        "index": tf.TensorSpec([4], tf.int32),
    }


@pytest.mark.slow
def test_batches_of_a_framing_that_pads_say_where_the_image_is(in_memory):
    (batch,) = train(in_memory, 1, image_size=(8, 12), framing=ScaleJitter((0.4, 0.9)))
    assert batch["image"].shape == (4, 8, 12, 3)
    assert batch["valid"].shape == (4, 2)
    for image, (height, width) in zip(batch["image"], batch["valid"], strict=True):
        assert 0 < height < 8
        assert 0 < width < 12
        assert not image[height:].any()
        assert not image[:, width:].any()
        assert image[:height, :width].any()
    (again,) = train(in_memory, 1, image_size=(8, 12), framing=ScaleJitter((0.4, 0.9)))
    assert same([batch], [again])
    dataset = eval_dataset(in_memory, image_size=(8, 12), framing=Letterbox(), host_batch_size=4)
    *_, last = dataset.as_numpy_iterator()
    assert last["mask"].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert last["valid"].tolist() == [[8, 11], [0, 0], [0, 0], [0, 0]]  # 12 x 16
    assert last["corner"].tolist() == [[0, 0], [0, 0], [0, 0], [0, 0]]


@pytest.mark.slow
def test_every_epoch_sees_every_image_once_and_drops_none_between(source):
    batches = train(source, 47)
    indices = np.concatenate([batch["index"] for batch in batches])
    labels = np.concatenate([batch["label"] for batch in batches])
    for epoch in range(3):
        assert sorted(indices[epoch * 62 : (epoch + 1) * 62]) == list(range(62))
    assert np.array_equal(labels, indices % 5)


@pytest.mark.slow
def test_runs_are_equal_whatever_the_parallelism(streamed):
    batches = train(streamed, 20)
    assert same(batches, train(streamed, 20, num_parallel_calls=7, num_threads=3))
    assert not same(batches, train(streamed, 20, seed=2))


@pytest.mark.slow
def test_a_batch_of_several_chunks_holds_what_smaller_batches_hold(source):
    assert 48 <= decode.LARGEST_CHUNK < 96
    (large,) = train(source, 1, host_batch_size=96)
    small = train(source, 2, host_batch_size=48)
    for key, part in large.items():
        np.testing.assert_array_equal(part, np.concatenate([batch[key] for batch in small]))


@pytest.mark.slow
def test_a_resumed_stream_continues_with_exactly_the_same_batches(source):
    batches = train(source, 40)
    assert same(batches[33:], train(source, 7, start_step=33))


@pytest.mark.slow
def test_a_stream_goes_on_where_batches_of_another_size_ended(source):
    # Of 30 examples for both hosts, this one read 15.
    share = {"host_batch_size": 3, "host_index": 1, "num_hosts": 2}
    wanted = train(source, 3, start_step=5 + 1, **share)
    assert same(train(source, 3, first_example=30, start_step=1, **share), wanted)


@pytest.mark.slow
def test_hosts_together_see_one_epoch_with_the_same_pixels(source):
    alone = pixels_by_index(train(source, 1, host_batch_size=62))
    parts = [
        train(source, 1, host_batch_size=31, host_index=host, num_hosts=2) for host in range(2)
    ]
    together = [pixels_by_index(part) for part in parts]
    assert not set(together[0]) & set(together[1])
    assert {**together[0], **together[1]} == alone


MIXED = {"mixup_alpha": 1.0, "cutmix_alpha": 1.0}


@pytest.mark.slow
def test_hosts_together_see_the_mixed_batches_of_one_host(in_memory):
    whole = train(in_memory, 8, host_batch_size=8, **MIXED)
    shares = [train(in_memory, 8, num_hosts=2, host_index=i, **MIXED) for i in range(2)]
    together = [
        {key: np.concatenate([left[key], right[key]]) for key in left}
        for left, right in zip(*shares, strict=True)
    ]
    assert same(together, whole)


@pytest.mark.slow
def test_mixed_labels_are_shares_and_a_resumed_stream_mixes_in_the_same_way(source):
    batches = train(source, 6, **MIXED, random_erasing=0.5)
    labels = np.concatenate([batch["label"] for batch in batches])
    assert labels.shape == (24, 5)
    assert ((labels > 0) & (labels < 1)).any()
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
    assert same(train(source, 2, start_step=4, **MIXED, random_erasing=0.5), batches[4:])


@pytest.mark.slow
def test_as_many_images_are_erased_as_asked_for(in_memory):
    plain, erased = (train(in_memory, 15, random_erasing=share) for share in (0.0, 0.5))
    differ = [
        (left != right).any()
        for one, other in zip(plain, erased, strict=True)
        for left, right in zip(one["image"], other["image"], strict=True)
    ]
    assert 15 < sum(differ) < 45


@pytest.mark.slow
def test_an_image_is_augmented_anew_in_every_epoch(in_memory):
    first, second = (pixels_by_index([batch]) for batch in train(in_memory, 2, host_batch_size=62))
    assert first.keys() == second.keys()
    assert all(first[index] != second[index] for index in first)


def test_fewer_examples_than_hosts_is_refused(in_memory):
    with pytest.raises(DatasetError, match="62 training examples cannot be shared by 63 hosts"):
        train(in_memory, 1, num_hosts=63)
    with pytest.raises(ValueError, match="host_index 2 is not in"):
        eval_dataset(in_memory, image_size=8, host_batch_size=1, host_index=2, num_hosts=2)


@pytest.mark.slow
@pytest.mark.parametrize(("num_hosts", "host_batch_size"), [(1, 13), (3, 2)])
def test_every_validation_image_counts_once_on_any_number_of_hosts(
    streamed, num_hosts: int, host_batch_size: int
):
    steps = pipeline.eval_steps(13, host_batch_size, num_hosts)
    labels = []
    for host in range(num_hosts):
        dataset = eval_dataset(
            streamed,
            image_size=8,
            host_batch_size=host_batch_size,
            host_index=host,
            num_hosts=num_hosts,
        )
        assert int(dataset.cardinality()) == steps
        batches = list(dataset.as_numpy_iterator())
        assert len(batches) == steps
        for batch in batches:
            assert batch["image"].shape == (host_batch_size, 8, 8, 3)
            labels.extend(batch["label"][batch["mask"] == 1.0])
            assert not batch["image"][batch["mask"] == 0.0].any()
    assert sorted(labels) == sorted(n % 5 for n in range(13))


@pytest.mark.parametrize(
    ("num_examples", "host_batch_size", "num_hosts", "steps"),
    [(50_000, 1000, 1, 50), (50_000, 64, 8, 98), (50_001, 1000, 1, 51), (3, 8, 8, 1)],
)
def test_evaluation_steps_cover_the_largest_share(num_examples, host_batch_size, num_hosts, steps):
    assert pipeline.eval_steps(num_examples, host_batch_size, num_hosts) == steps


@pytest.mark.slow
def test_minival_is_evaluated_and_not_trained_on(make_records):
    source = get_source("tfrecord", make_records(TRAIN), num_classes=5, holdout_shards=2)
    batches = train(source, 1, host_batch_size=48)
    assert sorted(batches[0]["index"]) == list(range(48))
    held_out = eval_dataset(source, "minival", image_size=8, host_batch_size=14)
    assert sum(batch["mask"].sum() for batch in held_out.as_numpy_iterator()) == 14


def rewrite(data_dir: str, shard: str, change: dict[int, bytes]) -> None:
    """Replace records of one file, keeping the others."""
    path = os.path.join(data_dir, shard)
    content = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
    records.write_shard(path, [change.get(n, old) for n, old in enumerate(content)])


def an_example(label: int | None, encoded: bytes | None) -> bytes:
    example = tf.train.Example()
    if label is not None:
        example.features.feature["image/class/label"].int64_list.value.append(label)
    if encoded is not None:
        example.features.feature["image/encoded"].bytes_list.value.append(encoded)
    return example.SerializeToString()


def error_of(data_dir: str) -> str:
    source = get_source("tfrecord", data_dir, num_classes=5)
    with pytest.raises(tf.errors.OpError) as raised:
        train(source, 16)
    return pipeline.describe_data_error(raised.value, source)


NO_IMAGE = an_example(1, b"\xff\xd8\xffno image")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("record", "message"),
    [
        (an_example(0, b"?"), "label 0 is outside 1..5"),
        (an_example(6, b"?"), "label 6 is outside 1..5"),
        (an_example(None, b"?"), "feature image/class/label is missing"),
        (an_example(1, None), "feature image/encoded is missing"),
        (NO_IMAGE, "the image cannot be read or decoded"),
        (b"no example", "the image cannot be read or decoded"),
    ],
    ids=["label 0", "label 6", "no label", "no image", "broken image", "no Example"],
)
def test_a_wrong_record_is_named_by_file_and_number(
    make_records, monkeypatch, record: bytes, message: str
):
    if message.startswith("feature"):  # the other way to read, by turns
        monkeypatch.setattr(pipeline, "IN_MEMORY_BYTES", 0)
    data_dir = make_records(TRAIN)
    rewrite(data_dir, "train-00001-of-00011", {4: record})
    path = os.path.join(data_dir, "train-00001-of-00011")
    assert error_of(data_dir) == f"{path}, example 9: {message}"


@pytest.mark.slow
def test_a_broken_validation_image_is_named(make_records):
    data_dir = make_records(TRAIN, [3, 6])
    rewrite(data_dir, "validation-00001-of-00002", {4: NO_IMAGE})
    source = get_source("tfrecord", data_dir, num_classes=5)
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        list(eval_dataset(source, image_size=8, host_batch_size=4))
    message = pipeline.describe_data_error(raised.value)
    assert message.endswith(
        "validation-00001-of-00002, example 7: the image cannot be read or decoded"
    )


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
def test_a_record_damaged_after_the_start_is_named(make_records, monkeypatch):
    monkeypatch.setattr(pipeline, "IN_MEMORY_BYTES", 0)
    data_dir = make_records(TRAIN)
    path = Path(data_dir, "train-00001-of-00011")
    damage(path)
    assert error_of(data_dir).startswith(f"{path}, record 4: damaged (corrupted record at")


@pytest.mark.slow
def test_a_file_that_went_after_the_start_is_named(make_records, monkeypatch):
    monkeypatch.setattr(pipeline, "IN_MEMORY_BYTES", 0)
    source = get_source("tfrecord", make_records(TRAIN), num_classes=5)
    os.remove(source.examples("train").files[2])
    with pytest.raises(tf.errors.NotFoundError) as raised:
        train(source, 16)
    message = pipeline.describe_data_error(raised.value, source)
    assert message.startswith("file not found: ")
    assert "train-00002-of-00011" in message
    assert not any(mark in message for mark in ("\n", "{{", "Iterator::"))


@pytest.fixture
def broken_source(make_records, monkeypatch):
    """62 examples; 9 and 20 are no images, 26 and 27 were lost when their file was damaged."""
    monkeypatch.setattr(pipeline, "IN_MEMORY_BYTES", 0)
    data_dir = make_records(TRAIN)
    rewrite(data_dir, "train-00001-of-00011", {4: NO_IMAGE})
    rewrite(data_dir, "train-00003-of-00011", {2: an_example(6, b"?")})
    source = get_source("tfrecord", data_dir, num_classes=5)
    path = Path(data_dir, "train-00004-of-00011")
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3 - 50] ^= 1
    path.write_bytes(content)
    return source


BROKEN = {9, 20, 26, 27}


@pytest.mark.slow
def test_skipping_replaces_broken_images_within_their_batch_and_changes_no_other(
    broken_source, make_records, capfd
):
    batches = train(broken_source, 20, on_error="skip", max_error_fraction=0.1)
    log = capfd.readouterr().err
    assert log.count("skipped: ") >= len(BROKEN)
    assert "train-00001-of-00011, example 9: the image cannot be read or decoded" in log
    assert "train-00003-of-00011, example 20: label 6 is outside 1..5" in log
    assert f"train-00004-of-00011, example 26: {decode.LOST}" in log
    sound = get_source("tfrecord", make_records(TRAIN), num_classes=5)
    replaced = 0
    for batch, wanted in zip(batches, train(sound, 20), strict=True):
        kept = ~np.isin(wanted["index"], list(BROKEN))
        for key in batch:
            assert np.array_equal(batch[key][kept], wanted[key][kept])
        assert not set(batch["index"]) & BROKEN
        assert set(batch["index"]) <= set(wanted["index"])
        replaced += int((~kept).sum())
    assert replaced >= len(BROKEN)


@pytest.mark.slow
def test_a_resumed_run_skips_in_the_same_way(broken_source):
    skip = {"on_error": "skip", "max_error_fraction": 0.1}
    batches = train(broken_source, 20, **skip)
    assert same(batches[7:], train(broken_source, 13, start_step=7, **skip))


@pytest.mark.slow
def test_too_many_broken_images_stop_the_run(broken_source):
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        train(broken_source, 20, on_error="skip", max_error_fraction=3 / 62)
    message = pipeline.describe_data_error(raised.value)
    assert message.startswith("4 of ")
    assert "data.max_error_fraction=0.0483871 allows 3 of the 62 in an epoch" in message


def counted(broken: list[int], size: int, **settings) -> tf.data.Dataset:
    """Batches of `size` rows with so many broken ones in each, counted."""
    problems = [["x.png: torn"] * count + [""] * (size - count) for count in broken]
    batches = tf.data.Dataset.from_tensor_slices(
        {"index": np.zeros([len(broken), size], np.int32), "problem": problems}
    )
    return decode.count_broken(batches, **settings)


@pytest.mark.parametrize(
    ("broken", "size", "fraction", "num_examples", "message"),
    [
        (
            [0, 1, 1],
            32,
            0.001,
            324,
            "2 of 96 examples read are broken; data.max_error_fraction=0.001 allows 1 of the 324 in"
            " an epoch. Repair them, or set data.max_error_fraction=0.021; last: x.png: torn",
        ),
        (
            [1, 0, 3],  # the second epoch begins in the third batch
            8,
            0.001,
            20,
            "4 of 24 examples read are broken; data.max_error_fraction=0.001 allows 1 of the 20 in"
            " an epoch. Repair them, or set data.max_error_fraction=0.17; last: x.png: torn",
        ),
        (
            [4],
            4,
            0.5,
            4,
            "4 of 4 examples read are broken; data.max_error_fraction=0.5 allows 2 of the 4 in an"
            " epoch. Repair them; last: x.png: torn",
        ),
    ],
)
def test_the_limit_of_broken_images_names_a_value_that_would_do(
    broken: list[int], size: int, fraction: float, num_examples: int, message: str
):
    settings = {"num_examples": num_examples, "at_least": 1}
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        list(counted(broken, size, max_error_fraction=fraction, **settings))
    assert pipeline.describe_data_error(raised.value) == message
    value = re.search(r"set data\.max_error_fraction=([0-9.]+);", message)
    if value is not None:
        larger = float(value.group(1))
        assert len(list(counted(broken, size, max_error_fraction=larger, **settings))) == len(
            broken
        )


@pytest.mark.parametrize(("start", "broken"), [(0, [1, 0, 0, 1]), (6, [1, 1, 0, 0, 1])])
def test_each_epoch_may_have_one_broken_image_wherever_a_run_resumes(start: int, broken: list[int]):
    settings = {"max_error_fraction": 0.001, "num_examples": 9, "at_least": 1}
    assert len(list(counted(broken, 3, start=start, **settings))) == len(broken)
    with pytest.raises(tf.errors.InvalidArgumentError, match="allows 1 of the 9"):
        list(counted([*broken, 1], 3, start=start, **settings))


@pytest.mark.slow
def test_one_broken_image_of_a_small_set_is_skipped_in_every_epoch(make_records):
    data_dir = make_records([5, 6])
    rewrite(data_dir, "train-00001-of-00002", {4: NO_IMAGE})
    source = get_source("tfrecord", data_dir, num_classes=5)
    batches = train(source, 8, host_batch_size=4, on_error="skip")
    assert same(batches[4:], train(source, 4, host_batch_size=4, start_step=4, on_error="skip"))
    # A stage that begins within an epoch: two of its first eleven images are the broken one.
    assert len(train(source, 5, host_batch_size=4, first_example=29, on_error="skip")) == 5


@pytest.mark.slow
def test_a_batch_without_a_sound_image_stops_the_run(make_records):
    data_dir = make_records([1])
    rewrite(data_dir, "train-00000-of-00001", {0: NO_IMAGE})
    source = get_source("tfrecord", data_dir, num_classes=5)
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        train(source, 1, on_error="skip", max_error_fraction=1.0, host_batch_size=2)
    assert "every image of a batch is broken; first: " in pipeline.describe_data_error(raised.value)


@pytest.mark.slow
def test_broken_images_beyond_the_first_ones_are_counted_only(make_records, monkeypatch, capfd):
    monkeypatch.setattr(decode, "ERRORS_LOGGED", 3)
    monkeypatch.setattr(decode, "LOG_EVERY", 10)
    data_dir = make_records([3, 6])
    rewrite(data_dir, "train-00001-of-00002", dict.fromkeys(range(6), NO_IMAGE))
    source = get_source("tfrecord", data_dir, num_classes=5)
    train(source, 2, host_batch_size=9, on_error="skip", max_error_fraction=1.0)
    log = capfd.readouterr().err
    assert log.count(f"skipped: {data_dir}") == 3
    assert "12 of 18 examples skipped so far" in log
    assert "6 of 9" not in log


@pytest.mark.slow
def test_a_skipped_validation_image_has_mask_0(make_records):
    data_dir = make_records(TRAIN, [3, 6])
    rewrite(data_dir, "validation-00001-of-00002", {4: NO_IMAGE})
    source = get_source("tfrecord", data_dir, num_classes=5)
    for fraction, fine in ((0.2, True), (0.1, False)):
        dataset = eval_dataset(
            source,
            image_size=8,
            host_batch_size=4,
            on_error="skip",
            max_error_fraction=fraction,
        )
        if fine:
            masks = np.concatenate([batch["mask"] for batch in dataset])
            assert masks.tolist() == [1.0] * 7 + [0.0, 1.0] + [0.0] * 3
        else:
            with pytest.raises(
                tf.errors.InvalidArgumentError, match="1 of 8 examples read are broken"
            ):
                list(dataset)


@pytest.mark.slow
@pytest.mark.parametrize("host_batch_size", [1, 48])
def test_the_size_of_a_batch_does_not_change_an_image(make_records, host_batch_size: int):
    source = get_source("tfrecord", make_records(TRAIN), num_classes=5)
    wanted = pixels_by_index(train(source, 1, host_batch_size=62))
    steps = 62 // host_batch_size
    some = pixels_by_index(train(source, steps, host_batch_size=host_batch_size))
    assert len(some) == steps * host_batch_size
    assert all(wanted[index] == pixels for index, pixels in some.items())
