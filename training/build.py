"""Build what a training step needs from a job: network, state and recipe."""

import functools
from fractions import Fraction
from typing import Any

import keras

from configs.durations import Duration
from configs.schema import Experiment
from configs.sections import own_settings
from efficientnet import ModelSpec, normalize_images, vary
from efficientnet.builder import build_network
from efficientnet.network import keep_probabilities
from efficientnet.weights.initialize import initialize
from efficientnet.weights.open import open_weights
from system.console import log
from training.devices.distribution import batch_norm_group_size
from training.job import Job, model_spec, skips_allowed
from training.optimizers import OPTIMIZERS, Optimizer, schedules
from training.plan import Stage
from training.step.batch_norm import CrossReplicaBatchNormalization
from training.step.ema import Averaging
from training.step.noise import MaskNoise
from training.step.recipe import Normalize, TrainRecipe
from training.step.state import TrainState, create_train_state
from training.step.weight_decay import WeightDecay
from training.trainable import Paths, frozen_paths, rate_multipliers


def make_state(job: Job, *, initial_weights: str | None = None) -> tuple[TrainState, MaskNoise]:
    """Build the network and its replicated state, and the noise for its dropout masks.

    Args:
      job: names the network and the replicas.
      initial_weights: where the initial weights are, of any format; None initializes at random.
    """
    experiment = job.experiment
    noise = MaskNoise(experiment.seed)
    keras.utils.set_random_seed(experiment.seed)
    with job.distribution.strategy.scope():
        spec = _spec_of_all_stages(job)
        network = build_network(
            job.task.layers(spec),
            name=spec.name,
            outputs=job.task.outputs,
            image_size=None,  # training, evaluation and stages differ in size; a trace fixes its own
            dtype=job.precision,
            batch_norm=_batch_norm(job),
            uniform=noise,
        )
        if initial_weights:
            weights = open_weights(initial_weights, job.spec).weights
            log(str(initialize(network, weights, initial_weights)))
    state = create_train_state(
        network,
        job.distribution,
        optimizer=make_optimizer(experiment),
        with_ema=experiment.ema.decay > 0,
        with_loss_scale=job.precision == "mixed_float16",
        skips_allowed=skips_allowed(experiment),
    )
    return state, noise


def make_recipe(job: Job, network: keras.Model, noise: MaskNoise) -> TrainRecipe:
    """Return the recipe of a training step of `network` in the job's stage.

    Raises:
      UsageError: train.trainable matches no variable of the network.
    """
    experiment = job.experiment
    train, ema = experiment.train, experiment.ema
    return TrainRecipe(
        task=job.task,
        optimizer=make_optimizer(experiment),
        learning_rate=make_schedule(job.current_stage),
        normalize=make_normalizer(job),
        noise=noise,
        weight_decay=make_weight_decay(experiment),
        keep_probabilities=keep_probabilities(job.task.layers(job.spec)),
        frozen=frozen_paths(
            Paths.of(network),
            job.spec,
            train.trainable,
            freeze_batch_norm=train.freeze_batch_norm,
        ),
        rate_multipliers=rate_multipliers(network, job.spec, experiment.optimizer.layer_decay),
        gradient_clip_norm=train.gradient_clip_norm,
        gradient_clip_each=train.gradient_clip_each,
        accumulation_steps=train.accumulation_steps,
        averaging=Averaging(ema.decay, ema.ramp, ema.ramp_start, ema.statistics),
    )


def check_trainable(job: Job, network: keras.Model) -> None:
    """Check that `train.trainable` of every stage matches variables of the network.

    Raises:
      UsageError: it matches none.
    """
    for stage in job.plan.stages:
        rule = stage.experiment.train.trainable
        frozen_paths(Paths.of(network), job.spec, rule, freeze_batch_norm=False)


def _spec_of_all_stages(job: Job) -> ModelSpec:
    """Return the specification of a network that has every layer that some stage uses."""
    specs = [model_spec(stage.experiment) for stage in job.plan.stages]
    return vary(
        job.spec,
        dropout=max(spec.dropout for spec in specs),
        survival_probability=min(spec.survival_probability for spec in specs),
    )


def make_normalizer(job: Job) -> Normalize:
    """Return a function that normalizes uint8 images for the network, on the device."""
    spec, precision = job.spec, job.precision
    return lambda images: normalize_images(images, spec.mean_rgb, spec.stddev_rgb, precision)


def make_weight_decay(experiment: Experiment) -> WeightDecay:
    """Return the weight decay: its rate, its variables and its form."""
    train, coupled = experiment.train, experiment.train.weight_decay_coupled
    if coupled is None:
        coupled = make_optimizer(experiment).couples_decay
    return WeightDecay(train.weight_decay, coupled, train.weight_decay_pattern)


def make_optimizer(experiment: Experiment) -> Optimizer:
    """Return the optimizer that the experiment names, with its settings."""
    given = experiment.optimizer
    return OPTIMIZERS[given.name](**own_settings(given))


def make_schedule(stage: Stage) -> schedules.Schedule:
    """Return the learning rate of a stage, with its warm-up, as a function of the step of the run."""
    given, size = stage.experiment.schedule, stage.global_batch_size
    # A schedule counts in steps of this stage's batch; those before it may have had another.
    total = Fraction(stage.schedule_end - stage.schedule_start, size)
    offset = Fraction(stage.first_example - stage.schedule_start, size) - stage.first_step
    steps = {"num_examples": stage.num_examples, "global_batch_size": size}
    peak = schedules.scaled_rate(given.learning_rate, size)

    def in_steps(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(in_steps, value))
        return value.in_steps(**steps) if isinstance(value, Duration) else value

    settings = {name: in_steps(value) for name, value in own_settings(given).items()}
    make = schedules.SCHEDULES[given.name]
    schedule = make(peak=peak, total_steps=float(total), **settings)
    warmup_steps = given.warmup.whole_steps(**steps)
    schedule = schedules.with_warmup(
        schedule, peak=peak, warmup_steps=warmup_steps, start=peak * given.warmup_from
    )
    return schedules.shift(schedule, float(offset))


def _batch_norm(job: Job) -> Any:
    group = batch_norm_group_size(job.experiment.batch_norm.group, job.distribution.num_replicas)
    return functools.partial(
        CrossReplicaBatchNormalization, group_mean=job.distribution.group_mean(group)
    )
