"""Decode rows into batches of images, and report or replace the rows that fail.

An error inside a dataset's map names neither file nor record, and drops the whole batch. So rows
are decoded in chunks, each in a small dataset of its own that ignores errors: a row that fails is
detected because it is missing from the output. (A dataset for each row would cost 0.25 ms an
image.) A broken row then raises an error, or is replaced by another image of its batch; the static
shape of the batch and the positions of all other rows do not change.
"""

import math
import sys
from collections.abc import Callable
from typing import Literal

import tensorflow as tf

from input_pipeline.images.view import Shown, View
from input_pipeline.sources.dataset_info import DatasetInfo
from input_pipeline.sources.source import Examples, IndexedExamples
from input_pipeline.stream.order import Row
from input_pipeline.targets.target import Features, Target

OnError = Literal["fail", "skip"]
Show = Callable[[tf.Tensor, Row], Shown]

LARGEST_CHUNK = 64
ERRORS_LOGGED = 20  # broken examples logged one by one
LOG_EVERY = 100  # after that, the total whenever it passes a multiple of this
LOST = "the record is lost: its file is truncated or damaged"
ROUNDING = 1e-9  # 0.29 * 100 is a little below 29
NO_EXAMPLE = -1  # the index of a row that is padding


def decode_batches(
    rows: tf.data.Dataset,
    info: DatasetInfo,
    target: Target,
    examples: Examples,
    show: Show,
    *,
    view: View,
    host_batch_size: int,
    num_parallel_calls: int = tf.data.AUTOTUNE,
) -> tf.data.Dataset:
    """Read, check and decode every row, and batch the results.

    Args:
      rows: dataset from order.py of a multiple of `host_batch_size` rows; index NO_EXAMPLE is padding.
      info: defines the range of allowed labels.
      target: checks and converts what a record holds beside its image.
      examples: the split that the rows come from.
      show: (bytes: string [], row) -> how `view` shows the image; it may fail.
      view: makes the network's input of an image.
      host_batch_size: rows of a batch.
      num_parallel_calls: chunks decoded at once.

    Returns:
      Dataset of {"image": uint8 [b, H, W, 3] and the other tensors of `View.finish`, "index": int32 [b],
      "problem": string [b]} and the parts of `target`. `problem` names file, example and fault of a
      broken row, and is "" for all others.
    """
    chunk, blank = _chunk_size(host_batch_size), view.blank()
    nothing = {
        name: tf.zeros(part.shape[1:], part.dtype)
        for name, part in target.batch_spec(1, view).items()
    }
    blank_row = {
        **blank,
        **nothing,
        "index": tf.constant(NO_EXAMPLE),
        "problem": tf.constant(""),
    }

    def decode_row(place: tf.Tensor, row: Row) -> Row:
        encoded, features = _read(examples, row)
        value, problem = _check_record(info, target, examples, encoded, features)
        problem = tf.cond(_is_lost(row), lambda: tf.constant(LOST), lambda: problem)

        def show_and_place() -> tuple[Row, Row, tf.Tensor]:
            framed, seen = show(encoded, row)
            found, problem = target.place(value, seen)
            return view.finish(framed), dict(found), problem

        made, found, problem = tf.cond(
            problem == "", show_and_place, lambda: (blank, nothing, problem)
        )
        return {
            **{key: tf.ensure_shape(part, blank[key].shape) for key, part in made.items()},
            **{key: tf.ensure_shape(part, nothing[key].shape) for key, part in found.items()},
            "index": tf.cast(row["index"], tf.int32),
            "problem": tf.cond(
                problem == "", lambda: problem, lambda: _name_problem(examples, row, problem)
            ),
            "place": place,
        }

    def decode_unless_padding(place: tf.Tensor, row: Row) -> Row:
        padding = {**blank_row, "place": place}
        return tf.cond(row["index"] == NO_EXAMPLE, lambda: padding, lambda: decode_row(place, row))

    def decode_chunk(rows: Row) -> Row:
        places = tf.range(chunk)
        decoded = tf.data.Dataset.from_tensor_slices((places, rows)).map(decode_unless_padding)
        blanks = tf.data.Dataset.from_tensors({**blank_row, "place": tf.constant(-1)}).repeat(chunk)
        results = decoded.ignore_errors(log_warning=True).concatenate(blanks).take(chunk)
        done = results.batch(chunk, drop_remainder=True).get_single_element()
        place = done.pop("place")
        done = tf.cond(
            tf.reduce_all(place == places),
            lambda: done,
            lambda: _with_gaps(done, place, examples, rows),
        )
        return {**done, "step": rows["step"]} if "step" in rows else done

    chunks = rows.batch(chunk, drop_remainder=True).map(
        decode_chunk, num_parallel_calls=num_parallel_calls, deterministic=True
    )
    if chunk == host_batch_size:
        return chunks  # batching a single chunk would copy it
    batches = chunks.batch(host_batch_size // chunk, drop_remainder=True)
    return batches.map(
        lambda batch: {
            key: tf.reshape(part, [host_batch_size, *part.shape[2:]]) for key, part in batch.items()
        }
    )


def padding(rows: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Return `count` rows with the types of `rows` and index NO_EXAMPLE."""

    def empty(spec: tf.TensorSpec) -> tf.Tensor:
        return tf.constant("") if spec.dtype == tf.string else tf.constant(NO_EXAMPLE, spec.dtype)

    blank = tf.nest.map_structure(empty, rows.element_spec)
    return tf.data.Dataset.from_tensors(blank).repeat(count)


def stop_at_broken(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Raise tf.errors.InvalidArgumentError with the problem of the first broken row of a batch."""

    def stop(problems: tf.Tensor) -> tf.Operation:
        first = tf.boolean_mask(problems, problems != "")[0]
        return tf.debugging.Assert(False, [first])

    def check(batch: Row) -> Row:
        checked = tf.cond(
            tf.reduce_all(batch["problem"] == ""),
            tf.no_op,
            lambda: stop(batch["problem"]),
        )
        with tf.control_dependencies([checked]):
            return tf.nest.map_structure(tf.identity, batch)

    return batches.map(check)


def count_broken(
    batches: tf.data.Dataset,
    *,
    max_error_fraction: float,
    num_examples: int,
    at_least: int = 0,
    start: int = 0,
) -> tf.data.Dataset:
    """Log broken rows, and raise an error when there are too many.

    The first ERRORS_LOGGED are logged one by one, after that the total every LOG_EVERY.

    Args:
      batches: result of decode_batches.
      max_error_fraction: fraction of `num_examples` that may be broken, rounded down. Every epoch that
        has begun adds as many, because on one host each epoch reads the same broken examples.
      num_examples: examples of an epoch on this host.
      at_least: number of broken examples that every epoch may have, however small `num_examples` is.
      start: examples of the first epoch that were read before the first batch.

    Returns:
      `batches`, which raise tf.errors.InvalidArgumentError beyond the limit.
    """
    per_epoch = max(at_least, allowed_broken(max_error_fraction, num_examples))

    def log_broken(batch: Row, before: tf.Tensor, broken: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
        problems = tf.boolean_mask(batch["problem"], batch["problem"] != "")
        singly = problems[: tf.maximum(ERRORS_LOGGED - before, 0)]
        for_each = tf.strings.reduce_join(tf.strings.join(["skipped: ", singly, "\n"]))
        counted = tf.strings.join(
            [tf.strings.as_string(broken), " of ", tf.strings.as_string(seen), " examples"]
        )
        total = tf.strings.join([counted, " skipped so far\n"])
        passed = broken // LOG_EVERY > before // LOG_EVERY
        tf.print(
            tf.strings.join([for_each, tf.where(passed, total, "")]),
            output_stream=sys.stderr,
            end="",
        )
        epochs = (start + seen - 1) // num_examples + 1
        too_many = tf.strings.join(
            [
                counted,
                f" read are broken; data.max_error_fraction={max_error_fraction:g} allows {per_epoch} of the "
                f"{num_examples} in an epoch. Repair them",
                _remedy(broken, seen, epochs, num_examples),
                "; last: ",
                problems[-1],
            ]
        )
        checked = tf.debugging.Assert(broken <= per_epoch * epochs, [too_many])
        with tf.control_dependencies([checked]):
            return tf.identity(broken)

    def count(
        state: tuple[tf.Tensor, tf.Tensor], batch: Row
    ) -> tuple[tuple[tf.Tensor, tf.Tensor], Row]:
        seen, before = state
        seen += tf.math.count_nonzero(batch["index"] != NO_EXAMPLE)
        broken = before + tf.math.count_nonzero(batch["problem"] != "")
        broken = tf.cond(
            broken > before, lambda: log_broken(batch, before, broken, seen), lambda: broken
        )
        return (seen, broken), batch

    zero = tf.constant(0, tf.int64)
    return batches.scan((zero, zero), count)


def allowed_broken(max_error_fraction: float, num_examples: int) -> int:
    """Return how many of `num_examples` may be broken."""
    return int(max_error_fraction * num_examples + ROUNDING)


def replace_broken(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Replace each broken row by the next sound row of its batch, wrapping round at the end.

    The result depends on the batch alone, so a resumed run makes the same replacements. A batch
    without a sound row raises tf.errors.InvalidArgumentError.
    """

    def replace(batch: Row) -> Row:
        sound = tf.where(batch["problem"] == "")[:, 0]
        message = tf.strings.join(
            ["every image of a batch is broken; first: ", batch["problem"][0]]
        )
        with tf.control_dependencies([tf.debugging.Assert(tf.size(sound) > 0, [message])]):
            rows = tf.range(batch["problem"].shape[0], dtype=tf.int64)
            following = tf.searchsorted(sound, rows, out_type=tf.int64) % tf.size(sound, tf.int64)
        chosen = tf.gather(sound, following)
        return {key: tf.gather(part, chosen) for key, part in batch.items()}

    def check(batch: Row) -> Row:
        fine = tf.reduce_all(batch["problem"] == "")
        return tf.cond(fine, lambda: batch, lambda: replace(batch))

    return batches.map(check)


def _remedy(broken: tf.Tensor, seen: tf.Tensor, epochs: tf.Tensor, num_examples: int) -> tf.Tensor:
    """Name a data.max_error_fraction that allows so many broken examples: string [], "" if none does."""
    each_epoch = tf.math.ceil(broken / epochs) / num_examples
    share = tf.maximum(each_epoch, broken / seen)  # the rest may be broken as often
    digit = 10.0 ** (tf.math.floor(tf.math.log(share) / math.log(10.0)) - 1.0)
    rounded = tf.math.ceil(share / digit - ROUNDING) * digit  # up, to two digits
    setting = tf.strings.join(
        [", or set data.max_error_fraction=", tf.strings.as_string(rounded, shortest=True)]
    )
    return tf.where(rounded < 1.0, setting, "")


def _chunk_size(host_batch_size: int) -> int:
    """Return the largest divisor of a batch size that is at most LARGEST_CHUNK."""
    return max(n for n in range(1, LARGEST_CHUNK + 1) if host_batch_size % n == 0)


def _read(examples: Examples, row: Row) -> tuple[tf.Tensor, Features]:
    if isinstance(examples, IndexedExamples):
        return examples.read(row["index"])
    return examples.parse(row["record"])


def _is_lost(row: Row) -> tf.Tensor:
    return _is_empty(row["record"]) if "record" in row else tf.constant(False)


def _is_empty(text: tf.Tensor) -> tf.Tensor:
    """Return whether a string is "" without comparing it, which would copy the whole image."""
    return tf.strings.length(text) == 0


def no_image(examples: Examples) -> str:
    """Describe the problem of an example whose encoded image is ""."""
    is_file = isinstance(examples, IndexedExamples) and examples.image_files
    return "the file is empty" if is_file else "feature image/encoded is missing"


def _check_record(
    info: DatasetInfo, target: Target, examples: Examples, encoded: tf.Tensor, features: Features
) -> tuple[Row, tf.Tensor]:
    """Return what the target takes of the record, and the problem, string [] ("" if there is none)."""
    row, problem = target.check(
        features, num_classes=info.num_classes, label_offset=info.label_offset
    )
    missing = tf.constant(no_image(examples))
    return dict(row), tf.cond(_is_empty(encoded), lambda: missing, lambda: problem)


def _name_problem(examples: Examples, rows: Row, problem: tf.Tensor | str) -> tf.Tensor:
    """Prefix the problem with file and number of its example, for one row or for many."""
    index = tf.maximum(rows["index"], 0)
    file = examples.file(index) if isinstance(examples, IndexedExamples) else rows["file"]
    return tf.strings.join([file, ", example ", tf.strings.as_string(index), ": ", problem])


def _with_gaps(done: Row, place: tf.Tensor, examples: Examples, rows: Row) -> Row:
    """Put the results of a chunk at their places, and mark the rows that have none as broken.

    `done` ends with as many blanks as there are gaps: a gap takes the last one.
    """
    match = tf.range(place.shape[0])[:, tf.newaxis] == place[tf.newaxis]
    found = tf.reduce_any(match, axis=1)
    position = tf.where(found, tf.argmax(match, axis=1, output_type=tf.int32), place.shape[0] - 1)
    placed = {key: tf.gather(part, position) for key, part in done.items()}
    problem = _name_problem(examples, rows, "the image cannot be read or decoded")
    placed["problem"] = tf.where(found, placed["problem"], problem)
    placed["index"] = tf.cast(rows["index"], tf.int32)
    return placed
