"""Replace the table of a page of results, between two markers."""

from pathlib import Path

from system.errors import UsageError
from system.files import write_text

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def write_page(page: Path, table: str) -> None:
    """Replace the table between the markers of a page.

    Args:
      page: Markdown file.
      table: new text, which ends with a newline.

    Raises:
      UsageError: the page has no markers.
    """
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UsageError(f"--output={page} needs the lines {BEGIN} and {END} around its table")
    write_text(str(page), f"{before}{begin}\n{table}{end}{after}")
