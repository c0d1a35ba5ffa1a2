"""TensorFlow's own log: off, unless EFFICIENTNET_TENSORFLOW_LOGS=1."""

import contextlib
import ctypes
import importlib.util
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

TENSORFLOW_LOGS = "EFFICIENTNET_TENSORFLOW_LOGS"
STDERR = 2  # file descriptor
FATAL = "3"  # other levels are off: failures raise an exception anyway

# absl::SetMinLogLevel(absl::LogSeverityAtLeast) of the release that TensorFlow 2.20 contains.
_SET_MIN_LOG_LEVEL = "_ZN4absl12lts_2025012714SetMinLogLevelENS0_18LogSeverityAtLeastE"


def is_logging() -> bool:
    """Return whether EFFICIENTNET_TENSORFLOW_LOGS=1 asks for TensorFlow's log."""
    return os.environ.get(TENSORFLOW_LOGS) == "1"


def log_level() -> str:
    """Return the TF_CPP_MIN_LOG_LEVEL for this process and for those that it starts."""
    return "0" if is_logging() else os.environ.get("TF_CPP_MIN_LOG_LEVEL", FATAL)


def quiet_tensorflow() -> None:
    """Turn off the log of TensorFlow's C++ code; commands call it before they import TensorFlow.

    TensorFlow logs in two ways. TF_CPP_MIN_LOG_LEVEL controls the older one (cuInit, oneDNN,
    cpu_feature_guard). The newer one is absl's (`Compiled cluster using XLA!`, lines of the TFLite
    converter), which has no environment variable: its level is set by a call into the library
    that TensorFlow loads later. Loading the library takes 0.1 s and also silences the import itself.
    If the library has another version of absl, the call is skipped and those lines appear.

    With EFFICIENTNET_TENSORFLOW_LOGS=1 everything is logged. Otherwise a TF_CPP_MIN_LOG_LEVEL that is
    set applies to both.
    """
    level = os.environ["TF_CPP_MIN_LOG_LEVEL"] = log_level()
    if is_logging():
        return
    package = importlib.util.find_spec("tensorflow")
    if package is None or package.origin is None or not level.isdecimal():
        return
    for library in Path(package.origin).parent.glob("libtensorflow_framework.*"):
        try:
            ctypes.CDLL(str(library))[_SET_MIN_LOG_LEVEL](int(level))
        except (OSError, AttributeError):
            continue


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Discard what the block writes to the process's stderr, by C++ code too.

    For code whose lines no log level controls, such as the TFLite converter and interpreter. With
    EFFICIENTNET_TENSORFLOW_LOGS=1 the lines are written. Exceptions are raised as without it.
    """
    if is_logging() or sys.stderr is None:  # closed: `2>&-`
        yield
        return
    kept = os.dup(STDERR)
    sys.stderr.flush()
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), STDERR)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, STDERR)
        os.close(kept)


def quiet_commands_of(package: str) -> None:
    """Turn off the log if the process runs a module of a package: python -m PACKAGE.MODULE.

    Such a command imports its package, and with it TensorFlow, before its own first line.
    """
    for flag, module in itertools.pairwise(sys.orig_argv):
        if flag == "-m" and module.startswith(f"{package}."):
            quiet_tensorflow()
