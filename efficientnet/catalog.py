"""Look up published models by name and vary them."""

import difflib
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, TypedDict, Unpack

from efficientnet.families import v2
from efficientnet.families.lite import LITE
from efficientnet.families.v1 import V1
from efficientnet.scaling import compound_coefficients, scale
from efficientnet.spec import RGB, Family, ModelSpec, Padding, Size

# A new family is one file in families/ and one entry here.
FAMILIES: tuple[Family, ...] = (V1, LITE, *v2.FAMILIES)


class UnknownModelError(ValueError):
    """A model name that is not in the catalog; the message lists similar ones, or else all."""

    def __init__(self, name: str) -> None:
        known = list_models()
        near = [model for model in known if name and name.lower() in model]
        near = near or difflib.get_close_matches(name.lower(), known, n=4)
        hint = f"did you mean {', '.join(near)}?" if near else f"expected one of {', '.join(known)}"
        super().__init__(f"unknown model {name!r}: {hint}")


def list_models(pattern: str = "*") -> list[str]:
    """List the names of the published models that match a shell pattern.

    >>> list_models("efficientnet-lite[0-2]")
    ['efficientnet-lite0', 'efficientnet-lite1', 'efficientnet-lite2']
    """
    return [name for family in FAMILIES for name in family.models if fnmatchcase(name, pattern)]


class Variation(TypedDict, total=False):
    """The settings that `vary` can change in a finished network; None keeps the network's own.

    Keys:
      resolution: size of the training images in pixels, and of the evaluation images unless
        eval_resolution is given or it is the network's own.
      eval_resolution: size of the evaluation images in pixels.
      dropout: rate before the classifier, in [0, 1).
      survival_probability: of the last block (stochastic depth), in (0, 1]; 1 turns it off.
      batch_norm_momentum: of the moving statistics, in [0, 1).
      batch_norm_epsilon: added to the variance. Trained weights need the one that they were trained
        with.
      normalization: (mean_rgb, stddev_rgb) on the scale 0..255. Trained weights need the one that
        they were trained with.
      padding: see `ModelSpec`. Trained weights need the one that they were trained with.
    """

    resolution: Size | None
    eval_resolution: Size | None
    dropout: float | None
    survival_probability: float | None
    batch_norm_momentum: float | None
    batch_norm_epsilon: float | None
    normalization: tuple[RGB, RGB] | None
    padding: Padding | None


def get_spec(
    name: str,
    *,
    width: float | None = None,
    depth: float | None = None,
    phi: float | None = None,
    **variation: Unpack[Variation],
) -> ModelSpec:
    """Look up a published model and vary it.

        >>> get_spec("efficientnet-b3").resolution
        300
        >>> get_spec("efficientnet-b0", phi=1, dropout=0.3).resolution
        256

    Args:
      name: one of `list_models()`.
      width: coefficient that multiplies filters, instead of the published one.
      depth: coefficient that multiplies repeats, instead of the published one.
      phi: compound scaling of the family's base, such as efficientnet-b0, instead of coefficients;
        see `scaling.compound_coefficients`.
      **variation: see `Variation`.

    Returns:
      The network. Its name stays the published one, whatever is varied.

    Raises:
      UnknownModelError: the name is not in the catalog.
      SpecError: a value is out of range.
      ValueError: phi is given together with coefficients, or for a model that is not a base.
    """
    family = _family(name)
    coefficients = family.models[name]
    if phi is not None:
        given = _without_none(width=width, depth=depth, resolution=variation.get("resolution"))
        if given:
            raise ValueError(f"phi replaces {', '.join(given)}; give either phi or these")
        if name != family.base:
            raise ValueError(
                f"phi scales {family.base}, not {name}; use {family.base}, or leave phi out"
            )
        coefficients = compound_coefficients(phi, coefficients)
    coefficients = replace(coefficients, **_without_none(width=width, depth=depth))
    return vary(scale(family, name, coefficients), **variation)


def vary(spec: ModelSpec, **variation: Unpack[Variation]) -> ModelSpec:
    """Return a copy of a finished network with some settings changed; see `Variation`.

        >>> vary(get_spec("efficientnet-b0"), resolution=160, dropout=0.0).resolution
        160

    Raises:
      SpecError: a value is out of range.
    """
    changes: dict[str, Any] = _without_none(**variation)
    if changes.get("resolution", spec.resolution) != spec.resolution:
        changes.setdefault("eval_resolution", changes["resolution"])
    if "normalization" in changes:
        changes["mean_rgb"], changes["stddev_rgb"] = changes.pop("normalization")
    return replace(spec, **changes)


def _family(name: str) -> Family:
    for family in FAMILIES:
        if name in family.models:
            return family
    raise UnknownModelError(name)


def _without_none(**arguments: Any) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if value is not None}
