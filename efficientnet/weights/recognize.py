"""Recognise a published network by the sizes of its arrays."""

from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod

from efficientnet.catalog import get_spec, list_models
from efficientnet.complexity import complexity


def recognize_network(shapes: Iterable[tuple[int, ...]]) -> str | None:
    """Return the name of the published network that has arrays of these shapes; None for any other.

    Only the sizes are compared, because names and layouts differ between formats. The classifier, or the head
    and the classifier, may be missing.
    """
    sizes = _sizes(shapes)
    for name in list_models():
        variables = complexity(get_spec(name), num_classes=None).variable_shapes
        if any(_is(sizes, _sizes(part.values())) for part in (variables, _headless(variables))):
            return name
    return None


def _is(found: Counter[int], network: Counter[int]) -> bool:
    rest = sorted((found - network).elements())  # bias and kernel of the classifier
    is_classifier = len(rest) == 2 and rest[0] > 0 and rest[1] % rest[0] == 0
    return not network - found and (not rest or is_classifier)


def _sizes(shapes: Iterable[tuple[int, ...]]) -> Counter[int]:
    return Counter(prod(shape) for shape in shapes)


def _headless(variables: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {path: shape for path, shape in variables.items() if not path.startswith("head_")}
