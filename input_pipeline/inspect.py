"""Inspect a data set, and show what training makes of its images.

  python -m input_pipeline.inspect --data_dir=DIR [--source=tfrecord] [--examples=1000]

prints counts, class balance, image sizes and label range, decodes images, and draws a contact sheet:
originals next to the network's input in the first epochs, with class names. Exits with 1 when an
image or a record is broken.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

import numpy as np
import tensorflow as tf

from input_pipeline.augment import POLICIES, get_augment
from input_pipeline.errors import DatasetError, plain_message
from input_pipeline.images.framing import TRAIN_FRAMINGS, Squash
from input_pipeline.images.view import EvalView, TrainView
from input_pipeline.sources import Examples, IndexedExamples, Source, get_source
from input_pipeline.sources.dataset_info import FILE_NAME, DatasetInfo, ShardInfo
from input_pipeline.stream.decode import LOST, no_image
from input_pipeline.stream.order import indexed_once, sharded_once, sharded_sample
from input_pipeline.stream.pipeline import resident, show_train, train_rows
from input_pipeline.targets import TARGET_HELP, parse_target
from input_pipeline.targets.target import Features
from system import files
from system.command import Namespace, Parser, command, natural, positive

QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
TILE = 160  # pixels of a picture on the contact sheet
CAPTION = 16  # pixels of the line below a row
EPOCHS_SHOWN = 4
FAILURES_SHOWN = 10
ANY_VIEW = EvalView(32, Squash())  # labels are checked against any part of their image


@dataclass(frozen=True)
class ExampleView:
    """Properties of one example; `problem` is "" when its image decodes."""

    place: str  # file and number
    labels: tuple[int, ...] = ()  # as written
    height: int = 0
    width: int = 0
    num_bytes: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Survey:
    """Statistics of a number of examples of a split."""

    num_examples: int  # with the broken ones
    label_range: tuple[int, int]  # as written
    class_counts: dict[int, int]  # by label as written
    sizes: dict[str, list[int]]  # quantiles of height, width and encoded bytes
    failures: list[tuple[str, str]]  # (file and number, reason)


def survey(
    source: Source, split: str, *, data_dir: str | None = None, limit: int = 0, workers: int = 4
) -> Survey:
    """Read and decode examples of a split.

    Args:
      source: data set to inspect.
      split: one of its splits.
      data_dir: folder of the data, or a list in it; files are named by their paths in this folder. None: by
        their full paths.
      limit: approximate number of examples to decode, spread over the split; 0: all.
      workers: threads.
    """
    examples, folder = source.examples(split), _folder(data_dir)
    views = list(
        _parallel(
            lambda row: _view_example(source, examples, row, folder),
            _rows(examples, limit),
            workers,
        )
    )
    sound = [view for view in views if not view.problem]
    counts = Counter(label for view in sound for label in view.labels)
    columns = {
        "height": [view.height for view in sound],
        "width": [view.width for view in sound],
        "bytes": [view.num_bytes for view in sound],
    }
    return Survey(
        num_examples=len(views),
        label_range=(min(counts, default=0), max(counts, default=0)),
        class_counts=dict(sorted(counts.items())),
        sizes={
            name: [int(value) for value in np.quantile(values, QUANTILES, method="nearest")]
            for name, values in columns.items()
            if values
        },
        failures=[(view.place, view.problem) for view in views if view.problem],
    )


def contact_sheet(
    source: Source,
    *,
    view: TrainView,
    num_images: int,
    seed: int = 0,
    data_dir: str | None = None,
) -> np.ndarray:
    """Draw the first training images, and the network's input from them in the first epochs.

    Args:
      source: its split "train" is drawn.
      view: as for make_train_dataset, which gives the same pixels; pictures are scaled to TILE pixels.
      num_images: rows of the sheet.
      seed: of the run.
      data_dir: as for `survey`.

    Returns:
      uint8 [height, width, 3].
    """
    from PIL import Image, ImageDraw

    examples, folder = resident(source.examples("train"), "fail"), _folder(data_dir)
    rows = train_rows(examples, seed=seed, host_batch_size=num_images, shuffle_buffer_mib=16.0)
    width, height = (1 + EPOCHS_SHOWN) * TILE, TILE + CAPTION
    sheet = Image.new("RGB", (width, num_images * height), "white")
    draw = ImageDraw.Draw(sheet)
    info = source.info
    for number, row in enumerate(rows.take(num_images)):
        encoded, features = _read(examples, row)
        original = tf.io.decode_image(encoded, channels=3, expand_animations=False).numpy()
        value, _ = _check(source, features)
        pictures = [original]
        for epoch in range(EPOCHS_SHOWN):
            row = {**row, "epoch": tf.constant(epoch, tf.int64)}
            shown = show_train(encoded, row, view, seed=seed)
            labels = source.target.place(value, shown.seen)[0]
            drawn = {name: part.numpy() for name, part in labels.items()}
            image = view.finish(shown.framed)["image"].numpy()
            pictures.append(source.target.draw(image, drawn, info.shown_names))
        for column, picture in enumerate(pictures):
            tile = _fit(Image.fromarray(picture))
            left, top = column * TILE, number * height
            sheet.paste(tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2))
        names = ", ".join(_class_name(info, label) for label in source.target.labels(features))
        caption = f"{names}  {_place(examples, row, folder)}"
        draw.text((2, number * height + TILE + 2), caption, fill="black")
    return np.asarray(sheet)


def check_checksums(source: Source, data_dir: str, workers: int = 4) -> list[tuple[str, str]]:
    """Return (file, reason) of the files that do not match their checksum in dataset_info.json."""
    shards = [shard for split in source.info.splits.values() for shard in split.shards]

    def check(shard: ShardInfo) -> tuple[str, str]:
        if shard.checksum is None:
            return shard.file, f"no checksum in {FILE_NAME}"
        found = f"sha256:{files.fingerprint(os.path.join(data_dir, shard.file))['sha256']}"
        return (
            shard.file,
            "" if found == shard.checksum else f"its SHA-256 differs from {FILE_NAME}",
        )

    return [(file, reason) for file, reason in _parallel(check, shards, workers) if reason]


def _rows(examples: Examples, limit: int) -> Iterable[dict[str, tf.Tensor]]:
    """Return every example, or about `limit` of them spread over the split."""
    if isinstance(examples, IndexedExamples):
        step = max(1, examples.num_examples // limit) if limit else 1
        return indexed_once(examples.num_examples).shard(step, 0).take(limit or -1)
    if limit:
        return sharded_sample(examples, limit)
    return sharded_once(examples, skip_damage=True)


def _view_example(
    source: Source, examples: Examples, row: dict[str, tf.Tensor], folder: str | None
) -> ExampleView:
    place = _place(examples, row, folder)
    if "record" in row and not row["record"].numpy():
        return ExampleView(place, problem=LOST)
    try:
        encoded, features = _read(examples, row)
        if not encoded.numpy():
            return ExampleView(place, problem=no_image(examples))
        value, problem = _check(source, features)
        if problem != "":
            return ExampleView(place, problem=problem.numpy().decode())
        shape = tf.io.decode_image(encoded, channels=3, expand_animations=False).shape
        _, problem = source.target.place(value, ANY_VIEW.show(encoded).seen)
        if problem != "":
            return ExampleView(place, problem=problem.numpy().decode())
    except tf.errors.OpError as error:
        return ExampleView(place, problem=plain_message(error.message))
    labels = tuple(source.target.labels(features))
    return ExampleView(place, labels, shape[0], shape[1], len(encoded.numpy()))


def _check(source: Source, features: Features) -> tuple[Features, tf.Tensor]:
    info = source.info
    return source.target.check(
        features, num_classes=info.num_classes, label_offset=info.label_offset
    )


def _read(examples: Examples, row: dict[str, tf.Tensor]) -> tuple[tf.Tensor, Features]:
    if isinstance(examples, IndexedExamples):
        return examples.read(row["index"])
    return examples.parse(row["record"])


def _place(examples: Examples, row: dict[str, tf.Tensor], folder: str | None) -> str:
    indexed = isinstance(examples, IndexedExamples)
    file = examples.file(row["index"]) if indexed else row["file"]  # type: ignore[union-attr]
    return f"{_below(file.numpy().decode(), folder)}, example {int(row['index'])}"


def _folder(data_dir: str | None) -> str | None:
    """Return the folder of the data, where `data_dir` may be a list in it."""
    if data_dir is None or tf.io.gfile.isdir(data_dir):
        return data_dir
    return os.path.dirname(data_dir)


def _below(path: str, folder: str | None) -> str:
    """Return `path` relative to `folder` if it is in there."""
    if folder is None:
        return path
    if files.is_remote(path):
        return path.removeprefix(os.path.join(folder, ""))
    relative = os.path.relpath(path, folder)
    return path if relative.startswith(os.pardir) else relative


def _class_name(info: DatasetInfo, label: int) -> str:
    names, number = info.class_names, label - info.label_offset
    return names[number] if names and 0 <= number < len(names) else f"class {label}"


def _fit(picture: Any) -> Any:
    scale = TILE / max(picture.size)
    return picture.resize([max(1, round(side * scale)) for side in picture.size])


def _parallel(function: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """Map `function` over the items, in order; only a few items are held at a time."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Any] = []
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 4 * workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


