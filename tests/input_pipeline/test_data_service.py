import itertools
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import data_service
from input_pipeline.data_service import in_order
from input_pipeline.errors import DatasetError
from input_pipeline.sources import get_source
from input_pipeline.stream import pipeline
from tests.input_pipeline.datasets import train_dataset
from tests.input_pipeline.servers import data_service_processes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """Address of a dispatcher with two workers, each a process of its own."""
    with data_service_processes(workers=2) as (address, workers):
        yield address, workers


def train(source, steps: int, **kwargs) -> list[dict[str, np.ndarray]]:
    dataset = train_dataset(source, image_size=8, host_batch_size=4, seed=1, **kwargs)
    return list(dataset.take(steps).as_numpy_iterator())


def test_workers_make_the_very_batches_of_the_local_pipeline_even_when_one_is_killed(
    service, make_records, monkeypatch
):
    address, workers = service
    data_dir = make_records([20, 17, 25])
    wanted = train(get_source("tfrecord", data_dir, num_classes=5), 40, start_step=3)

    monkeypatch.setattr(pipeline, "IN_MEMORY_BYTES", 0)  # read from the files, one by one
    source = get_source("tfrecord", data_dir, num_classes=5)
    dataset = train_dataset(
        source, image_size=8, host_batch_size=4, seed=1, start_step=3, service=address
    )
    got = []
    for batch in dataset.take(40).as_numpy_iterator():
        got.append(batch)
        if len(got) == 10:
            workers[0].kill()
            workers[0].wait()
    for one, other in zip(got, wanted, strict=True):
        assert all(np.array_equal(one[key], other[key]) for key in other)
    indices = np.concatenate([batch["index"] for batch in got])
    assert sorted(indices[50:112]) == list(range(62))  # the second epoch


def test_a_broken_image_is_named_through_the_service(service, make_records):
    data_dir = make_records([9])
    path = Path(data_dir, "train-00000-of-00001")
    content = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in [*content[:8], tf.train.Example().SerializeToString() or b"?"]:
            writer.write(record)
    source = get_source("tfrecord", data_dir, num_classes=5)
    with pytest.raises(tf.errors.OpError) as raised:
        train(source, 5, service=service[0])
    assert pipeline.describe_data_error(raised.value).startswith(f"{path}, example 8: ")


def test_a_service_that_is_not_there_is_one_line(make_records):
    source = get_source("tfrecord", make_records([9]), num_classes=5)
    with pytest.raises(DatasetError, match=r"cannot connect to grpc://localhost:1 .*; start it"):
        train(source, 1, service="grpc://localhost:1")
    with pytest.raises(DatasetError, match="'localhost:5050'; expected grpc://HOST:PORT"):
        train(source, 1, service="localhost:5050")


def test_many_images_in_memory_are_not_sent_to_workers(make_records, monkeypatch):
    monkeypatch.setattr(pipeline, "MOST_BYTES_SENT", 1000)
    source = get_source("tfrecord", make_records([9]), num_classes=5)
    with pytest.raises(DatasetError, match=r"Set data\.cache=none"):
        train(source, 1, service="grpc://localhost:1")


def ordered(arrivals: list[tuple[int, str] | None], steps: int, most_waiting: int) -> list[str]:
    coming = iter(arrivals)
    made = in_order(lambda: next(coming), lambda step: f"made {step}", 5, most_waiting)
    return list(itertools.islice(made, steps))


def test_batches_are_put_into_order():
    arrivals = [(n, f"came {n}") for n in (6, 7, 5, 9, 8)]
    assert ordered(arrivals, 5, 8) == [f"came {n}" for n in range(5, 10)]


def test_a_lost_batch_is_made_locally_when_too_many_wait_for_it():
    arrivals = [(n, f"came {n}") for n in (5, 7, 8, 9)]
    assert ordered(arrivals, 5, 3) == ["came 5", "made 6", "came 7", "came 8", "came 9"]


def test_a_batch_that_comes_too_late_or_twice_is_dropped():
    arrivals = [(n, f"came {n}") for n in (6, 7, 5, 6, 7, 8)]
    assert ordered(arrivals, 4, 2) == ["made 5", "came 6", "came 7", "came 8"]


def test_waiting_in_vain_makes_batches_locally(capsys):
    arrivals = [(5, "came 5"), None, (7, "came 7"), None]
    assert ordered(arrivals, 4, 8) == ["came 5", "made 6", "came 7", "made 8"]
    assert capsys.readouterr().out.splitlines() == [
        f"data service: step {step} did not arrive; making it on this host" for step in (6, 8)
    ]


def test_an_error_of_a_worker_is_raised_here():
    def fails() -> Iterator[tuple[int, dict[str, tf.Tensor]]]:
        yield 0, {}
        raise ValueError("no luck")

    with data_service._Arrivals(fails()) as next_arrival:
        assert next_arrival(5.0) == (0, {})
        with pytest.raises(ValueError, match="no luck"):
            next_arrival(5.0)


def test_wrong_use_is_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        data_service.main(["worker"])
    assert capsys.readouterr().err.count("\n") == 1
    assert data_service.main(["worker", "--dispatcher=localhost:1"]) == 1
    assert "cannot connect to grpc://localhost:1" in capsys.readouterr().err


def test_a_port_in_use_is_one_line(service, capsys):
    dispatcher = service[0].removeprefix("grpc://")
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        for flags in (["dispatcher"], ["worker", f"--dispatcher={dispatcher}", "--host=localhost"]):
            assert data_service.main([*flags, f"--port={port}"]) == 1
            assert capsys.readouterr().err == (
                f"input_pipeline.data_service: port {port} is in use; give another --port\n"
            )


@pytest.mark.parametrize("port", ["-1", "99999", "http"])
def test_a_port_that_is_none_is_one_line(port: str, capsys):
    with pytest.raises(SystemExit) as stop:
        data_service.main(["dispatcher", f"--port={port}"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{port!r} is not a port" in error
