"""Thin the evaluation images of the reference outputs to what fits in the repository.

    python tests/goldens/thin.py FULL/eval_preprocess.npz tests/goldens/eval_preprocess.npz

Keeps every row of the images of 64 pixels and every fourth row (0, 4, 8, ...) of the larger ones. Rows are
resized independently of one another, so what is left still covers the whole height and every column.
"""

import sys
from pathlib import Path

import numpy as np

WHOLE_UP_TO, STEP = 64, 4


def thin(source: Path, target: Path) -> None:
    """Read one .npz, write the thinned one; keys stay `IMAGE/SIZE/METHOD`."""
    with np.load(source) as archive:
        kept = {
            key: rows if len(rows) <= WHOLE_UP_TO else rows[::STEP] for key, rows in archive.items()
        }
    np.savez_compressed(target, **kept)


if __name__ == "__main__":
    thin(*map(Path, sys.argv[1:]))
