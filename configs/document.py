"""Keep the tables of docs/experiments.md in step with the schema: `python -m configs.document`.

What a field means is the comment on its line in schema.py, so that the schema and the page are one.
"""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

from configs.describe import allowed
from configs.schema import Experiment, Section

PAGE = Path(__file__).parent.parent / "docs" / "experiments.md"
BEGIN = "<!-- fields: written by `python -m configs.document` -->"
END = "<!-- end of fields -->"

_FIELD = re.compile(r"    (?P<name>\w+): .*?  # (?P<meaning>.+)")


def tables() -> str:
    """A table of fields in Markdown for the whole experiment and for each of its sections.

    Raises:
      KeyError: a field has no comment.
    """
    defaults = Experiment().model_dump(mode="json")
    top = {key: value for key, value in defaults.items() if not isinstance(value, dict)}
    lines = ["### The run", "", *_table((), top, Experiment)]
    for name, section in _sections():
        assert section.__doc__
        lines += ["", f"### {name}", "", section.__doc__, ""]
        lines += _table((name,), defaults[name], section)
    return "\n".join(lines)


def with_tables(page: str) -> str:
    """`page` with today's tables between its two marks; ValueError when a mark is missing."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def _sections() -> Iterator[tuple[str, type[Section]]]:
    for name, field in Experiment.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield name, kind


def _table(
    path: tuple[str, ...], defaults: dict[str, object], section: type[Section]
) -> Iterator[str]:
    meanings = _meanings(section)
    yield "| key | default | allowed | meaning |"
    yield "|---|---|---|---|"
    for name, default in defaults.items():
        key = ".".join((*path, name))
        value = default if isinstance(default, str) else json.dumps(default)
        meaning = meanings[name].replace("None:", "null:")
        cells = [f"`{key}`", f"`{value}`", allowed((*path, name)), meaning]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _meanings(section: type[Section]) -> dict[str, str]:
    lines = map(_FIELD.fullmatch, inspect.getsource(section).splitlines())
    return {line["name"]: line["meaning"] for line in lines if line}


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
