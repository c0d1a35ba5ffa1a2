import itertools

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.sources.dataset_info import find_dataset_info
from input_pipeline.sources.source import ClassGroups, ShardedExamples, sharded_examples
from input_pipeline.stream import order
from input_pipeline.targets.class_label import CLASS_LABEL

HOSTS = (1, 2, 4, 8, 64)


@pytest.mark.parametrize("num_hosts", HOSTS)
@pytest.mark.parametrize("num_examples", [1, 63, 64, 1797, 1_281_167])
def test_host_ranges_partition_an_epoch(num_examples: int, num_hosts: int):
    ranges = [order.host_range(num_examples, host, num_hosts) for host in range(num_hosts)]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == num_examples
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ranges))
    sizes = {last - first for first, last in ranges}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("num_hosts", HOSTS)
def test_slices_of_all_hosts_partition_every_file(num_hosts: int):
    counts = np.random.default_rng(0).integers(0, 30, 37)
    files = np.random.default_rng(1).permutation(len(counts))
    seen = [[] for _ in counts]
    for host in range(num_hosts):
        first, last = order.host_range(int(counts.sum()), host, num_hosts)
        slices = order.epoch_slices(tf.constant(counts), tf.constant(files), first, last)
        for file, skip, take in np.stack(slices, axis=1):
            seen[file].extend(range(skip, skip + take))
    assert [sorted(places) for places in seen] == [list(range(count)) for count in counts]


def test_the_shuffle_is_a_permutation_that_differs_by_seed_and_epoch():
    def shuffled(seed: int, epoch: int) -> list[int]:
        places = tf.range(1000, dtype=tf.int64)
        return (
            order.shuffled_index(places, 1000, seed, tf.constant(epoch, tf.int64)).numpy().tolist()
        )

    orders = [shuffled(seed, epoch) for seed in (0, 1, 2**31 - 1) for epoch in (0, 1, 1000)]
    assert all(sorted(shuffled) == list(range(1000)) for shuffled in orders)
    assert len({tuple(shuffled) for shuffled in orders}) == len(orders)
    assert orders[0] == shuffled(0, 0)


