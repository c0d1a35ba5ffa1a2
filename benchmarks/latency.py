"""Measure the latency, size and accuracy of each export of a run.

    python -m benchmarks.latency --model_dir=runs/digits [--batch_sizes=1,8,32] [--untrained]
        [--output=benchmarks/results/latency.md]

measures every format that the run was exported to, and keras.applications' network of the same name (of
EfficientNet-lite, which it lacks: the B of that number), in turns, round after round: p50, p90 and p99
in milliseconds and images per second, from uint8 pixels to probabilities. Accuracy is that on the run's
evaluation split; agreement is the share of these images whose best class is the SavedModel's. --untrained
leaves both out, for a run that was made for its size alone.

--output puts the tables into that page, replacing those of the same network and
data, and draws accuracy, latency and size (matplotlib) beside it.
"""

import dataclasses
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

import keras
import numpy as np
import tensorflow as tf

from configs.load import load_experiment
from input_pipeline.stream.pipeline import make_eval_dataset
from serving.model_card import ModelCard
from serving.network import ExportError
from serving.packages import require
from serving.predictor import FORMATS, Predictor, find_export, open_predictor
from serving.tflite import VARIANTS
from system.command import Parser, command, positives
from system.conditions import conditions
from system.errors import UsageError
from training.job import model_spec, open_source

ROUNDS = 5
WARMUP_CALLS = 3
LEAST_CALLS = 4  # in a round
ROWS_AT_A_TIME = 32  # when accuracy is measured

FromPixels = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An export or model to time: its name, its size on disk, and its function."""

    name: str
    size_bytes: int
    from_pixels: FromPixels
    is_trained: bool = True


@dataclasses.dataclass(frozen=True)
class Quality:
    """Shares of the evaluation images whose best class is correct, and equal to the SavedModel's."""

    top_1: float
    agreement: float


@dataclasses.dataclass(frozen=True)
class Timing:
    """Milliseconds per call by quantile, and images per second over all calls."""

    calls: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_second: float


@dataclasses.dataclass(frozen=True)
class ExportRow:
    """All figures of one candidate; timings by batch size."""

    candidate: Candidate
    quality: Quality | None
    timings: dict[int, Timing]


@command("benchmarks.latency")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(arguments)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        require("matplotlib", "the plot of --output", "requirements-test.txt")
    first = open_predictor(find_export(args.model_dir))
    images, labels = evaluation_images(args.model_dir, first)
    known = None if args.untrained else labels
    rows = measure_all(
        args.model_dir, first, images, known, sorted(set(args.batch_sizes)), args.seconds
    )
    card = first.card
    title = f"{card.name}, {card.preprocessing.image_size} px, {card.data['name']}"
    command = shlex.join(["python", "-m", "benchmarks.latency", *arguments])
    head = [f"## {title}\n", f"    {command}\n", f"{conditions('keras')}.\n"]
    section = "\n".join([*head, *_summary(rows, len(images), card), *_details(rows)])
    print(section)
    if args.output:
        name = title.replace(", ", "_").replace(" ", "")
        plot = args.output.with_name(f"{args.output.stem}_{name}.png")
        draw(rows, title, plot)
        put_section(args.output, title, f"{section}\n![{title}]({plot.name})\n")
    return 0


INTRODUCTION = """# Size, accuracy and latency of what a run is exported to

One network, in each format that `python main.py --mode=export` writes; `python -m benchmarks.latency`
measured them all in one process, in turns, round after round. Above each table are its command, the date,
the commit and the machine with its load of the last minute, the measurement's own threads among it. Where
that is above the number of cores, other work ran shortly before or beside: only rows of one table can be
compared. What is compared:

- `saved_model`: for TensorFlow Serving, or TensorFlow itself.
- `tflite`: for phones; weights of 32 bits, of 16 (`float16`), of 8 with sums in floats (`dynamic_range`), or
  everything in 8-bit integers (`int8`). It takes one image at a time: a batch is a loop here.
- `onnx`: for ONNX runtimes.
- `keras.applications`: the network of that name there, with random weights; only its speed is of interest.

| column | meaning |
|---|---|
| MB | size on disk, in millions of bytes; of keras.applications, that of its weights |
| top-1 | share of the evaluation images whose best class is the right one |
| agreement | share of the same images whose best class is the SavedModel's, right or wrong |
| ms | from uint8 pixels to probabilities, a whole batch; p50 is the median |
| images/s | images of all calls / their time |
"""