# -- the command --------------------------------------------------------------------------------


@command("input_pipeline.inspect")
def main(argv: Sequence[str] | None = None) -> int:
    """Inspect; return the exit status: 1 when something is broken."""
    flags = _parser().parse_args(argv)
    try:
        source = get_source(
            flags.source,
            flags.data_dir,
            num_classes=flags.num_classes,
            skip_damage=True,
            target=parse_target(flags.target),
        )
        for note in source.notes:
            print(note)
        failures = _print_findings(source, flags)
        if flags.checksums:
            changed = check_checksums(source, flags.data_dir, flags.workers)
            failures += len(changed)
            _print_failures("checksums", changed)
        if flags.sheet:
            _draw(source, flags)
    except tf.errors.OpError as error:
        raise DatasetError(plain_message(str(error))) from error
    return 1 if failures else 0


def _parser() -> Parser:
    parser = Parser("input_pipeline.inspect", __doc__)
    add = parser.add_argument
    add("--data_dir", help="folder or gs:// path of the data")
    add("--source", default="tfrecord", help="kind of data (default %(default)s)")
    add("--num_classes", type=positive, help="for records without dataset_info.json")
    add("--target", default="class", help=TARGET_HELP)
    add("--examples", type=natural, default=1000, help="decoded per split; 0: all (%(default)s)")
    add("--checksums", action="store_true", help="also read every shard and compare its SHA-256")
    add("--sheet", default="contact_sheet.png", help="PNG to draw; empty: none (%(default)s)")
    add("--images", type=positive, default=12, help="rows of the sheet (%(default)s)")
    add(
        "--image_size",
        type=positive,
        default=224,
        help="pixels per side of the network's input (%(default)s)",
    )
    add("--policy", default="autoaugment", choices=sorted(POLICIES), help="(%(default)s)")
    add(
        "--framing",
        default="random_crop",
        choices=sorted(TRAIN_FRAMINGS),
        help="as augment.framing (%(default)s)",
    )
    add("--no_flip", action="store_true", help="as augment.flip=false")
    add("--seed", type=natural, default=0, help="of the run whose images are drawn (%(default)s)")
    add("--workers", type=positive, default=os.cpu_count() or 1, help="threads (%(default)s)")
    return parser


