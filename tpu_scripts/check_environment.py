"""Print what is installed, which devices are visible, and what to do if none are.

    python tpu_scripts/check_environment.py

Exit status: 0 with a usable accelerator, 1 without one, 2 for a flag: there are none. Imports nothing of
the project, so that it runs before anything else works. EFFICIENTNET_TENSORFLOW_LOGS=1 also prints
TensorFlow's log.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("tensorflow", "tensorflow-tpu", "libtpu", "keras", "numpy", "cloud-tpu-client")
NEEDS = "ConfigureDistributedTpuOp_DoWork"  # of libtpu, by TensorFlow 2.20; later libtpus lack it
TENSORFLOW_LOGS = "EFFICIENTNET_TENSORFLOW_LOGS"  # as in system/tensorflow_log.py

# Runs in its own process: an incompatible libtpu aborts the process that loads it.
SEE_DEVICES = """
import tensorflow as tf
for device in tf.config.list_physical_devices():
    print(device.device_type)
"""


def installed_versions() -> dict[str, str | None]:
    """Return the version of every relevant package; None for those not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def libtpu_file() -> Path | None:
    """Return the libtpu that TensorFlow would load; None if there is none."""
    given = os.environ.get("TPU_LIBRARY_PATH")
    found = [Path(given)] if given else [Path(path, "libtpu/libtpu.so") for path in sys.path]
    return next((file for file in found if file.exists()), None)


def has_symbol(library: Path, symbol: str) -> bool:
    """Return whether a shared library contains a symbol; read the large file in pieces."""
    wanted, tail = symbol.encode(), b""
    with library.open("rb") as file:
        while piece := file.read(2**24):
            if wanted in tail + piece:
                return True
            tail = piece[-len(wanted) :]
    return False


def chips() -> int:
    """Count the TPU chips that the kernel exposes."""
    return len([*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")])


def devices() -> tuple[dict[str, int], str]:
    """Count the devices that TensorFlow sees, by kind; return them and an error, or an empty string."""
    logs = os.environ.get(TENSORFLOW_LOGS) == "1"
    level = "0" if logs else os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3")
    done = subprocess.run(
        [sys.executable, "-c", SEE_DEVICES],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": level},
        capture_output=True,
        text=True,
        check=False,
    )
    if logs:
        print(done.stderr, end="", file=sys.stderr)
    kinds = done.stdout.split()
    lines = done.stderr.strip().splitlines()
    return (
        {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "" if done.returncode == 0 else (lines[-1] if lines else f"status {done.returncode}"),
    )


def advice(
    versions: dict[str, str | None],
    chips: int,
    libtpu_fits: bool | None,
    seen: dict[str, int],
    error: str,
) -> tuple[bool, str]:
    """Return whether an accelerator can be used, and the next thing to do.

    Args:
      versions: from `installed_versions`.
      chips: TPU chips of this machine.
      libtpu_fits: whether libtpu has what TensorFlow needs; None without libtpu.
      seen: devices by kind, as TensorFlow sees them.
      error: raised while listing devices; empty if none.
    """
    if versions["tensorflow"] and versions["tensorflow-tpu"]:
        return (
            False,
            "tensorflow and tensorflow-tpu overwrite each other: a new environment, one of them",
        )
    if libtpu_fits is False:
        return False, "libtpu does not fit this TensorFlow: pip install -r requirements-tpu.txt"
    if error:
        return (
            False,
            f"TensorFlow can't be imported ({error[:150]}): a new environment, Python 3.11",
        )
    if seen.get("TPU") or seen.get("GPU"):
        flag = "--tpu=local" if seen.get("TPU") else "no flag, all GPUs are used"
        return True, f"ready: python main.py with {flag}"
    if chips and not versions["tensorflow-tpu"]:
        return (
            False,
            "a TPU, but TensorFlow without TPU support: pip install -r requirements-tpu.txt",
        )
    if chips:
        return (
            False,
            "chips that TensorFlow does not see: is another process using them (lsof /dev/accel*)?",
        )
    if versions["tensorflow-tpu"]:
        return False, "no TPU chip here: this environment is for a TPU VM (tpu_scripts/create.sh)"
    return False, (
        "the CPU only: on a TPU VM pip install -r requirements-tpu.txt, with NVIDIA GPUs "
        "requirements-gpu.txt, each in a new environment"
    )


def main(arguments: Sequence[str] = ()) -> int:
    """Print everything; return the exit status: 0 with a usable accelerator, 1 without one, 2 for a flag."""
    if list(arguments) in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if arguments:
        print(
            f"check_environment.py: unrecognized arguments: {' '.join(arguments)}; it takes none",
            file=sys.stderr,
        )
        return 2
    versions, library, number = installed_versions(), libtpu_file(), chips()
    fits = has_symbol(library, NEEDS) if library else None
    seen, error = devices()
    good, text = advice(versions, number, fits, seen, error)
    print(f"Python           {platform.python_version()} ({sys.executable})")
    for name, found in versions.items():
        print(f"{name:<16} {found or 'not installed'}"[:100])
    print(f"TPU chips        {number}")
    print(f"devices          {', '.join(f'{n} {kind}' for kind, n in seen.items()) or 'nothing'}")
    print(f"{'->' if good else '!!'} {text}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
