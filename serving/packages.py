"""Packages that only some commands need: imported when asked for, named when missing."""

import importlib
from types import ModuleType

from serving.network import ExportError


def require(
    module: str, needed_for: str, requirements: str = "requirements-export.txt"
) -> ModuleType:
    """Imports an optional module.

    Raises:
      ExportError: it isn't installed; the message has the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        raise ExportError(
            f"{needed_for} needs the package {missing.replace('_', '-')}: "
            f"pip install -r {requirements}"
        ) from error
