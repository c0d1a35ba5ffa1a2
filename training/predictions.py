"""Draw what the network answers on some images of the evaluation split: MODEL_DIR/predictions.png."""

import posixpath

import numpy as np
import tensorflow as tf

from system.files import write_bytes
from training.build import make_normalizer
from training.evaluator import weights_kind
from training.inputs import drawn_batch
from training.job import Job
from training.step.padding import network_input
from training.step.state import TrainState

FILE = "predictions.png"
IMAGES_DRAWN = 8
_GAP = 4  # white pixels between pictures


def write_predictions(job: Job, state: TrainState) -> str | None:
    """Draw the answers of the current weights, for tasks that have something to draw.

    Returns:
      Path of the picture; None if the task draws nothing.
    """
    if not job.task.draws:
        return None
    batch = drawn_batch(job, IMAGES_DRAWN)
    weights, statistics = state.read_network(weights_kind(job, state))
    images = network_input(batch, make_normalizer(job))
    outputs, _ = state.network.stateless_call(weights, statistics, images, training=False)
    real = batch["mask"].numpy() > 0
    arrays = {name: part.numpy()[real] for name, part in batch.items()}
    answers = tf.nest.map_structure(lambda x: x.numpy()[real], outputs)
    sheet = _sheet(job.task.draw(answers, arrays, job.data_info.shown_names))
    path = posixpath.join(job.model_dir, FILE)
    write_bytes(path, tf.io.encode_png(sheet).numpy())
    return path


def _sheet(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Put pictures of one size in rows: uint8 [H, W, 3]."""
    frame = [[0, _GAP], [0, _GAP], [0, 0]]
    pads = [[np.pad(picture, frame, constant_values=255) for picture in row] for row in rows]
    return np.concatenate([np.concatenate(row, axis=1) for row in pads])
