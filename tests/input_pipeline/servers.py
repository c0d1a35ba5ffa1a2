"""A data service on loopback: real processes, started with the command that users start them with."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def data_service_processes(workers: int) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """The address of a dispatcher that has workers, and these; all are killed in the end."""
    with contextlib.ExitStack() as stack:
        dispatcher = _start(stack, "dispatcher", "--port=0")
        target = f"localhost:{_line(dispatcher).rpartition(':')[2]}"
        flags = ("worker", f"--dispatcher={target}", "--host=localhost")
        started = [_start(stack, *flags) for _ in range(workers)]
        assert all(_line(worker).startswith("worker ready") for worker in started)
        yield f"grpc://{target}", started


def _start(stack: contextlib.ExitStack, *flags: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-m", "input_pipeline.data_service", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )
    stack.callback(_end, process)
    return process


def _line(process: subprocess.Popen) -> str:
    """What a server prints when it is ready."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
