"""Export the best checkpoint of a run in every format that its experiment names."""

import posixpath
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from configs.load import load_experiment
from configs.schema import Experiment
from efficientnet import ModelSpec
from efficientnet.builder import build_network
from input_pipeline.images.view import EvalView
from input_pipeline.sources.dataset_info import FILE_NAME, DatasetInfo, read_dataset_info
from input_pipeline.stream.pipeline import make_eval_dataset
from run_folder.checkpoints import Checkpoint, best_checkpoint
from run_folder.experiment import run_experiment_file
from serving.boxes import box_signatures, write_anchors
from serving.class_maps import map_signatures
from serving.model_card import ModelCard, Preprocessing, write_model_card
from serving.network import ExportError, NoRunError, build_inference_network
from serving.onnx import write_onnx
from serving.saved_model import (
    Servable,
    Signatures,
    class_signatures,
    export_saved_model,
    pixels_of,
)
from serving.tflite import CALIBRATION_IMAGES, VARIANTS, write_tflite
from serving.version_folder import write_version
from system.console import log
from system.errors import first_line
from tasks import Task
from tasks.detection import Detection
from training.job import eval_view, make_task, model_spec, open_source
from training.plan import make_plan
from training.step.state import WeightsKind


class TrainedNetwork(NamedTuple):
    """The trained network of a run, from which every format is made."""

    experiment: Experiment
    spec: ModelSpec
    info: DatasetInfo
    checkpoint: Checkpoint
    weights: list[np.ndarray]  # in the order of the model's trainable_variables
    statistics: list[np.ndarray]  # in the order of its non_trainable_variables
    kind: WeightsKind

    @property
    def view(self) -> EvalView:
        """What the network sees of an image."""
        return eval_view(self.experiment, self.spec)

    @property
    def task(self) -> Task:
        """What the network learned."""
        return make_task(self.experiment, self.info)

    def values(self) -> dict[str, Any]:
        """Return the arguments of `build_inference_network`."""
        return {
            "spec": self.spec,
            "num_classes": self.experiment.model.num_classes,
            "image_size": self.view.size,
            "layers": self.task.layers(self.spec),
            "outputs": self.task.outputs,
            "weights": self.weights,
            "statistics": self.statistics,
        }


def export_run(
    model_dir: str, experiment: Experiment | None = None, *, only_missing: bool = False
) -> dict[str, str]:
    """Write the exports of the run in `model_dir`, each to `export/FORMAT/STEP`.

    Args:
      model_dir: folder of the run, local or gs://.
      experiment: its `export` section names the formats and the weights; None takes the run's own.
      only_missing: skip the formats in which the best checkpoint has been exported already.

    Returns:
      Path of each export by format.

    Raises:
      NoRunError: there is no run.
      ExportError: the run keeps no average to export, the number of class names is not
        the number of classes, or a file cannot be written.
      CheckpointError: the run has no checkpoint.
    """
    experiment = experiment or _load_run_experiment(model_dir)
    network = load_trained_network(model_dir, experiment.export.weights)
    exports: dict[str, str] = {}
    for name in experiment.export.formats:
        directory = posixpath.join(model_dir, "export", name)
        exports[name] = posixpath.join(directory, str(network.checkpoint.step))
        if not only_missing or not tf.io.gfile.exists(exports[name]):
            try:
                FORMATS[name](directory, network)
            except OSError as error:
                raise ExportError(
                    f"{first_line(error)}; earlier exports are unchanged. Fix: free disk space and run "
                    f"python main.py --mode=export --model_dir={model_dir}"
                ) from error
    return exports


def load_trained_network(model_dir: str, kind: WeightsKind | None) -> TrainedNetwork:
    """Read the best checkpoint of a run.

    Args:
      model_dir: folder of the run, local or gs://.
      kind: "ema" for the moving average, "raw" for the last weights; None takes the average if the
        run keeps one, otherwise the last weights.

    Raises:
      NoRunError: there is no run.
      ExportError: the run keeps no average, or the number of class names is not the
        number of classes.
      CheckpointError: the run has no checkpoint.
    """
    experiment = _load_run_experiment(model_dir)
    spec = model_spec(experiment)
    info = read_dataset_info(model_dir)
    task = make_task(experiment, info)
    checkpoint = best_checkpoint(model_dir, task.best, log=log)
    arrays = checkpoint.read()
    has_average = any(name.startswith("ema/") for name in arrays)
    kind = kind or ("ema" if has_average else "raw")
    prefix = {"ema": "ema", "raw": "network"}[kind]
    if kind == "ema" and not has_average:
        raise ExportError(
            f"{model_dir}: export.weights={kind}, but the run keeps no average (ema.decay is 0); "
            "use --set export.weights=raw"
        )
    classes = experiment.model.num_classes
    if info.class_names is not None and len(info.class_names) != classes:
        raise ExportError(
            f"{posixpath.join(model_dir, FILE_NAME)}: {len(info.class_names)} class names for the "
            f"{classes} classes of the network; expected one name per class, in label order"
        )
    shape = build_network(task.layers(spec), name=spec.name, outputs=task.outputs)
    return TrainedNetwork(
        experiment,
        spec,
        info,
        checkpoint,
        [arrays[f"{prefix}/{v.path}"] for v in shape.trainable_variables],
        [
            arrays[f"{prefix}/{v.path}"]
            for v in shape.non_trainable_variables
            if "seed" not in v.path
        ],
        kind,
    )


