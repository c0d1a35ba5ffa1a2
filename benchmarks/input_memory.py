"""Whether the input pipeline's memory stays flat.

    python -m benchmarks.input_memory [--data_dir=DIR] [--images=20000]

reads that many training images with the settings of ImageNet (1 GiB shuffle buffer, 224 pixels,
AutoAugment) from records that hold the JPEGs of DIR (without it: crops of the
photographs that ship with scikit-learn) over and over, 2 GiB of them in a temporary folder, and prints the
resident size on the way.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from benchmarks.input_pipeline import SEED, write_records
from benchmarks.photographs import jpegs
from input_pipeline.augment import AutoAugment
from input_pipeline.stream.pipeline import make_train_dataset
from system.conditions import conditions
from system.memory import limit_malloc_arenas

RECORD_BYTES = 2 << 30  # twice the shuffle buffer
BATCH = 200
LINES = 10


def resident_mib() -> int:
    """Physical memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def main() -> int:
    """Reads and prints; 2 for a mistake in the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.input_memory", description=__doc__)
    parser.add_argument("--data_dir", type=Path, help="folder tree of JPEGs")
    parser.add_argument("--images", type=int, default=20_000, help="to read")
    flags = parser.parse_args()
    try:
        encoded, origin = jpegs(flags.data_dir)
    except ValueError as error:
        parser.exit(2, f"input_memory: {error}\n")
    limited = limit_malloc_arenas()  # as main.py does
    print(f"{len(encoded)} images: {origin}")
    print(f"{conditions()}, malloc's arenas {'limited' if limited else 'as they are'}")
    with tempfile.TemporaryDirectory() as directory:
        dataset = make_train_dataset(
            write_records(encoded, directory, RECORD_BYTES),
            image_size=224,
            host_batch_size=BATCH,
            seed=SEED,
            augment=AutoAugment(),
        )
        print(f"{'images':>8} {'MiB':>6}\n{0:>8} {resident_mib():>6}")
        batches = max(1, flags.images // BATCH)
        for number, _ in enumerate(dataset.take(batches), start=1):
            if number % max(1, batches // LINES) == 0:
                print(f"{number * BATCH:>8} {resident_mib():>6}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