def _print_findings(source: Source, flags: Namespace) -> int:
    """Print tables of every split; return the number of broken examples."""
    print(f"{source.info.name}: {source.info.num_classes} classes")
    failures = 0
    for split in source.splits:
        found = survey(
            source,
            split,
            data_dir=flags.data_dir or None,
            limit=flags.examples,
            workers=flags.workers,
        )
        _print_split(source.info, split, found)
        _print_failures(split, found.failures)
        failures += len(found.failures)
    return failures


def _print_split(info: DatasetInfo, split: str, found: Survey) -> None:
    from rich.console import Console
    from rich.table import Table

    described = info.splits[split]
    known = described.class_counts
    counts = (
        {n + info.label_offset: count for n, count in enumerate(known)}
        if known is not None
        else {n + info.label_offset: 0 for n in range(info.num_classes)} | found.class_counts
    )
    rarest = sorted(counts, key=lambda label: (counts[label], label))
    decoded = found.num_examples - len(found.failures)
    table = Table(title=f"{split}: {described.num_examples} examples, {decoded} decoded")
    for heading in ("", *(f"{q:.0%}" for q in QUANTILES)):
        table.add_column(heading, justify="right")
    for name, values in found.sizes.items():
        table.add_row(name, *(str(value) for value in values))
    console = Console(width=100, highlight=False)
    console.print(table)
    low, high = found.label_range
    of_all = "all examples" if known is not None else "the decoded examples"
    print(
        f"labels {low}..{high}, allowed {info.label_offset}..{info.num_classes - 1 + info.label_offset}"
    )
    print(
        f"images per class, of {of_all}: {counts[rarest[0]]} to {counts[rarest[-1]]}, median "
        f"{int(np.median(list(counts.values())))}"
    )
    few = ", ".join(f"{_class_name(info, label)} ({counts[label]})" for label in rarest[:3])
    print(f"rarest: {few}")


def _print_failures(what: str, failures: Sequence[tuple[str, str]]) -> None:
    print(f"{what}: {len(failures)} broken")
    for place, reason in failures[:FAILURES_SHOWN]:
        print(f"  {place}: {reason}")
    if len(failures) > FAILURES_SHOWN:
        print(f"  and {len(failures) - FAILURES_SHOWN} more")


def _draw(source: Source, flags: Namespace) -> None:
    sheet = contact_sheet(
        source,
        view=TrainView(
            flags.image_size,
            TRAIN_FRAMINGS[flags.framing](),
            augment=get_augment(flags.policy),
            flip=not flags.no_flip,
        ),
        num_images=min(flags.images, source.examples("train").num_examples),
        seed=flags.seed,
        data_dir=flags.data_dir or None,
    )
    files.write_bytes(flags.sheet, tf.io.encode_png(sheet).numpy())
    print(f"{flags.sheet}: originals, then the network's input in epochs 0 to {EPOCHS_SHOWN - 1}")


if __name__ == "__main__":
    sys.exit(main())
