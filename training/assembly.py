"""From an experiment to the parts of its training: images, network, recipe, plan."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from configs.durations import Duration
from configs.schema import Experiment
from configs.sections import own_settings
from efficientnet import (
    ModelSpec,
    Variation,
    build_model,
    from_plain,
    get_spec,
    normalize_images,
    vary,
)
from efficientnet.weights.initialize import load_weights
from input_pipeline.augment import get_augment
from input_pipeline.errors import DatasetError
from input_pipeline.sources import Source, get_source
from input_pipeline.sources.cache import cache_source
from input_pipeline.stream.pipeline import eval_steps, make_eval_dataset, make_train_dataset
from system.errors import UsageError
from tasks.classification import Classification
from tasks.task import Task
from training import optimizers
from training.devices.distribution import Distribution, batch_norm_group_size
from training.optimizers import schedules
from training.step.batch_norm import CrossReplicaBatchNormalization
from training.step.noise import MaskNoise
from training.step.recipe import Normalize, TrainRecipe
from training.step.state import TrainState, create_train_state
from training.step.weight_decay import WeightDecay
from training.trainable import frozen_paths, rate_multipliers


class ExperimentError(UsageError):
    """An experiment that does not fit its data or devices: one line that names key and remedy."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The run in steps."""

    total_steps: int
    eval_every_steps: int
    checkpoint_every_steps: int
    steps_per_call: int
    steps_per_epoch: float

    def next_stop(self, step: int) -> int:
        """The step at which control comes back to Python after `step`."""
        periods = (self.eval_every_steps, self.checkpoint_every_steps, self.steps_per_call)
        return min(self.total_steps, *(step - step % period + period for period in periods))

    def is_due(self, step: int, every_steps: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens at `step`."""
        return step % every_steps == 0 or step == self.total_steps


def model_spec(experiment: Experiment) -> ModelSpec:
    """Return the specification of the network.

    Raises:
      ExperimentError: an unknown model, or one that cannot be varied as the experiment asks.
    """
    model = experiment.model
    variation: Variation = {
        "resolution": model.image_size,
        "dropout": model.dropout,
        "survival_probability": model.survival_probability,
        "batch_norm_momentum": experiment.batch_norm.momentum,
        "batch_norm_epsilon": experiment.batch_norm.epsilon,
        "normalization": model.normalization,
    }
    try:
        if model.network:
            spec = vary(from_plain(model.network.model_dump()), **variation)
        else:
            scaling = {"width": model.width, "depth": model.depth, "phi": model.phi}
            spec = get_spec(model.name, **scaling, **variation)
        spec.side  # noqa: B018 (the input makes squares; others are refused before any work)
        return spec
    except ValueError as error:
        raise ExperimentError(f"model: {error}") from error


def open_source(experiment: Experiment, spec: ModelSpec) -> Source:
    """The images that the experiment names."""
    data = experiment.data
    return get_source(
        data.source,
        **own_settings(data),
        num_classes=experiment.model.num_classes,
        image_size=spec.side,
        skip_damage=data.on_error == "skip",
    )


def resolve(experiment: Experiment, spec: ModelSpec, source: Source) -> Experiment:
    """The experiment with what data and model decide filled in.

    Raises:
      ExperimentError: the number of classes is not that of the data, or a split is missing.
    """
    wanted, found = experiment.model.num_classes, source.info.num_classes
    if wanted is not None and wanted != found:
        raise ExperimentError(
            f"model.num_classes: {wanted}, but {source.info.name} has {found} classes; "
            "leave it out to take the data's"
        )
    for split in ("train", experiment.data.eval_split):
        if split not in source.splits:
            raise DatasetError(f"{source.info.name} has no split {split!r}")
    # phi says width, depth and size at once, and stays the only one to say them.
    size = {} if experiment.model.phi is not None else {"image_size": spec.resolution}
    model = experiment.model.model_copy(update={"num_classes": found, **size})
    return experiment.model_copy(update={"model": model})


def cache_images(experiment: Experiment, source: Source) -> Source:
    """`source` with its images in memory or on a local disk, if the experiment wants them there.

    Raises:
      DatasetError: they would not fit.
    """
    data = experiment.data
    return cache_source(
        source,
        data.cache,
        data.cache_dir,
        splits=("train", data.eval_split),
        skip_damage=data.on_error == "skip",
    )


def make_plan(experiment: Experiment, num_examples: int) -> Plan:
    """Durations in steps: see configs.durations."""
    size = experiment.train.global_batch_size
    steps = {"num_examples": num_examples, "global_batch_size": size}
    return Plan(
        total_steps=experiment.train.duration.whole_steps(**steps),
        eval_every_steps=experiment.eval.every.whole_steps(**steps),
        checkpoint_every_steps=experiment.checkpoint.every.whole_steps(**steps),
        steps_per_call=experiment.train.steps_per_call,
        steps_per_epoch=num_examples / size,
    )


def check_batches(experiment: Experiment, distribution: Distribution) -> None:
    """Check that batches and groups of batch norm can be shared out among the replicas.

    Raises:
      ExperimentError: a batch cannot.
      DistributionError: a group cannot.
    """
    replicas, accumulation = distribution.num_replicas, experiment.train.accumulation_steps
    for key, size in (
        ("train.global_batch_size", experiment.train.global_batch_size),
        ("eval.global_batch_size", eval_batch_size(experiment, distribution)),
    ):
        shares = replicas * accumulation if key.startswith("train") else replicas
        if size % shares:
            below, above = size - size % shares, size - size % shares + shares
            near = f"{above}" if not below else f"{below} or {above}"
            each = f" x {accumulation} accumulation steps" if shares != replicas else ""
            raise ExperimentError(
                f"{key}: {size} is not divisible by {replicas} replicas{each}; take {near}"
            )
    batch_norm_group_size(experiment.batch_norm.group, replicas)


def eval_batch_size(experiment: Experiment, distribution: Distribution) -> int:
    """Images evaluated at a time over all replicas."""
    given = experiment.eval.global_batch_size
    if given:
        return given
    largest = min(experiment.train.global_batch_size, 1024)
    return max(largest - largest % distribution.num_replicas, distribution.num_replicas)


def precision(experiment: Experiment, distribution: Distribution) -> str:
    """Keras' dtype policy; "auto" is the recipe's bfloat16 on TPUs and float32 elsewhere."""
    given = experiment.train.precision
    if given == "auto":
        return "mixed_bfloat16" if distribution.is_tpu else "float32"
    return given


def make_state(
    experiment: Experiment,
    spec: ModelSpec,
    distribution: Distribution,
    *,
    initial_weights: str | None,
    log: Callable[[str], None],
) -> tuple[TrainState, MaskNoise]:
    """The network with its first weights, replicated, and the noise that its masks ask for.

    `initial_weights` is a file to start from instead of at random; `log` gets a line about it.
    """
    noise = MaskNoise(experiment.seed)
    keras.utils.set_random_seed(experiment.seed)
    policy = precision(experiment, distribution)
    with distribution.strategy.scope():
        network = build_model(
            spec,
            num_classes=experiment.model.num_classes,
            image_size=spec.resolution,
            dtype=policy,
            batch_norm=_batch_norm(experiment, distribution),
            uniform=noise,
        )
        if initial_weights:
            log(str(load_weights(network, initial_weights)))
    state = create_train_state(
        network,
        distribution,
        optimizer=make_optimizer(experiment),
        with_ema=experiment.ema.decay > 0,
        with_loss_scale=policy == "mixed_float16",
        skips_allowed=skips_allowed(experiment),
    )
    return state, noise


def skips_allowed(experiment: Experiment) -> int:
    """Steps that are not finite and are skipped before the run stops."""
    train = experiment.train
    if train.on_nonfinite == "stop":
        return 0
    return 10 if train.max_skipped_steps is None else train.max_skipped_steps


def make_recipe(
    experiment: Experiment,
    spec: ModelSpec,
    network: keras.Model,
    noise: MaskNoise,
    distribution: Distribution,
    plan: Plan,
) -> TrainRecipe:
    """What a training step of `network` needs.

    Raises:
      UsageError: train.trainable names nothing of the network.
    """
    train, ema = experiment.train, experiment.ema
    return TrainRecipe(
        optimizer=make_optimizer(experiment),
        learning_rate=make_schedule(experiment, plan),
        normalize=normalizer(spec, precision(experiment, distribution)),
        noise=noise,
        task=task(experiment),
        weight_decay=weight_decay(experiment),
        frozen=frozen_paths(network, train.trainable, freeze_batch_norm=train.freeze_batch_norm),
        rate_multipliers=rate_multipliers(network, spec, experiment.optimizer.layer_decay),
        gradient_clip_norm=train.gradient_clip_norm,
        gradient_clip_each=train.gradient_clip_each,
        accumulation_steps=train.accumulation_steps,
        ema_decay=ema.decay,
        ema_ramp=ema.ramp,
    )


def weight_decay(experiment: Experiment) -> WeightDecay:
    """How much which variables decay, and how."""
    train, coupled = experiment.train, experiment.train.weight_decay_coupled
    if coupled is None:
        coupled = make_optimizer(experiment).couples_decay
    return WeightDecay(train.weight_decay, coupled, train.weight_decay_pattern)


def task(experiment: Experiment) -> Task:
    """What is learned; the experiment's number of classes must be known."""
    assert experiment.model.num_classes
    return Classification(experiment.model.num_classes, experiment.train.label_smoothing)


def normalizer(spec: ModelSpec, policy: str) -> Normalize:
    """uint8 images to what the network takes, on the device."""
    return lambda images: normalize_images(images, spec.mean_rgb, spec.stddev_rgb, policy)


def train_dataset(
    experiment: Experiment, spec: ModelSpec, source: Source, start_step: int
) -> Callable[[int, int], tf.data.Dataset]:
    """Makes a host's training batches from `start_step` on: (host_index, num_hosts) -> dataset."""
    augment, data = experiment.augment, experiment.data

    def make(host_index: int, num_hosts: int) -> tf.data.Dataset:
        return make_train_dataset(
            source,
            image_size=spec.side,
            host_batch_size=experiment.train.global_batch_size // num_hosts,
            seed=experiment.seed,
            start_step=start_step,
            host_index=host_index,
            num_hosts=num_hosts,
            augment=get_augment(augment.policy, **own_settings(augment)),
            random_erasing=augment.random_erasing,
            area_range=augment.crop_area,
            aspect_ratio_range=augment.crop_aspect_ratio,
            flip=augment.flip,
            resize=augment.resize,
            mixup_alpha=augment.mixup_alpha,
            cutmix_alpha=augment.cutmix_alpha,
            shuffle_buffer_mib=data.shuffle_buffer_mib,
            on_error=data.on_error,
            max_error_fraction=data.max_error_fraction,
            service=data.service,
        )

    return make


def train_batch_spec(
    experiment: Experiment, spec: ModelSpec, distribution: Distribution
) -> dict[str, tf.TensorSpec]:
    """One replica's training batch."""
    size = experiment.train.global_batch_size // distribution.num_replicas
    labels = tf.TensorSpec([size], tf.int32)
    if experiment.augment.mixes_labels:
        labels = tf.TensorSpec([size, experiment.model.num_classes], tf.float32)
    return {
        "image": tf.TensorSpec([size, spec.side, spec.side, 3], tf.uint8),
        "label": labels,
        "index": tf.TensorSpec([size], tf.int32),
    }


def eval_dataset(
    experiment: Experiment, spec: ModelSpec, source: Source, distribution: Distribution
) -> tuple[Callable[[int, int], tf.data.Dataset], int, int]:
    """Makes a host's evaluation batches; with it, how many steps and images there are."""
    split = experiment.data.eval_split
    size = eval_batch_size(experiment, distribution)
    num_examples = source.info.splits[split].num_examples

    def make(host_index: int, num_hosts: int) -> tf.data.Dataset:
        return make_eval_dataset(
            source,
            split,
            image_size=spec.side,
            host_batch_size=size // num_hosts,
            crop_padding=experiment.eval.crop_padding,
            host_index=host_index,
            num_hosts=num_hosts,
            resize=experiment.augment.resize,
            on_error=experiment.data.on_error,
            max_error_fraction=experiment.data.max_error_fraction,
        )

    hosts = distribution.num_hosts
    return make, eval_steps(num_examples, size // hosts, hosts), num_examples


def _batch_norm(experiment: Experiment, distribution: Distribution) -> Any:
    group = batch_norm_group_size(experiment.batch_norm.group, distribution.num_replicas)
    return functools.partial(
        CrossReplicaBatchNormalization, group_mean=distribution.group_mean(group)
    )


def make_optimizer(experiment: Experiment) -> optimizers.Optimizer:
    """The optimizer that the experiment names, with its settings."""
    given = experiment.optimizer
    return optimizers.OPTIMIZERS[given.name](**own_settings(given))


def make_schedule(experiment: Experiment, plan: Plan) -> schedules.Schedule:
    """The learning rate, with its warm-up, as a function of the step."""
    given, size = experiment.schedule, experiment.train.global_batch_size
    num_examples = round(plan.steps_per_epoch * size)
    steps = {"num_examples": num_examples, "global_batch_size": size}
    peak = schedules.scaled_rate(given.learning_rate, size)

    def in_steps(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(in_steps, value))
        return value.in_steps(**steps) if isinstance(value, Duration) else value

    settings = {name: in_steps(value) for name, value in own_settings(given).items()}
    make = schedules.SCHEDULES[given.name]
    schedule = make(peak=peak, total_steps=plan.total_steps, **settings)
    warmup_steps = given.warmup.whole_steps(**steps)
    return schedules.with_warmup(
        schedule, peak=peak, warmup_steps=warmup_steps, start=peak * given.warmup_from
    )
