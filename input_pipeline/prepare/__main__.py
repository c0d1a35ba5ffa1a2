"""Convert images to sharded TFRecords in ImageNet's format, with dataset_info.json.

  python -m input_pipeline.prepare --source=DIR_OR_TAR --output=DIR [--workers=N]

--source is one of
  a folder of class folders, or with train/ and val/ (or validation/, or test/) above them;
  an uncompressed tar of such, or of one tar per class as ILSVRC2012_img_train.tar;
  a CSV file of path and label, or path and labels (A;B), with validation.csv beside it or not;
with --target=mask, a folder of images/ and masks/ of the same names, or with train/ and val/ above them, or
  PASCAL VOC's (docs/segmentation.md);
with --target=boxes, a folder of images with boxes in the layout of COCO, PASCAL VOC or YOLO (docs/data.md);
and where the validation images have no class folders, as ImageNet's, add
  --validation=DIR_OR_TAR --validation_labels=FILE.

The command can be stopped at any time; run it again to resume. --seed alone decides which image is in
which shard. Several machines share the work with --shard_range=FIRST:LAST; the last to finish writes
dataset_info.json. prepare_report.json lists the images that were re-encoded or rejected and the boxes that
were dropped, and why.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

import tensorflow as tf

from input_pipeline.errors import DatasetError, plain_message
from input_pipeline.prepare.contents import BoxContent, ClassContent, Content, MaskContent
from input_pipeline.prepare.convert import REPORT_NAME, ShardReport, prepare
from input_pipeline.prepare.ground_truth import label_validation
from input_pipeline.sources.boxed import BoxedImages
from input_pipeline.sources.coco import is_coco, list_coco
from input_pipeline.sources.csv_list import TRAIN_LIST, read_lists
from input_pipeline.sources.dataset_info import FILE_NAME, DatasetInfo
from input_pipeline.sources.listing import (
    DEFAULT_VALIDATION_FRACTION,
    ClassImages,
    list_classes,
    list_images,
)
from input_pipeline.sources.mask_folder import CLASSES_FILE, list_masks, list_voc
from input_pipeline.sources.voc_boxes import is_voc, list_voc_boxes
from input_pipeline.sources.yolo import is_yolo, list_yolo
from input_pipeline.targets import TARGET_HELP, Target, parse_target
from input_pipeline.targets.boxes import Boxes
from input_pipeline.targets.mask import Mask
from system.command import ArgumentTypeError, Namespace, Parser, command, natural, positive

TRAIN_TAR, VALIDATION_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
LABEL_FILES = (  # looked for beside those tars
    "imagenet_2012_validation_synset_labels.txt",
    "ILSVRC2012_validation_ground_truth.txt",
    "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
    "LOC_val_solution.csv",
)


@command("input_pipeline.prepare")
def main(argv: Sequence[str] | None = None) -> int:
    """Prepare; return the exit status."""
    flags = _parser().parse_args(argv)
    try:
        content, notes = gather_content(flags)
        for note in notes:
            print(note)
        with _progress_bar() as on_progress:
            info, reports = prepare(
                content,
                flags.output,
                name=flags.name or os.path.basename(os.path.normpath(flags.output)),
                seed=flags.seed,
                num_shards={"train": flags.train_shards, "validation": flags.validation_shards},
                shard_range=flags.shard_range,
                keep_png=flags.keep_png,
                workers=flags.workers,
                on_progress=on_progress,
            )
    except tf.errors.OpError as error:
        raise DatasetError(plain_message(str(error))) from error
    except KeyboardInterrupt:
        print(
            "input_pipeline.prepare: interrupted; run the same command to resume", file=sys.stderr
        )
        return 130
    print(_summary(flags.output, info, reports))
    return 0


def gather_content(flags: Namespace) -> tuple[Content, tuple[str, ...]]:
    """List what the flags ask for, with notes for the user.

    Raises:
      DatasetError: something is missing or does not fit together.
    """
    target = parse_target(flags.target)
    return CONTENTS[flags.target.partition(":")[0]](flags, target)


def _classes(flags: Namespace, target: Target) -> tuple[Content, tuple[str, ...]]:
    if flags.num_classes:
        raise DatasetError(
            "--num_classes is for --target=mask; the classes of whole images have names"
        )
    images = gather(
        flags.source, flags.validation, flags.validation_labels, flags.validation_fraction
    )
    return ClassContent(images), images.notes


def _masks(flags: Namespace, target: Target) -> tuple[Content, tuple[str, ...]]:
    assert isinstance(target, Mask)
    _refuse_validation(flags, "mask")
    is_voc = tf.io.gfile.isdir(os.path.join(flags.source, "JPEGImages"))
    masked = (
        list_voc(flags.source) if is_voc else list_masks(flags.source, flags.validation_fraction)
    )
    names = masked.class_names or tuple(str(n) for n in range(flags.num_classes or 0))
    if not names:
        raise DatasetError(
            f"{flags.source}: the number of classes is not known; set --num_classes, or write the names of"
            f" the classes into {CLASSES_FILE}, one on each line"
        )
    return MaskContent(masked, names, target), masked.notes


# Layouts of images with boxes, and how each is recognised and listed; the first that fits counts.
LAYOUTS: tuple[tuple[Callable[[str], bool], Callable[[str, float], BoxedImages]], ...] = (
    (is_coco, list_coco),
    (is_voc, list_voc_boxes),
    (is_yolo, list_yolo),
)


def _boxes(flags: Namespace, target: Target) -> tuple[Content, tuple[str, ...]]:
    assert isinstance(target, Boxes)
    _refuse_validation(flags, "boxes")
    if flags.num_classes:
        raise DatasetError("--num_classes is for --target=mask; the classes of boxes have names")
    for fits, list_boxed in LAYOUTS:
        if fits(flags.source):
            boxed = list_boxed(flags.source, flags.validation_fraction)
            return BoxContent(boxed, target), boxed.notes
    raise DatasetError(
        f"{flags.source}: no boxes found; expected COCO's annotations/instances_train2017.json or train.json,"
        " VOC's ImageSets/Main/train.txt or train.txt with Annotations/, or YOLO's images/train with"
        " labels/train"
    )


def _refuse_validation(flags: Namespace, target: str) -> None:
    if flags.validation or flags.validation_labels:
        raise DatasetError(
            f"--target={target} takes validation images from --source; leave out --validation and"
            " --validation_labels"
        )


# What is written for each target: images and what belongs to them, listed by the flags.
CONTENTS: Mapping[str, Callable[[Namespace, Target], tuple[Content, tuple[str, ...]]]] = {
    "class": _classes,
    "classes": _classes,
    "mask": _masks,
    "boxes": _boxes,
}


def gather(
    source: str,
    validation: str | None = None,
    validation_labels: str | None = None,
    validation_fraction: float = DEFAULT_VALIDATION_FRACTION,
) -> ClassImages:
    """List all images of both splits with their classes.

    Args:
      source: folder or tar; the folder that holds ImageNet's two tars; or a CSV list.
      validation: folder or tar of flat validation images.
      validation_labels: their labels; see ground_truth.
      validation_fraction: of each class, when there are no validation images.

    Raises:
      DatasetError: something is missing or does not fit together.
    """
    if source.endswith(".csv"):
        if validation or validation_labels:
            raise DatasetError(
                f"{source}: a list has its validation images in validation.csv beside it; leave out "
                "--validation and --validation_labels"
            )
        return read_lists(source, validation_fraction)
    if tf.io.gfile.exists(os.path.join(source, TRAIN_TAR)):
        folder, source = source, os.path.join(source, TRAIN_TAR)
        if validation is None and tf.io.gfile.exists(os.path.join(folder, VALIDATION_TAR)):
            validation = os.path.join(folder, VALIDATION_TAR)
            candidates = [os.path.join(folder, name) for name in LABEL_FILES]
            here = [path for path in candidates if tf.io.gfile.exists(path)]
            validation_labels = validation_labels or (here[0] if here else None)
    if validation is None:
        return _with_unread_list(list_classes(source, validation_fraction), source)
    if validation_labels is None:
        raise DatasetError(
            f"{validation}: the classes of these images are unknown; set --validation_labels=FILE"
        )
    train = _with_unread_list(list_classes(source, train_only=True), source)
    labelled = label_validation(list_images(validation), validation_labels, train.class_names)
    splits = {**train.splits, "validation": labelled}
    return ClassImages(train.class_names, splits, train.notes)


def _with_unread_list(images: ClassImages, source: str) -> ClassImages:
    """Add a note if `source` also holds a list, which gives other classes than the folders."""
    path = os.path.join(source, TRAIN_LIST)
    if not tf.io.gfile.isdir(source) or not tf.io.gfile.exists(path):
        return images
    note = f"{TRAIN_LIST} is not read; to read it, give --source={path}"
    return replace(images, notes=(*images.notes, note))


def _parser() -> Parser:
    parser = Parser("input_pipeline.prepare", __doc__)
    add = parser.add_argument
    add("--source", required=True, help="folder, tar or CSV list of images")
    add("--output", required=True, help="folder or gs:// path to write to")
    add("--validation", help="folder or tar of flat validation images")
    add(
        "--validation_labels",
        help="their labels: class names, FILE CLASS lines, CSV, or the development kit's",
    )
    add(
        "--validation_fraction",
        type=float,
        default=DEFAULT_VALIDATION_FRACTION,
        help="fraction of each class to hold out when there are no validation images "
        "(default %(default)s)",
    )
    add("--target", default="class", help=TARGET_HELP)
    add("--num_classes", type=positive, help="of masks without classes.txt")
    add("--name", help="name of the data set (default: the output folder's)")
    add("--train_shards", type=positive, help="default: 1250 images each, at most 1024")
    add("--validation_shards", type=positive, help="default: 390 images each, at most 128")
    add(
        "--shard_range",
        type=_range,
        help="FIRST:LAST, this machine's shards; training shards come first",
    )
    add("--seed", type=natural, default=0, help="of the order of the images (default %(default)s)")
    add(
        "--workers",
        type=positive,
        default=os.cpu_count() or 1,
        help="threads (default %(default)s)",
    )
    add(
        "--keep_png",
        action="store_true",
        help="do not convert PNGs to JPEG; the original code cannot read them",
    )
    return parser


def _range(text: str) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit()):
        raise ArgumentTypeError(f"invalid range {text!r}; expected FIRST:LAST")
    return int(first), int(last)


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(
        "images", BarColumn(), MofNCompleteColumn(), "time left", TimeRemainingColumn()
    ) as progress:
        task = progress.add_task("images", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _summary(output: str, info: DatasetInfo | None, reports: Sequence[ShardReport]) -> str:
    written = sum(report.num_examples for report in reports)
    encoded = sum(len(report.converted) for report in reports)
    rejected = [pair for report in reports for pair in report.rejected]
    lines = [f"wrote {written} images, {encoded} of them re-encoded; rejected {len(rejected)}"]
    lines += [f"  rejected {image}: {reason}" for image, reason in rejected[:3]]
    dropped = [pair for report in reports for pair in report.dropped]
    if dropped:
        lines.append(
            f"dropped {len(dropped)} boxes of {len({image for image, _ in dropped})} images"
        )
        lines += [f"  dropped of {image}: {reason}" for image, reason in dropped[:3]]
    if info is None:
        return "\n".join([*lines, f"{len(reports)} shards are written; others are still missing"])
    for split, part in info.splits.items():
        lines.append(f"{split}: {part.num_examples} images in {len(part.shards)} shards")
    lines.append(f"{info.num_classes} classes; {os.path.join(output, FILE_NAME)}, {REPORT_NAME}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
