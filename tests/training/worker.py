"""One of several processes that train together; TF_CONFIG says which. Run by test_multi_worker.py.

    python -m tests.training.worker STEPS GLOBAL_BATCH_SIZE FILE

trains the tiny network and writes what the chief holds at the end to FILE.
"""

import sys

import numpy as np

from tests.training import tiny
from training.devices.distribution import connect


def main(steps: str, global_batch_size: str, file: str) -> None:
    distribution = connect("multi_worker")
    batch = int(global_batch_size)
    training = tiny.start(distribution, global_batch_size=batch)
    metrics = training.run(tiny.Batches.random(int(steps), batch))
    arrays = training.state.to_arrays()
    print(distribution.description, distribution.is_chief, metrics["loss"])
    if distribution.is_chief:
        np.savez(file, **arrays, **{f"metrics/{name}": row for name, row in metrics.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
