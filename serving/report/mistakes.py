"""Find the most confident mistakes of a run's best network, and their activation maps."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from efficientnet import endpoints, normalize_images
from input_pipeline.images.placement import height_width
from input_pipeline.stream.pipeline import Reading, make_eval_dataset
from serving.export import TrainedNetwork
from serving.heatmaps import heat_of, overlay
from serving.network import build_inference_network
from serving.saved_model import heatmap_endpoint, pixels_of
from tasks import Task
from training.job import make_task, open_source

MOST_SHOWN = 12
MOST_IMAGES = 2000  # of the evaluation split that are searched, in its order
MOST_SECONDS = 20.0  # for all of them
LARGEST_BATCH, PIXELS_OF_A_BATCH = 32, 32 * 224 * 224  # small: training still holds its memory


class Mistake(NamedTuple):
    """An example that the network got wrong.

    Attributes:
      number: index in the evaluation split, from 0.
      error: see `Task.errors`.
      pictures: uint8 [H, W, 3] each: the network's input and its Grad-CAM, or the pictures of `Task.draw`.
      caption: see `Task.caption`.
    """

    number: int
    error: float
    pictures: list[np.ndarray]
    caption: str


class Mistakes(NamedTuple):
    """The most confident of the `wrong` predictions among the first `seen` examples, most confident first."""

    worst: list[Mistake]
    wrong: int
    seen: int


class _Example(NamedTuple):
    number: int
    error: float
    columns: Mapping[str, np.ndarray]  # of the batch, without a batch dimension
    output: Any


def find_mistakes(
    network: TrainedNetwork,
    *,
    most_images: int = MOST_IMAGES,
    most_seconds: float = MOST_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Mistakes:
    """Run the network over the beginning of the evaluation split and keep the most confident mistakes.

    Args:
      network: the trained network.
      most_images: largest number of examples.
      most_seconds: time after which no further batch is processed.
      clock: returns seconds.

    Raises:
      DatasetError: the images cannot be read.
    """
    task, model = (
        make_task(network.experiment, network.info),
        build_inference_network(**network.values()),
    )
    height, width = height_width(network.view.size)
    batch_size = max(1, min(LARGEST_BATCH, PIXELS_OF_A_BATCH // (height * width)))
    mean, stddev = network.spec.mean_rgb, network.spec.stddev_rgb

    def compute(batch: Mapping[str, tf.Tensor]) -> tuple[Any, tf.Tensor]:
        images = normalize_images(pixels_of(batch, mean), mean, stddev)
        outputs = model(images, training=False)
        return outputs, task.errors(outputs, batch)

    run, begin = tf.function(compute, autograph=False), clock()
    worst: list[_Example] = []
    wrong = seen = 0
    for batch in _batches(network, batch_size, most_images):
        outputs, computed = run(batch)
        errors = computed.numpy()
        wrong += int(np.count_nonzero(errors))
        worst += _wrong_examples(batch, outputs, errors, seen)
        worst = sorted(worst, key=lambda example: -example.error)[:MOST_SHOWN]
        seen += int(np.count_nonzero(batch["mask"].numpy()))
        if clock() - begin > most_seconds:
            break
    heats = _heats(model, task, network, [example.columns for example in worst], batch_size)
    names = network.info.shown_names
    return Mistakes(
        [_show(task, e, h, names) for e, h in zip(worst, heats, strict=True)], wrong, seen
    )


def _batches(
    network: TrainedNetwork, batch_size: int, most_images: int
) -> Iterator[Mapping[str, tf.Tensor]]:
    """Return batches of the evaluation split; the last one is padded with examples whose mask is 0."""
    source = open_source(network.experiment, network.spec)
    data = network.experiment.data
    reading = Reading(on_error=data.on_error, max_error_fraction=data.max_error_fraction)
    dataset = make_eval_dataset(
        source, network.view, data.eval_split, host_batch_size=batch_size, reading=reading
    )
    return iter(dataset.take(-(-most_images // batch_size)))


def _wrong_examples(
    batch: Mapping[str, tf.Tensor], outputs: Any, errors: np.ndarray, seen: int
) -> Iterator[_Example]:
    places = np.cumsum(batch["mask"].numpy() > 0) - 1
    for row in np.flatnonzero(errors):
        yield _Example(
            seen + int(places[row]),
            float(errors[row]),
            {name: column[row].numpy() for name, column in batch.items()},
            tf.nest.map_structure(lambda x: x[row].numpy(), outputs),  # noqa: B023 - called here
        )


def _heats(
    model: keras.Model,
    task: Task,
    network: TrainedNetwork,
    examples: list[Mapping[str, np.ndarray]],
    batch_size: int,
) -> list[np.ndarray | None]:
    """Return Grad-CAM of each example, float32 [H, W]; None where the task has no evidence."""
    inside = keras.Model(
        model.input, {"outputs": model.output, "maps": endpoints(model)[heatmap_endpoint(model)]}
    )
    mean, stddev = network.spec.mean_rgb, network.spec.stddev_rgb
    heats: list[np.ndarray | None] = []
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        batch = {name: tf.stack([example[name] for example in part]) for name in part[0]}
        images = normalize_images(pixels_of(batch, mean), mean, stddev)
        with tf.GradientTape() as tape:
            tape.watch(images)
            found = inside(images, training=False)
            evidence = task.evidence(found["outputs"])
        if evidence is None:
            return [None] * len(examples)
        gradient = tape.gradient(evidence, found["maps"])
        heats += list(heat_of(found["maps"], gradient, height_width(network.view.size)).numpy())
    return heats


def _show(
    task: Task, example: _Example, heat: np.ndarray | None, names: tuple[str, ...]
) -> Mistake:
    pictures = _draw(task, example, names) if task.draws else [example.columns["image"]]
    if heat is not None:
        pictures.append(overlay(example.columns["image"], heat))
    caption = task.caption(example.output, example.columns, names)
    return Mistake(example.number, example.error, pictures, caption)


def _draw(task: Task, example: _Example, names: tuple[str, ...]) -> list[np.ndarray]:
    outputs = tf.nest.map_structure(lambda x: x[np.newaxis], example.output)
    columns = {name: column[np.newaxis] for name, column in example.columns.items()}
    return task.draw(outputs, columns, names)[0]
