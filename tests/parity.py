"""Hold sections of the parity table to their bounds, and the golden arrays to the table."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from proofs.parity_row import ParityRow

Section = Callable[[Path], Iterable[ParityRow]]


class Recorded:
    """An archive of arrays that notes which of them are read."""

    def __init__(self, archive: Any, read: set[str]) -> None:
        self.files = archive.files
        self._archive = archive
        self._read = read

    def __getitem__(self, key: str) -> np.ndarray:
        self._read.add(key)
        return self._archive[key]


class Reads:
    """The arrays of each archive that the sections measured so far have read."""

    def __init__(self, goldens: Path) -> None:
        self.goldens = goldens
        self._load = np.load
        self._read: dict[str, set[str]] = {}
        self._measured: set[Section] = set()

    def load(self, path: Path) -> Recorded:
        """Stand in for numpy.load."""
        return Recorded(self._load(path), self._read.setdefault(path.name, set()))

    def check_section(self, section: Section, num_rows: int) -> None:
        """Assert that a section has this many rows and that each is within its bound."""
        self._measured.add(section)
        rows = list(section(self.goldens))
        assert len(rows) == num_rows
        for row in rows:
            assert row.passed, row

    def check_arrays(
        self, archives: str, sections: Mapping[Section, int], left_out: Iterable[str]
    ) -> None:
        """Assert that the sections read every array of the archives, or that a pattern leaves it out.

        Args:
          archives: pattern of the archives' file names.
          sections: every section that reads them, and the number of its rows.
          left_out: regular expressions of whole `archive/array` names; each has to leave out an array.
        """
        for section in sections.keys() - self._measured:
            self.check_section(section, sections[section])
        unread = {
            f"{path.stem}/{name}"
            for path in self.goldens.glob(archives)
            for name in set(self._load(path).files) - self._read.get(path.name, set())
        }
        found = {pattern: {x for x in unread if re.fullmatch(pattern, x)} for pattern in left_out}
        assert sorted(unread.difference(*found.values())) == []
        assert [pattern for pattern, names in found.items() if not names] == []
