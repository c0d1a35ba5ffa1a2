"""Hold a section of the parity table to its bounds."""

from collections.abc import Callable, Iterable
from pathlib import Path

from proofs.parity_row import ParityRow


def check_section(
    section: Callable[[Path], Iterable[ParityRow]], goldens: Path, *, num_rows: int
) -> None:
    """Assert that a section has this many rows and that each is within its bound."""
    rows = list(section(goldens))
    assert len(rows) == num_rows
    for row in rows:
        assert row.passed, row
