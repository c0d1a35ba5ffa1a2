"""Two processes on the loopback interface train what two devices of one process train."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import runs
from tests.training import tiny

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STEPS, GLOBAL_BATCH_SIZE = 3, 8


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def run_workers(count, file):
    """What each worker prints; the others are killed when one fails or hangs."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    command = [sys.executable, "-m", "tests.training.worker", f"{STEPS}", f"{GLOBAL_BATCH_SIZE}"]
    workers = []
    try:
        for index in range(count):
            config = {
                "cluster": {"worker": addresses},
                "task": {"type": "worker", "index": index},
            }
            workers.append(
                subprocess.Popen(
                    [*command, str(file)],
                    cwd=ROOT,
                    env=os.environ | {"TF_CONFIG": json.dumps(config)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        outputs = [worker.communicate(timeout=runs.TIMEOUT_SECONDS)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            worker.stdout.close()
    for worker, output in zip(workers, outputs, strict=True):
        assert worker.returncode == 0, output
    return outputs


def test_two_processes_train_what_two_devices_of_one_do(tmp_path, two_devices, assert_same):
    outputs = run_workers(2, tmp_path / "chief.npz")
    assert "2 CPUs on 2 hosts True" in outputs[0]
    assert "2 CPUs on 2 hosts False" in outputs[1]
    with np.load(tmp_path / "chief.npz") as archive:
        found = {name: archive[name] for name in archive.files}

    one_process = tiny.start(two_devices)
    metrics = one_process.run(tiny.Batches.random(STEPS, GLOBAL_BATCH_SIZE))
    np.testing.assert_allclose(found.pop("metrics/loss"), metrics["loss"], rtol=1e-5)
    arrays = {name: a for name, a in found.items() if not name.startswith("metrics/")}
    assert arrays["step"] == STEPS
    assert_same(arrays, one_process.state.to_arrays())
