"""Check that named arrays are exactly the variables of a network."""

from collections.abc import Iterable, Mapping

import numpy as np

from system.errors import UserError

Weights = dict[str, np.ndarray]
"""Arrays by the path of our variable, such as `block_3_expand_bn/gamma`."""

MAX_LISTED = 5  # names of a kind in a message; the exception's attributes hold them all


class WeightsError(UserError):
    """Weights that cannot be read, or are not those of the network.

    Attributes:
      missing: names that only the network has.
      extra: names that only the source has.
      misshaped: names that both have, with different shapes.
    """

    def __init__(
        self,
        message: str,
        *,
        missing: Iterable[str] = (),
        extra: Iterable[str] = (),
        misshaped: Iterable[str] = (),
    ) -> None:
        super().__init__(message)
        self.missing, self.extra, self.misshaped = tuple(missing), tuple(extra), tuple(misshaped)


def require_match(
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    source: str,
    spec_name: str,
) -> None:
    """Check that a source has exactly a network's variables.

    Args:
      found: shapes by name, in the source.
      expected: shapes by name, in the network.
      source: name of the source, for the error.
      spec_name: name of the network, for the error.

    Raises:
      WeightsError: a variable is missing, extra or of another shape; all of them are in the
        exception's attributes.
    """
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    misshaped = {
        name: f"{name} {tuple(found[name])} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    }
    problems = [
        f"{len(names)} {kind}: {_join_names(names)}"
        for kind, names in (
            ("missing", missing),
            ("extra", extra),
            ("of another shape", list(misshaped.values())),
        )
        if names
    ]
    if problems:
        raise WeightsError(
            f"{source} does not match {spec_name}: {'; '.join(problems)}",
            missing=missing,
            extra=extra,
            misshaped=misshaped,
        )


def _join_names(names: list[str]) -> str:
    more = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
