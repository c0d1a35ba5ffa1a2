"""MODEL_DIR/starts.jsonl: when, from what and with which versions a run was started and resumed."""

import dataclasses
import datetime
import importlib.metadata
import json
import platform
import posixpath

import tensorflow as tf

from system.conditions import commit
from system.files import write_text

FILE = "starts.jsonl"
PACKAGES = ("tensorflow", "keras", "numpy")


@dataclasses.dataclass(frozen=True)
class Start:
    """One start of a run.

    Attributes:
      step: updates made before it; 0 for the first start.
      source: where the weights came from: "random weights", a file, or a checkpoint.
      devices: the replicas, as the log describes them, with the precision.
      time: UTC, ISO 8601, to the second.
      commit: of this project, as git describes it; "unknown" without git.
      versions: of Python and of the packages that compute, by name.
    """

    step: int
    source: str
    devices: str
    time: str
    commit: str
    versions: dict[str, str]

    @classmethod
    def now(cls, step: int, source: str, devices: str) -> "Start":
        """Describe a start of this process."""
        versions = {"python": platform.python_version()}
        versions |= {name: _version(name) for name in PACKAGES}
        time = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(step, source, devices, time, commit(), versions)


def add_start(model_dir: str, start: Start) -> None:
    """Add a line to MODEL_DIR/starts.jsonl, atomically.

    Raises:
      OSError: it cannot be written.
    """
    lines = [json.dumps(dataclasses.asdict(each)) for each in (*read_starts(model_dir), start)]
    write_text(posixpath.join(model_dir, FILE), "".join(line + "\n" for line in lines))


def read_starts(model_dir: str) -> list[Start]:
    """Return the starts of a run, oldest first; lines that cannot be read are skipped."""
    path = posixpath.join(model_dir, FILE)
    if not tf.io.gfile.exists(path):
        return []
    with tf.io.gfile.GFile(path) as file:
        lines = file.read().splitlines()
    found = []
    for line in lines:
        try:
            found.append(Start(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found


def _version(package: str) -> str:
    """Return the installed version; tensorflow-tpu, for one, is TensorFlow by another name."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return str(tf.__version__) if package == "tensorflow" else "unknown"
