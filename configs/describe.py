"""What the schema allows, in words: for error messages and for the table in docs/experiments.md."""

import functools
from collections.abc import Sequence
from typing import Any

from configs.schema import Experiment


def keys_of(path: Sequence[str]) -> list[str]:
    """The keys of the section at `path` (`()` is the whole experiment); none below a field."""
    return list((_node(path) or {}).get("properties", ()))


def known_part(path: Sequence[str | int]) -> tuple[str, ...]:
    """The longest beginning of `path` that the schema knows."""
    for length in range(len(path), 0, -1):
        beginning = [str(part) for part in path[:length]]
        if _node(beginning) is not None:
            return tuple(beginning)
    return ()


def allowed(path: Sequence[str]) -> str:
    """What may stand at `path`, as the end of the sentence "it must be ..."."""
    return _words(_node(path) or {})


def _node(path: Sequence[str]) -> dict[str, Any] | None:
    node: dict[str, Any] | None = _json_schema()
    for key in path:
        node = (node or {}).get("properties", {}).get(key)
        if node and "$ref" in node:
            node = _json_schema()["$defs"][node["$ref"].removeprefix("#/$defs/")]
    return node


@functools.cache
def _json_schema() -> dict[str, Any]:
    return Experiment.model_json_schema()


def _words(node: dict[str, Any]) -> str:
    """One node of a JSON schema in words."""
    if "properties" in node:
        return f"a section with keys out of {', '.join(node['properties'])}"
    if "description" in node:
        return str(node["description"])
    if "anyOf" in node:
        return ", or ".join(_words(choice) for choice in node["anyOf"])
    if "enum" in node:
        return _one_of(node["enum"])
    match node.get("type"):
        case "integer":
            return "a whole number" + _bounds(node)
        case "number":
            return "a number" + _bounds(node)
        case "array":
            return f"a list out of {_words(node['items'])}"
        case "boolean":
            return "true or false"
        case "string":
            return "text" + (" (not empty)" if node.get("minLength") else "")
        case "null":
            return "null"
        case other:
            raise NotImplementedError(f"no words for the type {other} of {node}")


def _one_of(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


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
