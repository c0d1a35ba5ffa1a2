"""Import the packages that only some commands need."""

import importlib
from types import ModuleType

from serving.network import ExportError


def require(
    module: str, needed_for: str, requirements: str = "requirements-export.txt"
) -> ModuleType:
    """Import an optional module.

    Args:
      module: dotted name of the module.
      needed_for: the format or setting that needs it, for the message.
      requirements: the requirements file that lists its package.

    Raises:
      ExportError: the module is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        raise ExportError(
            f"{needed_for} needs the package {missing.replace('_', '-')}: "
            f"pip install -r {requirements}"
        ) from error
