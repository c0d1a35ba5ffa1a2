"""Measure whether the input pipeline's memory stays constant.

    python -m benchmarks.input_memory [--data_dir=DIR] [--images=20000]

reads that many training images with the settings of ImageNet (1 GiB shuffle buffer, 224 pixels,
AutoAugment) from records that hold the JPEGs of DIR (without it: crops of the
photographs that ship with scikit-learn) over and over, 2 GiB of them in a temporary folder, and prints the
resident size as it goes.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

from benchmarks.input_pipeline import SEED, write_records
from benchmarks.photographs import jpegs
from input_pipeline.augment import AutoAugment
from input_pipeline.images.view import TrainView
from input_pipeline.stream.pipeline import make_train_dataset
from system.command import Parser, command, positive
from system.conditions import conditions
from system.memory import limit_malloc_arenas, resident_memory_bytes

RECORD_BYTES = 2 << 30  # twice the shuffle buffer
BATCH = 200
LINES = 10


@command("benchmarks.input_memory")
def main(argv: Sequence[str] | None = None) -> int:
    """Read and print; return the exit status."""
    parser = Parser("benchmarks.input_memory", __doc__)
    parser.add_argument("--data_dir", type=Path, help="folder tree of JPEGs")
    parser.add_argument("--images", type=positive, default=20_000, help="to read")
    flags = parser.parse_args(argv)
    encoded, origin = jpegs(flags.data_dir)
    limited = limit_malloc_arenas()  # as main.py does
    print(f"{len(encoded)} images: {origin}")
    print(f"{conditions()}, malloc arenas {'limited' if limited else 'not limited'}")
    with tempfile.TemporaryDirectory() as directory:
        dataset = make_train_dataset(
            write_records(encoded, directory, RECORD_BYTES),
            TrainView(224, augment=AutoAugment()),
            host_batch_size=BATCH,
            seed=SEED,
        )
        print(f"{'images':>8} {'MiB':>6}\n{0:>8} {resident_memory_bytes() >> 20:>6}")
        batches = max(1, flags.images // BATCH)
        for number, _ in enumerate(dataset.take(batches), start=1):
            if number % max(1, batches // LINES) == 0:
                print(f"{number * BATCH:>8} {resident_memory_bytes() >> 20:>6}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
