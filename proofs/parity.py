"""Compare the recipe with outputs of the published code, number by number.

    python -m proofs.parity [--goldens=DIR] [--output=docs/parity.md]

measures every item and prints one table: what the reference does, what we do, how far they differ and
how far they may differ. The exit status is 1 if an item is out of bounds. --output replaces the table of
that page.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

from proofs import (
    parity_boxes,
    parity_detection,
    parity_detection_steps,
    parity_segmentation,
    parity_suppression,
    parity_v1,
    parity_v1_networks,
    parity_v2,
)
from proofs.page import write_page
from proofs.parity_row import ParityRow
from system.command import Parser, command
from system.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
GOLDENS = ROOT / "tests" / "goldens"


class MissingGoldensError(UserError):
    """The folder lacks the reference implementation's outputs."""


SECTIONS: tuple[Callable[[Path], Iterator[ParityRow]], ...] = (
    *parity_v1.SECTIONS,
    *parity_v1_networks.SECTIONS,
    *parity_v2.SECTIONS,
    *parity_segmentation.SECTIONS,
    *parity_boxes.SECTIONS,
    *parity_suppression.SECTIONS,
    *parity_detection.SECTIONS,
    *parity_detection_steps.SECTIONS,
)

HEADER = ("item", "reference", "ours", "measured", "bound", "")


def require_goldens(folder: Path) -> None:
    """Raise MissingGoldensError unless a folder holds the reference implementation's outputs."""
    if not (folder / "augment_ops.npz").is_file():
        raise MissingGoldensError(
            f"no outputs of the reference implementation in --goldens={folder}; expected "
            "augment_ops.npz and the other files of tests/goldens"
        )


def markdown_table(rows: Sequence[ParityRow]) -> str:
    """Render one Markdown table, with a heading line for each section."""
    lines = [_line(HEADER), _line(["---"] * len(HEADER))]
    section = None
    for row in rows:
        if row.section != section:
            section = row.section
            lines.append(_line([f"**{section}**", *[""] * (len(HEADER) - 1)]))
        lines.append(_line(_cells(row)))
    return "\n".join(lines) + "\n"


def _cells(row: ParityRow) -> list[str]:
    measured, bound = (f"{number:.2g}" for number in (row.measured, row.bound))
    verdict = "ok" if row.passed else "OUT OF BOUNDS"
    return [row.item, row.reference, row.ours, measured, f"{bound} {row.unit}", verdict]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


@command("proofs.parity")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit status, 1 if an item is out of bounds."""
    parser = Parser("proofs.parity", __doc__)
    parser.add_argument(
        "--goldens",
        type=Path,
        default=GOLDENS,
        help="folder of the reference implementation's outputs",
    )
    parser.add_argument("--output", type=Path, help="page whose table is replaced")
    flags = parser.parse_args(argv)
    start = time.monotonic()
    require_goldens(flags.goldens)
    rows = [row for section in SECTIONS for row in section(flags.goldens)]
    table = markdown_table(rows)
    if flags.output:
        write_page(flags.output, table)
    failed = [row for row in rows if not row.passed]
    print(table)
    print(
        f"{len(rows) - len(failed)} of {len(rows)} items within bounds, measured in "
        f"{time.monotonic() - start:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
