"""Show what pretrained weights are worth on a few images: four ways to train lite0, side by side.

    python -m proofs.finetune_demo [--seeds=3] [--folder=runs/finetune_demo]
        [--output=proofs/results/finetune_demo.md]

trains configs/finetune_demo.yaml from random weights, with the classifier alone, as it is, and unfrozen
from the last stage down, with each seed, and prints top-1 after the last step and the processor time.
--output also draws the curves into a picture beside the page. Runs that are in the folder are not repeated.
"""

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

from configs.load import FOLDER, load_experiment
from configs.schema import Experiment
from input_pipeline.sources.textures import TEXTURES
from proofs.curves import Curve, Curves, draw_curves, table, train
from proofs.page import write_page
from system.command import Parser, command, positive
from system.conditions import conditions
from training.devices.distribution import connect

CONFIG = FOLDER / "finetune_demo.yaml"
EVALUATE = "eval.every=20 steps"
# Way: what it sets over the file. The last takes its stages from a recipe of its own.
WAYS: Mapping[str, Sequence[str]] = {
    "random weights": ("init.weights=null", "stages=[]"),
    "classifier alone": ("train.trainable=head", "optimizer.layer_decay=1.0", "stages=[]"),
    "classifier, then all": (),
    "from the last stage down": (),
}
PROGRESSIVE = "from the last stage down"


def experiment_of(way: str, seed: int, folder: Path) -> Experiment:
    """Return the experiment of a way to train, with a seed, in a subfolder of `folder`."""
    slug = way.replace(",", "").replace(" ", "_")
    experiment = load_experiment(
        CONFIG,
        overrides=[EVALUATE, *WAYS[way]],
        values={"seed": seed, "model_dir": str(folder / f"{slug}_{seed}")},
    )
    if way == PROGRESSIVE:
        stages = load_experiment(FOLDER / "finetune_progressive.yaml").stages
        experiment = experiment.model_copy(update={"stages": stages})
    return experiment


def draw(curves: Curves, file: Path) -> None:
    """Draw a patch of each class, and top-1 over the steps: the mean of the seeds and their range."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    pictures = TEXTURES.read()
    names = TEXTURES.class_names
    mosaic: list[Any] = [[f"{split} {name}" for name in names] for split in pictures]
    mosaic.append(["curves"] * len(names))
    axes = figure.subplot_mosaic(mosaic, height_ratios=[1, 1, 5])
    for split, cut in pictures.items():
        for label, name in enumerate(names):
            box = axes[f"{split} {name}"]
            box.imshow(next(picture.pixels for picture in cut if picture.label == label))
            box.set(xticks=[], yticks=[])
            if split == "train":
                box.set_title(name, fontsize=8)
        axes[f"{split} {names[0]}"].set_ylabel(split, fontsize=7)
    draw_curves(
        axes["curves"], curves, x="step of 32 images", y="top-1 on the evaluation patches, %"
    )
    figure.savefig(file, dpi=100)


@command("proofs.finetune_demo")
def main(argv: Sequence[str] | None = None) -> int:
    """Train, print and write the table and the picture; return the exit status."""
    parser = Parser("proofs.finetune_demo", __doc__)
    parser.add_argument("--seeds", type=positive, default=3, help="runs of each way [3]")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/finetune_demo"), help="of the runs"
    )
    parser.add_argument("--output", type=Path, help="page whose table is replaced")
    options = parser.parse_args(argv)
    distribution = connect()
    curves: dict[str, list[Curve]] = {way: [] for way in WAYS}
    for seed, way in itertools.product(range(options.seeds), WAYS):
        curves[way].append(train(experiment_of(way, seed, options.folder), distribution, "top_1"))
    rows = table(curves, "top-1")
    print(rows)
    if options.output:
        write_page(options.output, f"{conditions()}.\n\n{rows}")
        draw(curves, options.output.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