@pytest.mark.parametrize("num_hosts", [2, 4])
def test_global_batches_of_indexed_examples_are_the_same_for_any_number_of_hosts(num_hosts: int):
    global_batch_size, steps = 8, 30

    def batches(host: int, hosts: int) -> np.ndarray:
        size = global_batch_size // hosts
        stream = order.indexed_order(
            37,
            seed=5,
            host_batch_size=size,
            position=order.Position(host_index=host, num_hosts=hosts),
        )
        rows = [
            (row["epoch"], row["index"]) for row in stream.take(steps * size).as_numpy_iterator()
        ]
        return np.array(rows).reshape(steps, size, 2)

    one = batches(0, 1)
    assert np.array_equal(np.concatenate([batches(h, num_hosts) for h in range(num_hosts)], 1), one)
    epochs, indices = one.reshape(-1, 2).T
    for epoch in range(steps * global_batch_size // 37):
        assert sorted(indices[epochs == epoch]) == list(range(37))


LABELS = [0] * 20 + [1] * 3 + [3]  # no example of class 2


def _balanced(count: int, *, seed: int = 5, size: int = 8, **position: int) -> np.ndarray:
    """Epoch and index of the first examples of one host: [count, 2]."""
    stream = order.indexed_order(
        len(LABELS),
        seed=seed,
        host_batch_size=size,
        position=order.Position(**position),
        classes=ClassGroups.of(LABELS),
    )
    rows = [(row["epoch"], row["index"]) for row in stream.take(count).as_numpy_iterator()]
    return np.array(rows)


def test_balanced_classes_come_equally_often_and_each_shows_all_of_its_examples_in_turn():
    rows = _balanced(240)
    labels = np.array(LABELS)[rows[:, 1]]
    turns = labels.reshape(-1, 3)
    assert all(sorted(turn) == [0, 1, 3] for turn in turns)
    assert len({tuple(turn) for turn in turns}) == 6  # in every order
    for label, size in ((0, 20), (1, 3), (3, 1)):
        epochs, indices = rows[labels == label].T
        assert epochs.tolist() == [n // size for n in range(80)]
        passes = indices[: 80 // size * size].reshape(-1, size)
        members = np.flatnonzero(np.array(LABELS) == label).tolist()
        assert all(sorted(shown) == members for shown in passes)
    of_first_class = rows[labels == 0, 1].reshape(-1, 20)
    assert len({tuple(shown) for shown in of_first_class}) == 4
    assert len(np.unique(rows, axis=0)) == len(rows)  # no crop twice
    assert not np.array_equal(rows, _balanced(240, seed=6))


@pytest.mark.parametrize("num_hosts", [2, 4])
def test_balanced_batches_are_the_same_for_any_number_of_hosts_and_any_start(num_hosts: int):
    whole = _balanced(80).reshape(10, 8, 2)
    size = 8 // num_hosts
    parts = [
        _balanced(6 * size, size=size, start_step=4, host_index=host, num_hosts=num_hosts)
        for host in range(num_hosts)
    ]
    hosts = np.concatenate([part.reshape(6, size, 2) for part in parts], 1)
    np.testing.assert_array_equal(hosts, whole[4:])
    # After 12 examples in batches of another size.
    later = _balanced(16, first_example=12)
    np.testing.assert_array_equal(later, whole.reshape(-1, 2)[12:28])


COUNTS = [3, 9, 0, 5, 7, 1, 8, 4, 6, 2, 5, 5, 7, 3, 9, 4, 6, 8, 2, 5, 1, 7, 3, 6, 4, 8, 5, 2, 9, 1]


@pytest.fixture
def sharded(make_records) -> ShardedExamples:
    data_dir = make_records(train=COUNTS)
    split = find_dataset_info(data_dir, num_classes=5).splits["train"]
    return sharded_examples(data_dir, split, CLASS_LABEL)


def _stream(sharded: ShardedExamples, count: int, *, buffer_examples: int = 20, **kwargs):
    mean_bytes = sharded.num_bytes // sharded.num_examples
    stream = order.sharded_order(
        sharded, buffer_bytes=2 * buffer_examples * mean_bytes, **{"seed": 3, **kwargs}
    )
    return [
        (int(row["epoch"]), int(row["index"]), row["file"].decode(), hash(row["record"]))
        for row in stream.take(count).as_numpy_iterator()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("num_hosts", [1, 3])
def test_every_epoch_of_sharded_examples_is_seen_once_over_all_hosts(sharded, num_hosts: int):
    total, epochs = sharded.num_examples, 2
    seen = []
    for host in range(num_hosts):
        first, last = order.host_range(total, host, num_hosts)
        seen += _stream(sharded, epochs * (last - first), host_index=host, num_hosts=num_hosts)
    for epoch in range(epochs):
        assert sorted(index for e, index, _, _ in seen if e == epoch) == list(range(total))
    ends = np.cumsum(COUNTS)
    for _, index, file, _ in seen:
        assert f"train-{np.searchsorted(ends, index, side='right'):05d}-of" in file
    assert len({(index, content) for _, index, _, content in seen}) == total


def test_the_order_of_files_and_of_examples_changes_from_epoch_to_epoch(sharded):
    total = sharded.num_examples
    seen = _stream(sharded, 3 * total)
    epochs = [[index for _, index, _, _ in seen[n * total : (n + 1) * total]] for n in range(3)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    first_files = [{file for _, _, file, _ in seen[n * total : n * total + 20]} for n in range(3)]
    assert first_files[0] != first_files[1]
    assert all(epoch != sorted(epoch) for epoch in epochs)
    assert seen[:total] != _stream(sharded, total, seed=4)


@pytest.mark.slow
@pytest.mark.parametrize("buffer_examples", [1, 20])
def test_a_stream_starts_anywhere_as_if_it_had_come_there(sharded, buffer_examples: int):
    total = sharded.num_examples
    whole = _stream(sharded, 2 * total + 10, buffer_examples=buffer_examples)
    for start in (17, total - 1, total + 70):
        rest = _stream(sharded, 10, start=start, buffer_examples=buffer_examples)
        assert rest == whole[start : start + 10], start


def test_a_late_start_does_not_read_the_groups_before_it(sharded, monkeypatch):
    total = sharded.num_examples
    whole = _stream(sharded, total)
    start = total - 10
    needed = {file for _, _, file, _ in whole[start - 20 :]}
    touched_before = {file for _, _, file, _ in whole[: total // 3]} - needed
    assert touched_before
    for file in touched_before:
        tf.io.gfile.remove(file)
    assert _stream(sharded, 10, start=start)[:5] == whole[start : start + 5]


def test_the_examples_of_one_file_come_in_another_order_in_every_epoch(sharded):
    alone = sharded.part(1, 2)
    seen = [row[1] for row in _stream(alone, 27)]
    assert len({tuple(seen[n : n + 9]) for n in (0, 9, 18)}) == 3
    assert seen != [row[1] for row in _stream(alone, 27, seed=4)]


def test_somebody_elses_global_seed_does_not_change_the_order(sharded):
    before = _stream(sharded, 50)
    tf.random.set_seed(123)
    try:
        assert _stream(sharded, 50) == before
    finally:
        tf.random.set_seed(0)


@pytest.mark.parametrize("num_hosts", [1, 7])
def test_evaluation_sees_every_example_once_over_all_hosts(sharded, num_hosts: int):
    seen = [
        int(row["index"])
        for host in range(num_hosts)
        for row in order.sharded_once(sharded, host_index=host, num_hosts=num_hosts)
    ]
    assert sorted(seen) == list(range(sharded.num_examples))


@pytest.mark.slow
def test_damage_can_be_skipped_without_moving_what_follows(sharded):
    whole = _stream(sharded, sharded.num_examples)
    damaged, gone = sharded.files[3], sharded.files[8]
    with open(damaged, "r+b") as file:
        file.truncate(1000)
    tf.io.gfile.remove(gone)
    with pytest.raises(tf.errors.OpError):
        _stream(sharded, sharded.num_examples)
    skipped = _stream(sharded, sharded.num_examples, skip_damage=True)
    lost = [row[3] == hash(b"") for row in skipped]
    assert [row[:3] for row in skipped] == [row[:3] for row in whole]
    assert all(
        new == old for new, old, is_lost in zip(skipped, whole, lost, strict=True) if not is_lost
    )
    assert {row[2] for row, is_lost in zip(skipped, lost, strict=True) if is_lost} == {
        damaged,
        gone,
    }


def test_a_path_is_no_pattern(tmp_path):
    for name in ("a[1]*?", "a1xx"):
        tf.io.gfile.makedirs(str(tmp_path / name))
        with tf.io.TFRecordWriter(str(tmp_path / name / "file")) as writer:
            writer.write(name.encode())
    records = order._read_padded(tf.constant(str(tmp_path / "a[1]*?" / "file")), 2)
    assert list(records.as_numpy_iterator()) == [b"a[1]*?", b""]


@pytest.mark.slow
def test_memory_stays_within_the_buffer(tmp_path):
    content = np.random.default_rng(0).bytes(100_000)
    for number in range(16):
        with tf.io.TFRecordWriter(str(tmp_path / str(number))) as writer:
            for _ in range(40):
                writer.write(content)
    files = tuple(str(tmp_path / str(number)) for number in range(16))
    examples = ShardedExamples(files, (40,) * 16, 16 * 40 * 100_016)
    stream = order.sharded_order(examples, seed=0, buffer_bytes=4 << 20)

    def resident_mib() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 >> 20

    sizes = []
    for number, _ in enumerate(stream.take(3000)):  # 300 MB
        if number in (500, 2999):
            sizes.append(resident_mib())
    assert sizes[1] - sizes[0] < 64