def put_section(page: Path, title: str, section: str) -> None:
    """Rewrite the page with `section` replacing the one of that title, or appended."""
    begin, end = f"<!-- {title}: begin -->\n", f"<!-- {title}: end -->\n"
    text = page.read_text() if page.exists() else ""
    start = text.find("<!-- ")
    before, found, rest = (text[start:] if start >= 0 else "").partition(begin)
    after = rest.partition(end)[2]
    gap = "\n" if before and not found else ""
    page.write_text(f"{INTRODUCTION}\n{before}{gap}{begin}{section}{end}{after}")


def _summary(rows: Sequence[ExportRow], images: int, card: ModelCard) -> list[str]:
    """Render the table that compares the formats, one row each."""
    batches = list(rows[0].timings)
    measured = any(row.quality for row in rows)
    shares = ["top-1", "agreement"] if measured else []
    speeds = [f"images/s, batch {batch}" for batch in batches]
    seen = card.step * card.recipe["train"]["global_batch_size"]
    if measured:
        note = f"Trained on {seen:,} images, repeated ones counted; {images:,} to evaluate.\n"
    else:
        note = (
            f"A network of {seen:,} training images, made for its size alone: it has no accuracy "
            f"to speak of. It is timed on {images:,} real images.\n"
        )
    lines = [note, *_head(["what", "MB", *shares, f"ms, batch {batches[0]}", *speeds])]
    for row in rows:
        cells = [row.candidate.name, f"{row.candidate.size_bytes / 1e6:.2f}"]
        if row.quality:
            cells += [f"{row.quality.top_1:.2%}", f"{row.quality.agreement:.2%}"]
        else:
            cells += [""] * len(shares)
        cells.append(f"{row.timings[batches[0]].p50_ms:.2f}")
        cells += [f"{row.timings[batch].images_per_second:.1f}" for batch in batches]
        lines.append(_line(cells))
    return [*lines, ""]


def _details(rows: Sequence[ExportRow]) -> list[str]:
    """Render the table of all times, one row for each candidate and batch size."""
    lines = _head(["what", "batch", "calls", "p50 ms", "p90 ms", "p99 ms", "images/s"])
    for row in rows:
        for batch, timing in row.timings.items():
            times = [f"{ms:.2f}" for ms in (timing.p50_ms, timing.p90_ms, timing.p99_ms)]
            speed = f"{timing.images_per_second:.1f}"
            lines.append(_line([row.candidate.name, str(batch), str(timing.calls), *times, speed]))
    return [*lines, ""]


