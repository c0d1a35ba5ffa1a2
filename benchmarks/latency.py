"""How long each export of a run takes, how large it is, and how right.

    python -m benchmarks.latency --model_dir=runs/digits [--batch_sizes=1,8,32]
        [--output=benchmarks/results/latency.md]

measures every format that the run was exported to, and keras.applications' network of the same name, in
turns, round after round: p50, p90 and p99 in milliseconds and images per second, from uint8 pixels to
probabilities. Accuracy is that on the run's evaluation split; agreement is the share of these images
whose best class is the SavedModel's. With --output also a plot of accuracy, latency and size
(matplotlib) is drawn beside the page.
"""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.conditions import conditions
from configs.load import load_experiment
from input_pipeline.errors import DatasetError
from input_pipeline.pipeline import make_eval_dataset
from serving.network import ExportError
from serving.packages import require
from serving.predictor import FORMATS, Predictor, find_export, open_predictor
from serving.tflite import VARIANTS
from training.assembly import model_spec, open_source

ROUNDS = 5
WARMUP_CALLS = 3
LEAST_CALLS = 4  # in a round
ROWS_AT_A_TIME = 32  # when accuracy is measured

FromPixels = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Something that answers: a name, its size on disk, and the function to time."""

    name: str
    size_bytes: int | None
    from_pixels: FromPixels
    is_trained: bool = True


@dataclasses.dataclass(frozen=True)
class Quality:
    """Shares of the evaluation images: whose best class is right, whose is the SavedModel's."""

    top_1: float
    agreement: float


@dataclasses.dataclass(frozen=True)
class Timing:
    """Milliseconds of a call by quantile, and images per second over all calls."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_second: float


@dataclasses.dataclass(frozen=True)
class Row:
    """All that was measured of one candidate; timings by batch size."""

    candidate: Candidate
    quality: Quality | None
    timings: dict[int, Timing]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the command line says: 0, or 1 when there is nothing to measure."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = _parser().parse_args(arguments)
    try:
        if args.output:
            require("matplotlib", "the plot of --output", "requirements-test.txt")
        first = open_predictor(find_export(args.model_dir))
        images, labels = evaluation_images(args.model_dir, first)
        rows = measure_all(args.model_dir, first, images, labels, args.batch_sizes, args.seconds)
    except (ExportError, DatasetError) as error:
        print(f"benchmarks.latency: {error}", file=sys.stderr)
        return 1
    title = f"{first.card.name}, {first.card.preprocessing.image_size} px, step {first.card.step}"
    page = PAGE.format(
        title=title,
        command=" ".join(["python -m benchmarks.latency", *arguments]),
        conditions=conditions("keras"),
        images=len(images),
        table="\n".join(table_lines(rows)),
    )
    print(page)
    if args.output:
        plot = args.output.with_suffix(".png")
        draw(rows, title, plot)
        args.output.write_text(f"{page}\n![accuracy and latency]({plot.name})\n")
    return 0


PAGE = """# Latency of {title}

    {command}

{conditions}.

Accuracy and agreement on {images:,} images of the evaluation split; times from uint8 pixels to
probabilities, every candidate in turn, round after round. keras.applications has random weights.

{table}
"""


def table_lines(rows: Sequence[Row]) -> list[str]:
    """The Markdown table, a line for each candidate and batch size."""
    lines = [
        "| what | MB | top-1 | agreement | batch | p50 ms | p90 ms | p99 ms | images/s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        size, quality = row.candidate.size_bytes, row.quality
        size_cell = f"{size / 1e6:.2f}" if size else ""
        shares = [f"{quality.top_1:.2%}", f"{quality.agreement:.2%}"] if quality else ["", ""]
        for batch, timing in row.timings.items():
            times = [f"{ms:.2f}" for ms in (timing.p50_ms, timing.p90_ms, timing.p99_ms)]
            speed = f"{timing.images_per_second:.1f}"
            cells = [row.candidate.name, size_cell, *shares, str(batch), *times, speed]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Accuracy over p50 at the smallest batch, a bubble's area by size on disk, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), dpi=120)
    for number, row in enumerate(rows):
        batch, timing = min(row.timings.items())
        if not row.quality or not row.candidate.size_bytes:
            axes.axvline(timing.p50_ms, color="grey", linestyle=":", label=row.candidate.name)
            continue
        megabytes = row.candidate.size_bytes / 1e6
        axes.scatter(
            timing.p50_ms,
            100 * row.quality.top_1,
            s=20 * megabytes,
            color=f"C{number}",
            alpha=0.6,
            label=f"{row.candidate.name}, {megabytes:.1f} MB",
        )
    axes.set(title=title, xlabel=f"p50, ms (batch {batch})", ylabel="top-1, %", xscale="log")
    axes.legend(fontsize=8, markerscale=0.5)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def measure_all(
    model_dir: str,
    first: Predictor,
    images: np.ndarray,
    labels: np.ndarray,
    batch_sizes: Sequence[int],
    seconds: float,
) -> list[Row]:
    """Quality of every candidate, then timings in turns; `first` is what agreement is held to."""
    contestants = list(candidates(model_dir, first))
    reference = best_classes(first.from_pixels, images)
    rows = []
    for candidate in contestants:
        quality = None
        if candidate.is_trained:
            found = best_classes(candidate.from_pixels, images)
            quality = Quality(float(np.mean(found == labels)), float(np.mean(found == reference)))
        rows.append(Row(candidate, quality, {}))
    for batch in batch_sizes:
        pixels = np.resize(images, (batch, *images.shape[1:]))
        functions = [candidate.from_pixels for candidate in contestants]
        for row, timing in zip(rows, measure_in_turns(functions, pixels, seconds), strict=True):
            row.timings[batch] = timing
            print(f"batch {batch}: {row.candidate.name} {timing.p50_ms:.2f} ms", file=sys.stderr)
    return rows


def candidates(model_dir: str, first: Predictor) -> Iterator[Candidate]:
    """Every export of a run that can be opened here; what can't is told on stderr."""
    for name in FORMATS:
        for variant in VARIANTS if name == "tflite" else ("",):
            try:
                folder = find_export(model_dir, name)
                predictor = open_predictor(folder, variant or "float32")
            except ExportError as error:
                print(f"benchmarks.latency: {name} {variant}: {error}", file=sys.stderr)
                continue
            files = predictor.card.files
            counted = [f"{variant}.tflite"] if variant else list(files)
            size = sum(files[file]["bytes"] for file in counted)
            yield Candidate(f"{name} {variant}".strip(), size, predictor.from_pixels)
    yield from _keras_applications(first)


