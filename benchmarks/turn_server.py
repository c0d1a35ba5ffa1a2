"""Run one measured subject in a process of its own, a turn for each line of standard input.

    python -P benchmarks/turn_server.py '{"file": ..., "function": ..., "settings": {...}, "renamed": {...}}'

imports the file, calls function(**settings), which returns a function that runs one turn and returns the
number of images it processed, and prints "ready". Then it answers every line with a `Turn` as JSON.
benchmarks.children starts it. It imports the standard library only: it also runs under an interpreter without
TensorFlow, and with another checkout of the project on PYTHONPATH. Modules that this checkout had not yet
renamed are imported under their earlier name: `renamed` is {present name: earlier name}.
"""

import dataclasses
import importlib
import importlib.util
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

AT_REST_S = 0.01  # how long hardly any processor time must be used
AT_REST_SHARE = 0.1  # of one processor, at most


@dataclasses.dataclass(frozen=True)
class Turn:
    """What one turn of a process took."""

    images: int
    wall_s: float
    processor_s: float  # of all threads, until they rest
    peak_mib: float  # resident memory of the process, from its start until now

    @property
    def images_per_second(self) -> float:
        """Images per second of wall time."""
        return self.images / self.wall_s

    @property
    def processor_s_per_image(self) -> float:
        """Seconds of processor time per image."""
        return self.processor_s / self.images


def measure(turn: Callable[[], int]) -> Turn:
    """Run one turn, between two moments at which the threads of this process rest."""
    processor, wall = processor_time_at_rest(), time.perf_counter()
    images = turn()
    wall = time.perf_counter() - wall
    return Turn(images, wall, processor_time_at_rest() - processor, _peak_mib())


def processor_time_at_rest() -> float:
    """Wait until this process uses hardly any processor time; return the seconds it has used."""
    quiet, before = 0, time.process_time()
    while quiet < 2:  # once may also be a processor that others had
        time.sleep(AT_REST_S)
        now = time.process_time()
        quiet = quiet + 1 if now - before < AT_REST_S * AT_REST_SHARE else 0
        before = now
    return before


def _peak_mib() -> float:
    try:  # Linux: the figure of getrusage begins with that of the process that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10


def _import_renamed(renamed: Mapping[str, str]) -> None:
    """Make modules that still have their earlier name importable under their present one."""
    for present, earlier in renamed.items():
        try:
            importlib.import_module(present)
        except ModuleNotFoundError:
            sys.modules[present] = importlib.import_module(earlier)


def _import_file(file: str) -> Any:
    spec = importlib.util.spec_from_file_location("subject", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["subject"] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Answer every line of standard input with the figures of one more turn."""
    task = json.loads(sys.argv[1])
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no reply
    _import_renamed(task["renamed"])
    prepare = getattr(_import_file(task["file"]), task["function"])
    turn = prepare(**task["settings"])
    print("ready", file=replies)
    for _ in sys.stdin:
        print(json.dumps(dataclasses.asdict(measure(turn))), file=replies)


if __name__ == "__main__":
    main()
