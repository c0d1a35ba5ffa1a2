"""One screen: what is installed here, which devices are seen, and what to do when they are not.

    python tpu_scripts/check_environment.py

Ends with status 0 when there is an accelerator, 1 when there is none, or when what is installed can't
use one. Nothing of the project is imported: it runs before anything else works.
"""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("tensorflow", "tensorflow-tpu", "libtpu", "keras", "numpy", "cloud-tpu-client")
NEEDS = "ConfigureDistributedTpuOp_DoWork"  # of libtpu, by TensorFlow 2.20; later libtpus lack it

# In a process of its own: a libtpu that does not fit aborts whoever loads it.
SEE_DEVICES = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
for device in tf.config.list_physical_devices():
    print(device.device_type)
"""


def installed() -> dict[str, str | None]:
    """Version of every package that matters; None for those that are not there."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def libtpu_file() -> Path | None:
    """The library that TensorFlow would load."""
    given = os.environ.get("TPU_LIBRARY_PATH")
    found = [Path(given)] if given else [Path(path, "libtpu/libtpu.so") for path in sys.path]
    return next((file for file in found if file.exists()), None)


def has_symbol(library: Path, symbol: str) -> bool:
    """Whether a shared library names a symbol; reads it in pieces, it is large."""
    wanted, tail = symbol.encode(), b""
    with library.open("rb") as file:
        while piece := file.read(2**24):
            if wanted in tail + piece:
                return True
            tail = piece[-len(wanted) :]
    return False


def chips() -> int:
    """TPU chips that the kernel shows."""
    return len([*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")])


def devices() -> tuple[dict[str, int], str]:
    """Devices that TensorFlow sees, by kind, and what went wrong, if anything."""
    done = subprocess.run(
        [sys.executable, "-c", SEE_DEVICES], capture_output=True, text=True, check=False
    )
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
    """Whether an accelerator can be used, and the next thing to do.

    Args:
      versions: from `installed`.
      chips: TPU chips of this machine.
      libtpu_fits: whether libtpu has what TensorFlow needs; None without libtpu.
      seen: devices by kind, as TensorFlow sees them.
      error: of the attempt to see them.
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


def main() -> int:
    """Print it all: 0 when an accelerator can be used."""
    versions, library, number = installed(), libtpu_file(), chips()
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
    sys.exit(main())
