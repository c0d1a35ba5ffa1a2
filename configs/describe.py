"""Describe what the schema allows, for error messages and for the tables of docs/experiments.md.

A path is pydantic's: in a section that comes in kinds, the kind follows the section's name, as in
`("optimizer", "sgd", "nesterov")`.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from configs.schema import KINDS, Experiment


def keys_of(path: Sequence[str]) -> list[str]:
    """List the keys of the section at `path` (`()` is the whole experiment); a field has none.

    If the section has kinds and the path names none, list the keys of all kinds.
    """
    return _keys(_node(path) or {})


def known_part(path: Sequence[str | int]) -> tuple[str, ...]:
    """Return the longest beginning of `path` that the schema knows."""
    for length in range(len(path), 0, -1):
        beginning = [str(part) for part in path[:length]]
        if _node(beginning) is not None:
            return tuple(beginning)
    return ()


def allowed_values(path: Sequence[str]) -> str:
    """Describe the values allowed at `path`, as the end of the sentence "it must be ..."."""
    if len(path) > 1 and path[0] in KINDS and path[-1] == KINDS[path[0]].key:
        return one_of(kind_labels(path[0]))
    return _words(_node(path) or {})


def kind_labels(section: str) -> list[str]:
    """List the kinds of a section as they are written: `tfrecord`, `tfds:NAME`."""
    kinds = KINDS[section]
    return [_words(_node((section, kind, kinds.key)) or {}) for kind in kinds.classes]


def one_of(names: Iterable[str]) -> str:
    """Join names as in `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _node(path: Sequence[str]) -> dict[str, Any] | None:
    node: dict[str, Any] | None = _json_schema()
    for key in path:
        if node and "anyOf" in node:
            # A section that may be null.
            node = next((_resolve(each) for each in node["anyOf"] if "$ref" in each), None)
        if node and "oneOf" in node:
            # The kinds of a section, in the order of its union.
            node = dict(zip(KINDS[path[0]].classes, node["oneOf"], strict=True)).get(key)
        elif node and "$ref" in node.get("items", {}) and key.isdecimal():
            node = node["items"]
        else:
            node = (node or {}).get("properties", {}).get(key)
        node = _resolve(node) if node else None
    return node


def _resolve(node: dict[str, Any]) -> dict[str, Any]:
    definition = node.get("$ref", "").removeprefix("#/$defs/")
    return _json_schema()["$defs"][definition] if definition else node


def _keys(node: dict[str, Any]) -> list[str]:
    if "oneOf" in node:
        return list(dict.fromkeys(key for kind in node["oneOf"] for key in _keys(_resolve(kind))))
    return list(node.get("properties", ()))


@functools.cache
def _json_schema() -> dict[str, Any]:
    return Experiment.model_json_schema()


def _words(node: dict[str, Any]) -> str:
    """Describe one node of a JSON schema in words."""
    node = _resolve(node)
    if "properties" in node or "oneOf" in node:
        return f"a section with the keys {', '.join(_keys(node))}"
    if "description" in node:
        return str(node["description"])
    if "anyOf" in node:
        return ", or ".join(_words(choice) for choice in node["anyOf"])
    if "const" in node:
        return str(node["const"])
    if "enum" in node:
        return one_of(node["enum"])
    match node.get("type"):
        case "integer":
            return "a whole number" + _bounds(node)
        case "number":
            return "a number" + _bounds(node)
        case "array":
            return f"a list of {_words(node['items'])}"
        case "boolean":
            return "true or false"
        case "string":
            return "text" + (" (not empty)" if node.get("minLength") else "")
        case "null":
            return "null"
        case other:
            raise NotImplementedError(f"no words for the type {other} of {node}")


def _bounds(node: dict[str, Any]) -> str:
    bounds = [
        f"{words} {node[name]:.12g}"
        for name, words in (
            ("minimum", "of at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        if name in node
    ]
    return (" " if bounds else "") + " and ".join(bounds)
