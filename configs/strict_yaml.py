"""Parse a strict subset of YAML 1.2.

PyYAML's safe loader silently takes the last of two equal keys, reads `1e-5` as text, `no` as
false, `1:30` as 90 and `010` as 8, and expands aliases from a kilobyte to gigabytes. Here the types
are those of YAML 1.2 (null, true and false, decimal numbers, text, lists, mappings), and equal
keys, aliases and tags are errors.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

_TYPES = (  # tag, pattern of its texts, and the characters they begin with
    ("null", r"(?:~|null|Null|NULL|)\Z", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", ["t", "T", "f", "F"]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)\Z", [*"-+0123456789"]),
    (
        "float",
        r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)\Z"
        r"|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z",
        [*"-+.0123456789"],
    ),
)


def parse(text: str) -> Any:
    """Parse one YAML document.

    Raises:
      ValueError: `text` is not in this subset; the message has the line and the problem.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{line}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def dump(value: Any, *, compact: bool = False) -> str:
    """Return a value as text that `parse` reads back.

    Args:
      value: mappings, lists, text, numbers, bools or None.
      compact: whether to write a mapping or list that holds no other on one line, as in
        `{kernel_size: 3, stride: 1}`.
    """
    return yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=2**31,
        default_flow_style=None if compact else False,
    )


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's name; filled below)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _problem("aliases (*name) are not supported", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise _problem(f"tags ({event.tag}) are not supported", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _problem(f"the key {key!r} is not text", key_node.start_mark)
            if key in mapping:
                raise _problem(f"the key {key!r} is given twice", key_node.start_mark)
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes text which this loader or PyYAML's own would read as another type."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        # Unquoted or in single quotes, exotic line breaks would come back as spaces.
        style = None if text.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _problem(text: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=mark)


_Dumper.add_representer(str, _Dumper.represent_text)
for _tag, _pattern, _first in _TYPES:
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)
