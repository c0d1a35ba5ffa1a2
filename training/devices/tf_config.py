"""TF_CONFIG: the addresses of all workers, and which of them this process is."""

import json
from typing import Any

from system.errors import UsageError, first_line

EXAMPLE = (
    'for example TF_CONFIG=\'{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}\''
)


class TFConfigError(UsageError):
    """TF_CONFIG is missing or does not describe the workers."""


def read_tf_config(text: str) -> tuple[list[str], int]:
    """Return the addresses of the workers, and the number of this one, from TF_CONFIG's value.

    Raises:
      TFConfigError: it is empty, no JSON or incomplete.
    """
    if not text:
        raise TFConfigError(f"--strategy=multi_worker needs TF_CONFIG, which is not set; {EXAMPLE}")
    try:
        config = json.loads(text)
    except ValueError as error:
        raise TFConfigError(f"TF_CONFIG is not JSON ({first_line(error)}); {EXAMPLE}") from None
    workers, index = _value_at(config, "cluster", "worker"), _value_at(config, "task", "index")
    if not (isinstance(workers, list) and workers and all(isinstance(x, str) for x in workers)):
        raise TFConfigError(
            f"TF_CONFIG: cluster.worker is {workers!r}; expected the list of all workers' addresses; "
            f"{EXAMPLE}"
        )
    try:
        number = int(index)
    except (ValueError, TypeError):
        raise TFConfigError(
            f"TF_CONFIG: task.index is {index!r}; expected the number of this worker; {EXAMPLE}"
        ) from None
    if not 0 <= number < len(workers):
        raise TFConfigError(
            f"TF_CONFIG: task.index is {number}; expected 0 to {len(workers) - 1}, a position in "
            "cluster.worker; correct one of the two"
        )
    return workers, number


def _value_at(tree: Any, *keys: str) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
