"""Read the weights of a run: of its best checkpoint, or of one that is named.

This module alone of the package needs `run_folder` and `configs`: runs are where the trainer is.
"""

import posixpath

from configs.load import load_experiment
from efficientnet.catalog import vary
from efficientnet.spec import ModelSpec, height_width
from efficientnet.weights.expectations import Expectations, published_spec
from efficientnet.weights.matching import Weights
from efficientnet.weights.tf_checkpoint import open_checkpoint
from run_folder.checkpoints import best_checkpoint, check_checkpoint, newest_checkpoint
from run_folder.experiment import run_experiment_file

AVERAGE, LAST = "ema/", "network/"  # prefixes of a checkpoint's arrays


def open_run(path: str, spec: ModelSpec, *, raw: bool) -> tuple[Weights, Expectations]:
    """Read the moving averages of a run's weights, or the last weights where it keeps no averages.

    Args:
      path: folder of a run, for its best checkpoint or its newest if none was evaluated; or folder or
        prefix of one checkpoint.
      spec: network that the weights are for.
      raw: whether to read the last weights in any case.

    Raises:
      CheckpointError: the run has no intact checkpoint, or that which is named is damaged.
      ConfigError: its experiment cannot be read.
      WeightsError: the checkpoint cannot be read.
    """
    is_run = run_experiment_file(path) is not None
    stored = open_checkpoint(_best_checkpoint(path) if is_run else path)
    if not is_run:  # the best one of a run is checked as it is chosen
        check_checkpoint(posixpath.dirname(stored.prefix))
    has_average = any(name.startswith(AVERAGE) for name in stored.shapes)
    start = AVERAGE if has_average and not raw else LAST
    names = {name.removeprefix(start): name for name in stored.shapes if name.startswith(start)}
    # MODEL_DIR/checkpoints/step_00000010/values
    model_dir = posixpath.dirname(posixpath.dirname(posixpath.dirname(stored.prefix)))
    return stored.read(names), _expectations(model_dir, spec, stored.prefix)


def _best_checkpoint(model_dir: str) -> str:
    newest = newest_checkpoint(model_dir)
    metric = next(iter(newest.metrics), "") if newest else ""  # the first one compares checkpoints
    return best_checkpoint(model_dir, metric).path


def _expectations(model_dir: str, spec: ModelSpec, prefix: str) -> Expectations:
    """Return what the weights of a run expect, by its experiment."""
    file = run_experiment_file(model_dir)
    if file is None:
        return Expectations(prefix, note="there is no experiment.yaml two folders above it")
    experiment = load_experiment(file)
    model = experiment.model
    own = published_spec(spec) if model.name == spec.name else None
    size, view = model.image_size, experiment.eval
    if own:
        own = vary(own, resolution=size)
        size = own.resolution
    shown = view.image_size or (own.eval_resolution if own else size)
    padding = getattr(view, "crop_padding", None)
    fraction = None
    if shown is not None and padding is not None:
        side = min(height_width(shown))
        fraction = side / (side + padding)
    return Expectations(
        f"the run in {model_dir}",
        normalization=model.normalization or ((own.mean_rgb, own.stddev_rgb) if own else None),
        batch_norm_epsilon=experiment.batch_norm.epsilon
        or (own.batch_norm_epsilon if own else None),
        padding=model.padding or (own.padding if own else None),
        image_size=size,
        crop_fraction=fraction,
        resize=view.resize or experiment.augment.resize,
    )
