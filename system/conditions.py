"""Conditions of a measurement: the line that every page of results begins with."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def conditions(*packages: str) -> str:
    """Return date, commit, versions, processor and load as one sentence without its full stop.

    Args:
      packages: whose versions to list after TensorFlow's.
    """
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("tensorflow", *packages)]
    parts = [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        f"commit {commit()}",
        *versions,
        f"Python {platform.python_version()}",
        f"{os.cpu_count()} x {_processor()}",
    ]
    if hasattr(os, "getloadavg"):
        parts.append(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return ", ".join(parts)


def commit(checkout: Path = ROOT) -> str:
    """Describe the commit of a checkout as git does; with -dirty when files have changed since."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return "unknown"
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
