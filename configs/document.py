"""Write the tables of docs/experiments.md from the schema: `python -m configs.document`.

The meaning of a field is the comment on its line in configs/schema/.
"""

import inspect
import json
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from configs.describe import allowed_values, kind_labels
from configs.schema import KINDS, Experiment, Progressive, StageOverlay, section_classes
from configs.sections import Section, own_fields, shared_class
from system.command import Parser, command

PAGE = Path(__file__).parent.parent / "docs" / "experiments.md"
BEGIN = "<!-- fields: written by `python -m configs.document` -->"
END = "<!-- end of fields -->"

_FIELD = re.compile(r"    (?P<name>\w+): .*?  # (?P<meaning>.+)")


def tables() -> str:
    """Return tables of fields in Markdown for the whole experiment and for each of its sections.

    A section that comes in kinds has a table of the fields that they share, and one for each kind.

    Raises:
      KeyError: a field has no comment.
    """
    classes = section_classes()
    lines = ["### The run", "", *_table((), Experiment, Experiment.model_fields.keys() - classes)]
    for name, (section, *_) in classes.items():
        if name in KINDS:
            lines += _kinds(name)
        else:
            lines += ["", f"### {name}", "", section.__doc__ or "", ""]
            lines += _table((name,), section, section.model_fields)
    lines += ["", "### stages", "", f"A list. {StageOverlay.__doc__}", ""]
    lines += _table(("stages", "0"), StageOverlay, StageOverlay.model_fields)
    lines += ["", "### progressive", "", Progressive.__doc__ or "", ""]
    lines += _table(("progressive",), Progressive, Progressive.model_fields)
    return "\n".join(lines)


def _kinds(name: str) -> Iterator[str]:
    kinds = KINDS[name]
    shared = shared_class(kinds.classes[kinds.default])
    yield from ("", f"### {name}", "", shared.__doc__ or "", "")
    yield from _table((name, kinds.default), kinds.classes[kinds.default], shared.model_fields)
    for (kind, section), label in zip(kinds.classes.items(), kind_labels(name), strict=True):
        yield from ("", f"With `{name}.{kinds.key}={label}`: {section.__doc__}", "")
        if fields := own_fields(section):
            yield from _table((name, kind), section, fields)
        else:
            yield "No further fields."


def with_tables(page: str) -> str:
    """Return `page` with the current tables between its two marks.

    Raises:
      ValueError: a mark is missing.
    """
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def _table(path: tuple[str, ...], section: type[Section], fields: Collection[str]) -> Iterator[str]:
    """Yield a row for each of the `fields` of the section, in the schema's order.

    Args:
      path: of the section, as in `configs.describe`.
      section: class of the section.
      fields: names of the fields to list.
    """
    meanings = _meanings(section)
    yield "| key | default | allowed | meaning |"
    yield "|---|---|---|---|"
    for name in section.model_fields:
        if name not in fields:
            continue
        key = ".".join((*path[:1], name))
        meaning = meanings[name].replace("None:", "null:")
        cells = [f"`{key}`", f"`{_default(section, name)}`", allowed_values((*path, name)), meaning]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(section: type[Section], name: str) -> str:
    default = section.model_fields[name].get_default(call_default_factory=True)
    value = json.loads(json.dumps(default, default=str))
    return value if isinstance(value, str) else json.dumps(value)


def _meanings(section: type[Section]) -> dict[str, str]:
    """Return the comments of a section's fields, inherited ones included."""
    classes = [each for each in reversed(section.__mro__) if issubclass(each, Section)]
    lines = [line for each in classes for line in inspect.getsource(each).splitlines()]
    return {line["name"]: line["meaning"] for line in map(_FIELD.fullmatch, lines) if line}


@command("configs.document")
def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables; return the exit status."""
    Parser("configs.document", __doc__).parse_args(argv)
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
