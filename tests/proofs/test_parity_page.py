"""docs/parity.md agrees with a new measurement, and the command reports a difference."""

import dataclasses
import re

import numpy as np
import pytest

from proofs import parity, parity_v1, parity_v1_networks
from proofs.page import BEGIN, END, write_page
from proofs.parity_row import ParityRow
from system.errors import UsageError

PAGE = parity.ROOT / "docs" / "parity.md"
ROW = ParityRow("section", "item", "theirs", "ours", 0.5, 1.0, "grey levels")


def measured_items(page):
    """{item: verdict} of the page's table."""
    table = page.partition(BEGIN)[2].partition(END)[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.strip().splitlines()]
    return {row[0]: row[-1] for row in rows[2:] if len(row) > 1 and row[-1]}


def test_every_item_of_the_page_was_within_its_bound():
    items = measured_items(PAGE.read_text())
    assert len(items) > 60
    assert set(items.values()) == {"ok"}


@pytest.mark.slow
def test_the_page_holds_the_items_that_are_measured(goldens):
    items = measured_items(PAGE.read_text())
    quick = (parity_v1.preprocessing_rows, parity_v1.schedule_rows, parity_v1.optimizer_rows)
    for rows in (*quick, parity_v1_networks.checkpoint_rows):
        for row in rows(goldens):
            assert row.passed, row
            assert row.item in items
    assert {re.split(r"[ ,]", item)[0] for item in items} >= set(parity_v1.AUGMENTATIONS)


def test_every_operation_of_the_goldens_is_measured(goldens):
    with np.load(goldens / "augment_ops.npz") as archive:
        stored = {key.split("/")[2] for key in archive.files if key.startswith("op/")}
    assert stored == set(parity_v1.AUGMENTATIONS)


@pytest.mark.parametrize(("measured", "passed"), [(1.0, True), (1.1, False), (np.nan, False)])
def test_a_difference_passes_up_to_its_bound(measured, passed):
    row = dataclasses.replace(ROW, measured=measured)
    assert row.passed is passed
    assert ("OUT OF BOUNDS" in parity.markdown_table([row])) is not passed


def test_an_item_out_of_bounds_fails_the_command(goldens, monkeypatch, capsys):
    rows = [ROW, dataclasses.replace(ROW, item="other", measured=2.0)]
    monkeypatch.setattr(parity, "SECTIONS", (lambda folder: iter(rows[:1]),))
    assert parity.main([f"--goldens={goldens}"]) == 0
    monkeypatch.setattr(parity, "SECTIONS", (lambda folder: iter(rows),))
    assert parity.main([f"--goldens={goldens}"]) == 1
    assert "1 of 2 items within bounds" in capsys.readouterr().out


def test_missing_goldens_are_one_line(tmp_path, capsys):
    assert parity.main([f"--goldens={tmp_path}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"proofs.parity: no outputs of the reference implementation in --goldens={tmp_path}; expected"
    )


def test_only_the_table_of_a_page_is_rewritten(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_page(page, "| new |\n")
    assert page.read_text() == f"before\n{BEGIN}\n| new |\n{END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(UsageError, match=r"page\.md needs the lines"):
        write_page(page, "| new |\n")