def measure_in_turns(
    functions: Sequence[FromPixels], pixels: np.ndarray, seconds: float
) -> list[Timing]:
    """Calls each for `seconds` in all, spread over ROUNDS, after WARMUP_CALLS uncounted ones."""
    for from_pixels in functions:
        for _ in range(WARMUP_CALLS):
            from_pixels(pixels)
    calls: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        for from_pixels, own in zip(functions, calls, strict=True):
            own += _timed_calls(from_pixels, pixels, seconds / ROUNDS)
    return [_timing(own, len(pixels)) for own in calls]


def _timed_calls(from_pixels: FromPixels, pixels: np.ndarray, seconds: float) -> list[float]:
    calls: list[float] = []
    while len(calls) < LEAST_CALLS or sum(calls) < seconds:
        start = time.perf_counter()
        from_pixels(pixels)
        calls.append(time.perf_counter() - start)
    return calls


def _timing(calls: Sequence[float], images: int) -> Timing:
    p50, p90, p99 = 1e3 * np.percentile(calls, [50, 90, 99])
    return Timing(p50, p90, p99, images * len(calls) / sum(calls))


def best_classes(from_pixels: FromPixels, images: np.ndarray) -> np.ndarray:
    """Most probable class of each image, int [n]."""
    starts = range(0, len(images), ROWS_AT_A_TIME)
    rows = [from_pixels(images[start : start + ROWS_AT_A_TIME]) for start in starts]
    return np.concatenate(rows).argmax(axis=1)


def evaluation_images(model_dir: str, predictor: Predictor) -> tuple[np.ndarray, np.ndarray]:
    """All images of the run's evaluation split, uint8 [n, S, S, 3], and their labels."""
    experiment = load_experiment(os.path.join(model_dir, "experiment.yaml"))
    source = open_source(experiment, model_spec(experiment))
    how = predictor.card.preprocessing
    dataset = make_eval_dataset(
        source,
        experiment.data.eval_split,
        image_size=how.image_size,
        host_batch_size=ROWS_AT_A_TIME,
        crop_padding=how.crop_padding,
        resize=experiment.augment.resize,
    )
    rows = [
        {key: value[batch["mask"] > 0] for key, value in batch.items()}
        for batch in dataset.as_numpy_iterator()
    ]
    return (
        np.concatenate([row["image"] for row in rows]),
        np.concatenate([row["label"] for row in rows]),
    )


def _keras_applications(first: Predictor) -> Iterator[Candidate]:
    """The network of the same name there, with random weights: only its time is of interest."""
    family, _, size = first.card.name.rpartition("-")
    build: Any = getattr(keras.applications, f"EfficientNet{size.upper()}", None)
    if family != "efficientnet" or build is None:
        return
    side = first.card.preprocessing.image_size
    model = build(weights=None, classes=len(first.card.class_names), input_shape=(side, side, 3))
    call = tf.function(lambda pixels: model(pixels, training=False), reduce_retracing=True)

    def from_pixels(pixels: np.ndarray) -> np.ndarray:
        return call(tf.constant(pixels, tf.float32)).numpy()

    yield Candidate("keras.applications", None, from_pixels, is_trained=False)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"benchmarks.latency: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m benchmarks.latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model_dir", required=True, help="folder of the run, with exports")
    parser.add_argument(
        "--batch_sizes", type=_sizes, default=(1, 8, 32), help="whole numbers, as 1,8,32"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="at least, a measurement")
    parser.add_argument("--output", type=Path, help="also write the page to this file")
    return parser


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.split(","))
    if min(sizes) < 1:
        raise ValueError
    return sizes


if __name__ == "__main__":
    sys.exit(main())
