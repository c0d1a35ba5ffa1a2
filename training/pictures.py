"""Draw the first training images of each stage, as the network gets them.

  python -m training.pictures --config=configs/digits_progressive.yaml [--stage=2] [--images=12]
      [--set section.field=value ...] [--output=training_images.png]

draws a row for each stage: cropped, augmented and mixed by its settings, all at one scale. Nothing is
trained.
"""

import sys
from collections.abc import Sequence

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

import numpy as np
import tensorflow as tf

from configs.load import load_experiment
from efficientnet import describe_size
from system import files
from system.command import Parser, command, positive
from system.errors import UsageError
from training.devices.distribution import connect
from training.failures import broken_data, training_memory
from training.inputs import train_dataset
from training.job import Job, open_job
from training.plan import Stage, format_stage

TILE = 96  # pixels of the largest image's longer side, at least
GAP = 4  # pixels between images
CAPTION = 16  # pixels of the line above a row


def stage_images(job: Job, stage: Stage, count: int) -> np.ndarray:
    """Return the first training images of a stage: uint8 [count or fewer, H, W, 3].

    Args:
      job: job of the whole run.
      stage: one of its stages.
      count: largest number of images; a batch may have fewer.
    """
    stage_job = job.at(stage.first_step)
    with training_memory(stage_job), broken_data():
        (batch,) = train_dataset(stage_job, stage.first_step)(0, 1).take(1)
        return batch["image"][:count].numpy()


def draw_stages(job: Job, stages: Sequence[Stage], count: int) -> np.ndarray:
    """Draw a row of training images for each stage, all enlarged by the same whole factor.

    Returns:
      uint8 [height, width, 3].
    """
    from PIL import Image, ImageDraw

    shown = [stage_images(job, stage, count) for stage in stages]
    factor = max(1, TILE // max(max(images.shape[1:3]) for images in shown))
    rows = [images.repeat(factor, axis=1).repeat(factor, axis=2) for images in shown]
    width = max(len(images) * (images.shape[2] + GAP) for images in rows)
    height = sum(CAPTION + images.shape[1] + GAP for images in rows)
    sheet = Image.new("RGB", (width, height), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for stage, images in zip(stages, rows, strict=True):
        draw.text((2, top + 2), _caption(job, stage), fill="black")
        for column, image in enumerate(images):
            place = (column * (images.shape[2] + GAP), top + CAPTION)
            sheet.paste(Image.fromarray(image), place)
        top += CAPTION + images.shape[1] + GAP
    return np.asarray(sheet)


def _caption(job: Job, stage: Stage) -> str:
    size = describe_size(job.at(stage.first_step).spec.resolution)
    count = len(job.plan.stages)
    if count == 1:
        return f"{size} px"
    overlay = job.experiment.stages[stage.number]
    return f"stage {stage.number + 1} of {count}, {size} px: {format_stage(overlay)}"


@command("training.pictures")
def main(argv: Sequence[str] | None = None) -> int:
    """Draw and print the path; return the exit status."""
    parser = Parser("training.pictures", __doc__)
    parser.add_argument("--config", help="experiment; default: the digits")
    parser.add_argument("--data_dir", help="folder of the data, local or gs://")
    parser.add_argument(
        "--set", action="append", default=[], help="section.field=value; repeatable"
    )
    parser.add_argument("--stage", type=positive, help="one stage, from 1 on; default: all")
    parser.add_argument("--images", type=positive, default=12, help="of a stage (%(default)s)")
    parser.add_argument(
        "--output", default="training_images.png", help="PNG to write, local or gs:// (%(default)s)"
    )
    flags = parser.parse_args(argv)
    experiment = load_experiment(
        flags.config, overrides=flags.set, values={"data.data_dir": flags.data_dir}
    )
    job = open_job(experiment, connect("cpu"))
    stages: Sequence[Stage] = job.plan.stages
    if flags.stage:
        if flags.stage > len(stages):
            raise UsageError(
                f"--stage={flags.stage}: {experiment.name} has {len(stages)}"
                f" stage{'s' if len(stages) > 1 else ''}; expected 1 to {len(stages)}"
            )
        stages = stages[flags.stage - 1 : flags.stage]
    sheet = draw_stages(job, stages, flags.images)
    files.write_bytes(flags.output, tf.io.encode_png(sheet).numpy())
    print(
        f"{flags.output}: the first training images of {len(stages)} of {len(job.plan.stages)} stages"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
