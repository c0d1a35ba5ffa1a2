"""Check that named arrays are exactly the variables of a network."""

from collections.abc import Iterable, Mapping

import numpy as np

from efficientnet.complexity import complexity
from efficientnet.spec import ModelSpec
from efficientnet.weights.recognize import recognize_network
from system.errors import UserError

Weights = dict[str, np.ndarray]
"""Arrays by the path of our variable, such as `block_3_expand_bn/gamma`."""


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
        f"{count} (first: {names[0]})"
        for count, names in (
            (f"{len(missing)} of the model's {len(expected)} weights are missing", missing),
            (f"{len(extra)} of the {len(found)} found are not in it", extra),
            (f"{len(misshaped)} have another shape", list(misshaped.values())),
        )
        if names
    ]
    if problems:
        network = recognize_network(found.values())
        is_other = network not in (None, spec_name)
        raise WeightsError(
            f"{source}{f' holds {network} and' if is_other else ''} does not match {spec_name}: "
            f"{', '.join(problems)}{f'; give --model={network}' if is_other else ''}",
            missing=missing,
            extra=extra,
            misshaped=misshaped,
        )


def require_weights(
    weights: Weights,
    spec: ModelSpec,
    num_classes: int | None,
    source: str = "this set of weights",
) -> None:
    """Check that arrays by our names are exactly a network's; see `require_match`."""
    found = {path: array.shape for path, array in weights.items()}
    expected = complexity(spec, num_classes=num_classes).variable_shapes
    require_match(found, expected, source, spec.name)
