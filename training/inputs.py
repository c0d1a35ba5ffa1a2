"""The training and evaluation batches of a job."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from configs.schema import Experiment
from configs.sections import own_settings
from efficientnet import ModelSpec
from input_pipeline.augment import get_augment
from input_pipeline.images.framing import TRAIN_FRAMINGS
from input_pipeline.images.view import TrainView
from input_pipeline.stream.decode import allowed_broken
from input_pipeline.stream.pipeline import (
    DEFAULT_SHUFFLE_BUFFER_MIB,
    Position,
    Reading,
    eval_steps,
    make_eval_dataset,
    make_train_dataset,
)
from training.job import Job, eval_view, make_target

MakeDataset = Callable[[int, int], tf.data.Dataset]  # (host_index, num_hosts) -> a host's batches


def train_dataset(job: Job, step: int) -> MakeDataset:
    """Return a function that makes a host's training batches after `step` updates; `job` is of that stage."""
    stage = job.current_stage
    experiment, source = job.experiment, job.source()
    view, reading = train_view(experiment, job.spec), _reading(experiment)

    def make(host_index: int, num_hosts: int) -> tf.data.Dataset:
        return make_train_dataset(
            source,
            view,
            host_batch_size=experiment.train.global_batch_size // num_hosts,
            seed=experiment.seed,
            position=Position(
                first_example=stage.first_example,
                start_step=step - stage.first_step,
                host_index=host_index,
                num_hosts=num_hosts,
            ),
            reading=reading,
        )

    return make


def train_view(experiment: Experiment, spec: ModelSpec) -> TrainView:
    """Return what the network sees of a training image."""
    augment = experiment.augment
    window = {
        "area_range": augment.crop_area,
        "aspect_ratio_range": augment.crop_aspect_ratio,
    }
    settings = {
        "random_crop": window,
        "random_sample": window,
        "scale_jitter": {"scale_range": augment.scale_range},
    }
    return TrainView(
        spec.resolution,
        framing=TRAIN_FRAMINGS[augment.framing](**settings.get(augment.framing, {})),
        resize=augment.resize,
        flip=augment.flip,
        augment=get_augment(augment.policy, **own_settings(augment)),
        random_erasing=augment.random_erasing,
        mixup_alpha=augment.mixup_alpha,
        cutmix_alpha=augment.cutmix_alpha,
        pairing=augment.pairing,
    )


def _reading(experiment: Experiment) -> Reading:
    data = experiment.data
    return Reading(
        on_error=data.on_error,
        max_error_fraction=data.max_error_fraction,
        shuffle_buffer_mib=own_settings(data).get("shuffle_buffer_mib", DEFAULT_SHUFFLE_BUFFER_MIB),
        service=data.service,
    )


def train_batch_spec(job: Job) -> dict[str, tf.TensorSpec]:
    """Return the dtypes and shapes of one replica's training batch."""
    experiment = job.experiment
    size = experiment.train.global_batch_size // job.distribution.num_replicas
    view = train_view(experiment, job.spec)
    labels = dict(make_target(experiment).batch_spec(size, view))
    if experiment.augment.mixes_labels:
        labels["label"] = tf.TensorSpec([size, experiment.model.num_classes], tf.float32)
    return {
        **{name: tf.TensorSpec([size, *x.shape], x.dtype) for name, x in view.blank().items()},
        **labels,
        "index": tf.TensorSpec([size], tf.int32),
    }


@dataclasses.dataclass(frozen=True)
class EvalInput:
    """The batches of an evaluation.

    Attributes:
      make_dataset: makes a host's batches.
      num_steps: number of batches of a host.
      num_examples: number of examples over all hosts.
      max_missing: number of broken images that may be skipped.
    """

    make_dataset: MakeDataset
    num_steps: int
    num_examples: int
    max_missing: int


def eval_input(job: Job) -> EvalInput:
    """Return the batches of the evaluation split, each image once."""
    experiment, source, hosts = job.experiment, job.source(), job.distribution.num_hosts
    data, host_batch_size = experiment.data, job.eval_batch_size // hosts
    view, reading = eval_view(experiment, job.spec), _reading(experiment)
    if experiment.eval.at == "original":
        view = dataclasses.replace(view, original=experiment.eval.max_size)

    def make(host_index: int, num_hosts: int) -> tf.data.Dataset:
        return make_eval_dataset(
            source,
            view,
            data.eval_split,
            host_batch_size=host_batch_size,
            position=Position(host_index=host_index, num_hosts=num_hosts),
            reading=reading,
        )

    num_examples = job.data_info.splits[data.eval_split].num_examples
    return EvalInput(
        make,
        eval_steps(num_examples, host_batch_size, hosts),
        num_examples,
        allowed_broken(data.max_error_fraction, num_examples) if data.on_error == "skip" else 0,
    )


def drawn_batch(job: Job, count: int) -> dict[str, tf.Tensor]:
    """Return the first images of the evaluation split, with labels in the size of the network's input."""
    experiment, source = job.experiment, job.source()
    dataset = make_eval_dataset(
        source,
        eval_view(experiment, job.spec),
        experiment.data.eval_split,
        host_batch_size=count,
        reading=_reading(experiment),
    )
    return next(iter(dataset))
