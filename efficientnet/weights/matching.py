"""Named arrays, and the rule that they must be exactly those that a network has."""

from collections.abc import Iterable, Mapping

import numpy as np

from system.errors import UserError

Weights = dict[str, np.ndarray]
"""Arrays by the path of our variable, such as `block_3_expand_bn/gamma`."""

LISTED = 5  # names of a kind that a message holds; the exception's attributes hold them all


class WeightsError(UserError):
    """Weights that can't be read, or aren't those of the network.

    Attributes:
      missing: names that the network has and the source hasn't.
      extra: names that the source has and the network hasn't.
      misshaped: names of both whose shapes differ.
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
    """Holds a source to having exactly a network's variables.

    Args:
      found: shapes by name, in the source.
      expected: shapes by name, in the network.
      source: named in the error.
      spec_name: name of the network, for the error.

    Raises:
      WeightsError: one line with the missing, the extra and the mis-shaped variables; all of them
        are in the exception's attributes.
    """
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    misshaped = {
        name: f"{name} {tuple(found[name])} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    }
    complaints = [
        f"{len(names)} {kind}: {_listed(names)}"
        for kind, names in (
            ("missing", missing),
            ("extra", extra),
            ("of another shape", list(misshaped.values())),
        )
        if names
    ]
    if complaints:
        raise WeightsError(
            f"{source} doesn't fit {spec_name}: {'; '.join(complaints)}",
            missing=missing,
            extra=extra,
            misshaped=misshaped,
        )


def _listed(names: list[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