def _head(names: Sequence[str]) -> list[str]:
    return [_line(names), "|---|" + "---:|" * (len(names) - 1)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def draw(rows: Sequence[ExportRow], title: str, path: Path) -> None:
    """Plot accuracy, or without it size on disk, over the median time at the smallest batch, as a PNG.

    With accuracy, a point's area is the size on disk.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    measured = any(row.quality for row in rows)
    figure, axes = pyplot.subplots(figsize=(9, 4.5), dpi=110)
    for number, row in enumerate(rows):
        batch, timing = min(row.timings.items())
        megabytes = row.candidate.size_bytes / 1e6
        label = f"{row.candidate.name}: {timing.p50_ms:.2f} ms, {megabytes:.1f} MB"
        if measured and not row.quality:
            axes.axvline(timing.p50_ms, color="grey", linestyle=":", label=label)
            continue
        height = 100 * row.quality.top_1 if row.quality else megabytes
        area = 20 * megabytes if measured else 80
        axes.scatter(timing.p50_ms, height, s=area, color=f"C{number}", alpha=0.6, label=label)
    what = "top-1, % (area of a point: size on disk)" if measured else "size on disk, MB"
    axes.set(
        title=title, xlabel=f"median time of a batch of {batch}, ms", ylabel=what, xscale="log"
    )
    if not measured:
        axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), markerscale=0.4)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def measure_all(
    model_dir: str,
    first: Predictor,
    images: np.ndarray,
    labels: np.ndarray | None,
    batch_sizes: Sequence[int],
    seconds: float,
) -> list[ExportRow]:
    """Measure the quality of every candidate, then time them in turns.

    Args:
      model_dir: of the run.
      first: the predictor that agreement is measured against.
      images: uint8 [n, S, S, 3].
      labels: int [n]; None leaves quality out.
      batch_sizes: each is timed.
      seconds: least time that each candidate is called for at each batch size.
    """
    contestants = list(candidates(model_dir, first))
    reference = None if labels is None else best_classes(first.from_pixels, images)
    rows = []
    for candidate in contestants:
        quality = None
        if candidate.is_trained and labels is not None:
            found = best_classes(candidate.from_pixels, images)
            quality = Quality(float(np.mean(found == labels)), float(np.mean(found == reference)))
        rows.append(ExportRow(candidate, quality, {}))
    for batch in batch_sizes:
        pixels = np.resize(images, (batch, *images.shape[1:]))
        functions = [candidate.from_pixels for candidate in contestants]
        for row, timing in zip(rows, measure_in_turns(functions, pixels, seconds), strict=True):
            row.timings[batch] = timing
            print(f"batch {batch}: {row.candidate.name} {timing.p50_ms:.2f} ms", file=sys.stderr)
    return rows


def candidates(model_dir: str, first: Predictor) -> Iterator[Candidate]:
    """Yield every export of a run that opens here; print the others to stderr."""
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
    """Call each for `seconds` in all, spread over ROUNDS, after WARMUP_CALLS uncounted ones."""
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
    return Timing(len(calls), p50, p90, p99, images * len(calls) / sum(calls))


def best_classes(from_pixels: FromPixels, images: np.ndarray) -> np.ndarray:
    """Compute the most probable class of each image, int [n]."""
    starts = range(0, len(images), ROWS_AT_A_TIME)
    rows = [from_pixels(images[start : start + ROWS_AT_A_TIME]) for start in starts]
    return np.concatenate(rows).argmax(axis=1)


def evaluation_images(model_dir: str, predictor: Predictor) -> tuple[np.ndarray, np.ndarray]:
    """Read all images of the run's evaluation split, uint8 [n, S, S, 3], and their labels, int [n]."""
    experiment = load_experiment(os.path.join(model_dir, "experiment.yaml"))
    source = open_source(experiment, model_spec(experiment))
    view = predictor.card.preprocessing.view()
    if source.target.batch_spec(1, view)["label"].shape.rank != 1:
        raise UsageError(
            f"{model_dir}: accuracy needs one label for each image, and this run has others; "
            "use --untrained"
        )
    dataset = make_eval_dataset(
        source,
        view,
        experiment.data.eval_split,
        host_batch_size=ROWS_AT_A_TIME,
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
    """Yield keras.applications' network of the same name with random weights, to compare its time.

    keras.applications lacks EfficientNet-lite; the nearest is the B of that number.
    """
    number = re.fullmatch(r"efficientnet-(?:b|lite)(\d)", first.card.name)
    name = f"EfficientNetB{number[1]}" if number else ""
    build: Any = getattr(keras.applications, name, None)
    if build is None:
        return
    shape = first.card.preprocessing.view().pixels
    model = build(weights=None, classes=len(first.card.class_names), input_shape=tuple(shape))
    call = tf.function(lambda pixels: model(pixels, training=False), reduce_retracing=True)

    def from_pixels(pixels: np.ndarray) -> np.ndarray:
        return call(tf.constant(pixels, tf.float32)).numpy()

    size = 4 * model.count_params()
    yield Candidate(f"keras.applications {name}", size, from_pixels, is_trained=False)


def _parser() -> Parser:
    parser = Parser("benchmarks.latency", __doc__)
    parser.add_argument("--model_dir", required=True, help="folder of the run, with exports")
    parser.add_argument(
        "--batch_sizes", type=positives, default=(1, 8, 32), help="whole numbers, such as 1,8,32"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="least time of a measurement")
    parser.add_argument("--untrained", action="store_true", help="leave accuracy out")
    parser.add_argument("--output", type=Path, help="also put the tables into this page")
    return parser


if __name__ == "__main__":
    sys.exit(main())
