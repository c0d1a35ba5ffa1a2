"""Write sharded TFRecords, in parallel and resumable shard by shard.

The seed alone decides which image is in which shard. PROGRESS_FOLDER in the output holds the plan and a
report per finished shard; dataset_info.json is written once all shards of both splits are there.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DatasetError
from input_pipeline.images.check import BrokenImageError, check_image
from input_pipeline.prepare.contents import Content, Pair
from input_pipeline.sources.dataset_info import (
    FILE_NAME,
    RECORD_OVERHEAD_BYTES,
    DatasetInfo,
    ShardInfo,
    SplitInfo,
    write_dataset_info,
)
from input_pipeline.sources.record_index import write_offsets
from input_pipeline.sources.records import serialize_features, write_shard
from system import files

REPORT_NAME = "prepare_report.json"
PROGRESS_FOLDER = ".prepare"  # in the output: the plan, and one JSON per finished shard
PLAN_NAME = "plan"
MOST_SHARDS = {"train": 1024, "validation": 128}  # as ImageNet is published
IMAGES_PER_SHARD = {"train": 1250, "validation": 390}
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class Shard:
    """One record file to be written: its name, and the images in their order."""

    split: str
    file: str
    images: tuple[Pair, ...]


@dataclass(frozen=True)
class ShardReport:
    """Content of a finished shard; saved in the progress folder, so that it is not written twice."""

    file: str
    num_examples: int
    num_bytes: int
    checksum: str
    labels: list[int]  # classes of all images, from 0
    heights: list[int]
    widths: list[int]
    encoded_bytes: list[int]
    starts: list[int]  # byte at which each record starts
    converted: list[tuple[str, str]]  # (image, conversion)
    rejected: list[tuple[str, str]]  # (image, reason)
    dropped: list[tuple[str, str]] = field(default_factory=list)  # (image, what of it and why)


def plan_shards(content: Content, *, seed: int, num_shards: dict[str, int | None]) -> list[Shard]:
    """Distribute the images of each split over shards, in an order that depends on `seed` alone."""
    shards = []
    for split in ("train", "validation"):
        members = content.splits.get(split, ())
        if not members:
            continue
        total = num_shards.get(split) or default_shards(split, len(members))
        if total > len(members):
            raise DatasetError(
                f"{total} {split} shards for {len(members)} images; expected at most one shard per image"
            )
        order = np.random.default_rng([seed, split == "validation"]).permutation(len(members))
        bounds = [len(members) * n // total for n in range(total + 1)]
        for n in range(total):
            chosen = tuple(members[place] for place in order[bounds[n] : bounds[n + 1]])
            shards.append(Shard(split, f"{split}-{n:05d}-of-{total:05d}", chosen))
    return shards


def default_shards(split: str, num_images: int) -> int:
    """Return a number of shards of about 1250 training or 390 validation images; for ImageNet 1024, 128."""
    return min(MOST_SHARDS[split], -(-num_images // IMAGES_PER_SHARD[split]))


def plan_digest(content: Content, shards: Sequence[Shard], keep_png: bool) -> str:
    """Return a SHA-256 that changes with anything that would change a shard."""
    digest = hashlib.sha256(json.dumps([list(content.class_names), keep_png]).encode())
    for shard in shards:
        digest.update(shard.file.encode())
        for image, beside in shard.images:
            digest.update(f"{image.name}\0{content.digest(beside)}\0{image.size}\n".encode())
    return digest.hexdigest()


def make_shard(
    shard: Shard, content: Content, output: str, *, keep_png: bool = False
) -> ShardReport:
    """Write one record file and its report, each atomically."""
    labels: list[int] = []
    sizes: list[tuple[int, int, int]] = []
    ends = [0]
    converted: list[tuple[str, str]] = []
    rejected: list[tuple[str, str]] = []
    dropped: list[tuple[str, str]] = []

    def examples() -> Iterator[bytes]:
        for image, beside in shard.images:
            try:
                checked = check_image(image.read(), keep_png=keep_png)
                written = content.features(image, checked, beside)
            except (BrokenImageError, OSError) as error:
                rejected.append((image.name, str(error)))
                continue
            if checked.change:
                converted.append((image.name, checked.change))
            dropped.extend((image.name, each) for each in written.dropped)
            labels.extend(written.classes)
            sizes.append((checked.height, checked.width, len(checked.encoded)))
            record = serialize_features(written.features)
            ends.append(ends[-1] + RECORD_OVERHEAD_BYTES + len(record))
            yield record

    path = os.path.join(output, shard.file)
    file = _write_and_hash(path, examples())
    report = ShardReport(
        file=shard.file,
        num_examples=len(sizes),
        num_bytes=file["bytes"],
        checksum=f"sha256:{file['sha256']}",
        labels=labels,
        heights=[height for height, _, _ in sizes],
        widths=[width for _, width, _ in sizes],
        encoded_bytes=[size for _, _, size in sizes],
        starts=ends[:-1],
        converted=converted,
        rejected=rejected,
        dropped=dropped,
    )
    files.write_text(_report_path(output, shard.file), json.dumps(asdict(report)))
    return report


def finished_report(output: str, shard: Shard) -> ShardReport | None:
    """Return the report of a shard that is already written, or None."""
    try:
        with tf.io.gfile.GFile(_report_path(output, shard.file), "r") as file:
            report = ShardReport(**json.loads(file.read()))
        size = tf.io.gfile.stat(os.path.join(output, shard.file)).length
    except (tf.errors.NotFoundError, json.JSONDecodeError, TypeError):
        return None
    return report if size == report.num_bytes else None


def reserve_output(output: str, plan: str) -> None:
    """Reserve `output` for this plan.

    Raises:
      DatasetError: it holds a data set already, or a part of one written by another plan.
    """
    path = os.path.join(output, PROGRESS_FOLDER, PLAN_NAME)
    if tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path, "r") as file:
            if file.read() != plan:
                raise DatasetError(
                    f"{output}: started with other images or options; use the same ones, or another "
                    "--output"
                )
    elif tf.io.gfile.exists(os.path.join(output, FILE_NAME)):
        raise DatasetError(f"{output}: already holds a data set; use another --output")
    else:
        tf.io.gfile.makedirs(os.path.dirname(path))
        files.write_text(path, plan)


def describe(
    content: Content, shards: Sequence[Shard], reports: Sequence[ShardReport], name: str
) -> DatasetInfo:
    """Return the content of dataset_info.json: counts, classes, sizes and checksums of all shards."""
    splits = {}
    for split in dict.fromkeys(shard.split for shard in shards):
        parts = [
            report for shard, report in zip(shards, reports, strict=True) if shard.split == split
        ]
        labels = np.concatenate([np.array(part.labels, np.int64) for part in parts])
        counts = np.bincount(labels, minlength=len(content.class_names))
        splits[split] = SplitInfo(
            num_examples=sum(part.num_examples for part in parts),
            shards=tuple(
                ShardInfo(part.file, part.num_examples, part.num_bytes, part.checksum)
                for part in parts
            ),
            class_counts=tuple(int(count) for count in counts),
            image_sizes=_quantiles(parts),
        )
    names = content.class_names
    return DatasetInfo(name, len(names), names, splits, content.label_offset)


def prepare(
    content: Content,
    output: str,
    *,
    name: str,
    seed: int = 0,
    num_shards: dict[str, int | None] | None = None,
    shard_range: tuple[int, int] | None = None,
    keep_png: bool = False,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[DatasetInfo | None, list[ShardReport]]:
    """Write the shards that are missing.

    Args:
      content: what to write.
      output: folder or gs:// path.
      name: of the data set.
      seed: decides which image is in which shard.
      num_shards: by split; None or missing: default_shards.
      shard_range: [first, last) of all shards, those of training first; None: all.
      keep_png: leave PNGs as they are.
      workers: threads; each writes one shard at a time.
      on_progress: called with (images done, images in all) after every shard.

    Returns:
      The description (None while shards of other ranges are missing), and the reports of the shards
      written so far.

    Raises:
      DatasetError: the output holds another data set, or no image can be read.
    """
    shards = plan_shards(content, seed=seed, num_shards=num_shards or {})
    first, last = shard_range or (0, len(shards))
    if not 0 <= first < last <= len(shards):
        raise DatasetError(
            f"--shard_range={first}:{last} is out of range; expected a part of 0:{len(shards)}"
        )
    reserve_output(output, plan_digest(content, shards, keep_png))
    finished = {shard.file: finished_report(output, shard) for shard in shards}
    mine = shards[first:last]
    total = sum(len(shard.images) for shard in mine)
    done = sum(len(shard.images) for shard in mine if finished[shard.file])
    missing = [shard for shard in mine if not finished[shard.file]]
    if on_progress:
        on_progress(done, total)
    with ThreadPoolExecutor(workers) as pool:
        futures = {
            pool.submit(make_shard, shard, content, output, keep_png=keep_png): shard
            for shard in missing
        }
        try:
            for future in as_completed(futures):
                shard = futures[future]
                finished[shard.file] = future.result()
                done += len(shard.images)
                if on_progress:
                    on_progress(done, total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    there = [
        report
        for shard in shards
        if (report := finished[shard.file] or finished_report(output, shard)) is not None
    ]
    if len(there) < len(shards):
        return None, there
    info = describe(content, shards, there, name)
    _write_report(output, there)
    write_offsets(output, {part.file: part.starts for part in there})
    write_dataset_info(info, output)
    return info, there


def _write_and_hash(path: str, examples: Iterable[bytes]) -> files.Fingerprint:
    """Write a record file, a remote one through the local disk; return its size and SHA-256."""
    if not files.is_remote(path):
        write_shard(path, examples)
        return files.fingerprint(path)
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, "shard")
        write_shard(local, examples)
        with files.replacing(path) as temporary:
            tf.io.gfile.copy(local, temporary)
        return files.fingerprint(local)


def _quantiles(parts: Sequence[ShardReport]) -> dict[str, Any]:
    columns = {
        "height": [part.heights for part in parts],
        "width": [part.widths for part in parts],
        "encoded_bytes": [part.encoded_bytes for part in parts],
    }
    joined = {
        name: np.concatenate([np.array(c) for c in column]) for name, column in columns.items()
    }
    if not len(joined["height"]):
        raise DatasetError("no image can be read; the reasons are in the files under .prepare")
    return {"quantile": list(QUANTILES)} | {
        name: [int(value) for value in np.quantile(values, QUANTILES, method="nearest")]
        for name, values in joined.items()
    }


def _write_report(output: str, reports: Sequence[ShardReport]) -> None:
    report = {
        key: [
            {"image": image, "shard": part.file, "reason": reason}
            for part in reports
            for image, reason in getattr(part, key)
        ]
        for key in ("rejected", "dropped", "converted")
    }
    files.write_text(os.path.join(output, REPORT_NAME), json.dumps(report, indent=1) + "\n")


def _report_path(output: str, file: str) -> str:
    return os.path.join(output, PROGRESS_FOLDER, f"{file}.json")
