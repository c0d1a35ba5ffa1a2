"""Published models by name, and variations of them."""

import difflib
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from efficientnet.families.lite import LITE
from efficientnet.families.v1 import V1
from efficientnet.scaling import compound_coefficients, scale
from efficientnet.spec import Family, ModelSpec

# A new family is one file in families/ and one entry here.
FAMILIES: tuple[Family, ...] = (V1, LITE)


class UnknownModelError(ValueError):
    """A model name that the catalogue doesn't hold; the message lists near ones."""

    def __init__(self, name: str) -> None:
        known = list_models()
        near = [model for model in known if name and name.lower() in model]
        near = near or difflib.get_close_matches(name.lower(), known, n=4) or known
        super().__init__(f"unknown model {name!r}: did you mean {', '.join(near)}?")


def list_models(pattern: str = "*") -> list[str]:
    """Names of the published models that match a shell pattern, such as `efficientnet-b*`."""
    return [name for family in FAMILIES for name in family.models if fnmatchcase(name, pattern)]


def get_spec(
    name: str,
    *,
    width: float | None = None,
    depth: float | None = None,
    resolution: int | None = None,
    dropout: float | None = None,
    survival_probability: float | None = None,
    batch_norm_momentum: float | None = None,
    batch_norm_epsilon: float | None = None,
    phi: float | None = None,
) -> ModelSpec:
    """Looks up a published model and varies it.

    Args:
      name: one of `list_models()`.
      width: coefficient that multiplies filters, instead of the published one.
      depth: coefficient that multiplies repeats, instead of the published one.
      resolution: side of the square input in pixels, instead of the published one.
      dropout: rate before the classifier, in [0, 1), instead of the published one.
      survival_probability: of the last block (stochastic depth), in (0, 1]; 1 turns it off.
      batch_norm_momentum: of the moving statistics, in [0, 1), instead of the family's.
      batch_norm_epsilon: added to the variance, instead of the family's. Whoever uses the weights needs
        the one that they were trained with.
      phi: compound scaling of the family's base, such as efficientnet-b0, instead of coefficients;
        see `scaling.compound_coefficients`.

    Returns:
      The network. Its name stays the published one, whatever is varied.

    Raises:
      UnknownModelError: for a name that isn't listed.
      ValueError: for phi beside coefficients or for another model than a base, and for a value out
        of range.
    """
    family = _family(name)
    coefficients = family.models[name]
    given = _given(width=width, depth=depth, resolution=resolution)
    if phi is not None:
        if given:
            raise ValueError(f"phi replaces {', '.join(given)}: give either phi or these")
        if name != family.base:
            raise ValueError(
                f"phi scales {family.base}, not {name}: take that one, or leave phi out"
            )
        coefficients = compound_coefficients(phi, coefficients)
    coefficients = replace(coefficients, **given, **_given(dropout=dropout))
    spec = scale(family, name, coefficients)
    return replace(
        spec,
        **_given(
            survival_probability=survival_probability,
            batch_norm_momentum=batch_norm_momentum,
            batch_norm_epsilon=batch_norm_epsilon,
        ),
    )


def _family(name: str) -> Family:
    for family in FAMILIES:
        if name in family.models:
            return family
    raise UnknownModelError(name)


def _given(**arguments: Any) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if value is not None}