def _load_run_experiment(model_dir: str) -> Experiment:
    path = run_experiment_file(model_dir)
    if path is None:
        raise NoRunError(model_dir)
    return load_experiment(path)


def _saved_model(directory: str, network: TrainedNetwork) -> str:
    servable = Servable(
        network.spec,
        network.values()["num_classes"],
        network.weights,
        network.statistics,
        view=network.view,
        class_names=network.info.class_names,
        activation=network.task.activation,
        layers=network.task.layers(network.spec),
        task=network.task,
    )
    return export_saved_model(
        directory,
        servable,
        SIGNATURES[network.task.answers],
        version=network.checkpoint.step,
        finish=lambda folder: write_model_card(folder, _card("saved_model", network)),
    )


def _tflite(directory: str, network: TrainedNetwork) -> str:
    def write(folder: str) -> None:
        write_tflite(
            folder,
            build_inference_network(**network.values()),
            network.spec,
            calibration_images=lambda: _training_images(network, CALIBRATION_IMAGES),
            variants=VARIANTS,
        )
        _write_anchors(folder, network)
        write_model_card(folder, _card("tflite", network))

    return write_version(directory, network.checkpoint.step, write)


def _onnx(directory: str, network: TrainedNetwork) -> str:
    def write(folder: str) -> None:
        write_onnx(folder, build_inference_network(**network.values()))
        _write_anchors(folder, network)
        write_model_card(folder, _card("onnx", network))

    return write_version(directory, network.checkpoint.step, write)


def _write_anchors(folder: str, network: TrainedNetwork) -> None:
    """Write the anchors beside a network whose outputs are relative to them."""
    task = network.task
    if isinstance(task, Detection):
        write_anchors(folder, task.anchors_of(network.view.size))


# Signatures of a SavedModel by what a task answers.
SIGNATURES: Mapping[str, Signatures] = {
    "classes": class_signatures,
    "class_maps": map_signatures,
    "boxes": box_signatures,
}

# A new format is one function and one row.
FORMATS: Mapping[str, Callable[[str, TrainedNetwork], str]] = {
    "saved_model": _saved_model,
    "tflite": _tflite,
    "onnx": _onnx,
}


def _card(format_name: str, network: TrainedNetwork) -> ModelCard:
    num_classes = network.values()["num_classes"]
    names = network.info.class_names or tuple(str(index) for index in range(num_classes))
    splits = {name: split.num_examples for name, split in network.info.splits.items()}
    return ModelCard(
        name=network.spec.name,
        format=format_name,
        weights=network.kind,
        step=network.checkpoint.step,
        stage=_stage_number(network),
        class_names=names,
        preprocessing=_preprocessing(network),
        metrics=network.checkpoint.metrics,
        data={"name": network.info.name, "splits": splits},
        recipe=network.experiment.model_dump(mode="json"),
        activation=network.task.activation,
        answers=network.task.answers,
        parameters=sum(value.size for value in network.weights + network.statistics),
    )


def _stage_number(network: TrainedNetwork) -> int | None:
    plan = make_plan(network.experiment, network.info.splits["train"].num_examples)
    stage = plan.stage_until(network.checkpoint.step)
    return stage.number + 1 if len(plan.stages) > 1 else None


def _preprocessing(network: TrainedNetwork) -> Preprocessing:
    return Preprocessing.of(network.view, network.spec.mean_rgb, network.spec.stddev_rgb)


def _training_images(network: TrainedNetwork, count: int) -> list[np.ndarray]:
    """Read the first `count` training images, framed as for evaluation: uint8 [H, W, 3] each."""
    source = open_source(network.experiment, network.spec)
    dataset = make_eval_dataset(
        source,
        network.view,
        "train",
        host_batch_size=min(count, source.info.splits["train"].num_examples),
    )
    batch = next(iter(dataset))
    images = batch["image"]
    if network.view.framing.pads:
        images = tf.cast(tf.round(pixels_of(batch, network.spec.mean_rgb)), tf.uint8)
    return list(images.numpy()[batch["mask"].numpy() > 0])
