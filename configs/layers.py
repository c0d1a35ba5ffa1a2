"""Layers of an experiment: trees of sections from several places, each laid over the one below."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from configs.schema import KINDS
from configs.sections import own_fields


class Layer(NamedTuple):
    """Values from one place: `origin` names the place for messages, `values` is a tree of sections."""

    origin: str
    values: Mapping[str, Any]
    is_saved: bool = False  # by this program, with every field, so that none was chosen


def stack_layers(groups: Sequence[Sequence[Layer]]) -> list[Layer]:
    """List the layers of all groups, lowest first, without the fields of kinds that are replaced.

    The order within a group does not matter: `--set optimizer.nesterov=true` may precede the
    `--set optimizer.name=sgd` that it needs.
    """
    stack: list[Layer] = []
    for group in groups:
        below, above = merge_layers(stack), merge_layers(group)
        for section, kinds in KINDS.items():
            values = above.get(section)
            if not isinstance(values, dict) or kinds.key not in values:
                continue
            replaced = kinds.of(below.get(section, {}))
            if replaced and kinds.of(values) not in (replaced, None):
                fields = own_fields(kinds.classes[replaced])
                stack = [_without(layer, section, fields) for layer in stack]
        stack += group
    return stack


def merge_layers(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return the values of all layers, lowest first: sections are merged, everything else is replaced."""
    tree: dict[str, Any] = {}
    for layer in layers:
        tree = _merge(tree, layer.values)
    return tree


def nest(key: str, value: object) -> dict[str, Any]:
    """Turn `("model.name", x)` into `{"model": {"name": x}}`."""
    first, dot, rest = key.partition(".")
    return {first: nest(rest, value) if dot else value}


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield `model.image_size` and its value for `{model: {image_size: 128}}` as for the key itself."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def with_tuples(tree: Any) -> Any:
    """Convert YAML's lists to the tuples that frozen fields hold."""
    if isinstance(tree, dict):
        return {key: with_tuples(value) for key, value in tree.items()}
    return tuple(map(with_tuples, tree)) if isinstance(tree, list) else tree


def origin_of(path: Sequence[str], layers: Sequence[Layer]) -> str:
    """Return the origin of the last layer that sets the value at `path`; "" for a default."""
    return next((layer.origin for layer in reversed(layers) if _sets(layer.values, path)), "")


def height_of(key: str, groups: Sequence[Sequence[Layer]]) -> int:
    """Return the position of the last group that chooses a value of `key`; -1 if none does."""
    return max(
        (
            height
            for height, group in enumerate(groups)
            for layer in group
            if not layer.is_saved and _sets(layer.values, key.split("."))
        ),
        default=-1,
    )


def value_at(tree: Any, path: Sequence[str]) -> object:
    """Return the value at a path of keys and, within lists, of positions."""
    for key in path:
        tree = tree[int(key) if isinstance(tree, list) else key]
    return tree


def _without(layer: Layer, section: str, fields: Collection[str]) -> Layer:
    values = layer.values.get(section)
    if not isinstance(values, dict):
        return layer
    kept = {key: value for key, value in values.items() if key not in fields}
    return layer._replace(values={**layer.values, section: kept})


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with the values of `above`; merge sections and replace everything else."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(under, dict) and isinstance(value, dict):
            value = _merge(under, value)
        merged[key] = value
    return merged


def _sets(values: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(values, Mapping):
            return True  # a value in the place of a section
        if key not in values:
            return False
        values = values[key]
    return True
