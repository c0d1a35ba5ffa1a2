"""Show what initial weights are worth to a recipe: the same runs with them and without, side by side.

    python -m proofs.initial_weights --config=configs/segmentation_finetune.yaml --metric=mean_iou
        [--set section.field=value ...] [--seeds=3] [--folder=runs/initial_weights] [--output=PAGE.md]

trains a recipe that names init.weights as it is, and from random weights, with each seed, and prints the
task's best figure after the last step. --output replaces the table of a page and draws the curves beside it.
Runs that are in the folder are not repeated.
"""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from system.tensorflow_log import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()

from configs.load import load_experiment
from configs.schema import Experiment
from proofs.curves import Curve, Curves, draw_curves, table, train
from proofs.page import write_page
from system.command import Parser, command, positive
from system.conditions import conditions
from system.errors import UsageError
from training.devices.distribution import connect

RANDOM = "random weights"
# Figure of an evaluation: what people call it.
NAMES = {"top_1": "top-1", "mean_iou": "mean IoU", "ap_50": "AP50"}


def experiment_of(
    config: str, overrides: Sequence[str], way: str, seed: int, folder: Path
) -> Experiment:
    """Return the experiment of a way to start, in a subfolder of `folder`."""
    return load_experiment(
        config,
        overrides=[*overrides, *(["init.weights=null"] if way == RANDOM else [])],
        values={"seed": seed, "model_dir": str(folder / f"{way.replace(' ', '_')}_{seed}")},
    )


def draw(curves: Curves, figure_name: str, batch: int, file: Path) -> None:
    """Draw the curves into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    draw_curves(
        figure.subplots(),
        curves,
        x=f"step of {batch} images",
        y=f"{figure_name} of the evaluation images, %",
    )
    figure.savefig(file, dpi=100)


@command("proofs.initial_weights")
def main(argv: Sequence[str] | None = None) -> int:
    """Train, print and write the table and the picture; return the exit status."""
    parser = Parser("proofs.initial_weights", __doc__)
    parser.add_argument("--config", required=True, help="experiment that names init.weights")
    parser.add_argument(
        "--set", action="append", default=[], help="override a field: section.field=value"
    )
    parser.add_argument("--metric", required=True, help="figure of the evaluations to compare")
    parser.add_argument("--seeds", type=positive, default=3, help="runs of each way [3]")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/initial_weights"), help="of the runs"
    )
    parser.add_argument("--output", type=Path, help="page whose table is replaced")
    options = parser.parse_args(argv)
    given = load_experiment(options.config, overrides=options.set)
    if not given.init.weights:
        raise UsageError(
            f"--config={options.config} has no init.weights to compare with random ones"
        )
    distribution, name = connect(), NAMES.get(options.metric, options.metric)
    curves: dict[str, list[Curve]] = {RANDOM: [], f"{given.init.weights} weights": []}
    for seed, way in itertools.product(range(options.seeds), curves):
        experiment = experiment_of(options.config, options.set, way, seed, options.folder)
        curves[way].append(train(experiment, distribution, options.metric))
    rows = table(curves, name)
    print(rows)
    if options.output:
        write_page(options.output, f"{conditions()}.\n\n{rows}")
        batch = given.train.global_batch_size
        draw(curves, name, batch, options.output.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
