"""Job: an experiment together with its data, its network and its devices."""

import dataclasses
import functools
from collections.abc import Callable

from configs.load import stage_experiments
from configs.schema import Experiment
from configs.sections import own_settings
from efficientnet import ModelSpec, Variation, describe_size, from_plain, get_spec, vary
from input_pipeline.errors import DatasetError
from input_pipeline.images.framing import EVAL_FRAMINGS
from input_pipeline.images.placement import height_width
from input_pipeline.images.view import EvalView
from input_pipeline.sources import Source, get_source
from input_pipeline.sources.cache import cache_source
from input_pipeline.sources.dataset_info import DatasetInfo
from system.errors import UsageError
from tasks import TASKS, Labels, Target, Task
from training.devices.distribution import Distribution, batch_norm_group_size
from training.initial import with_expectations
from training.plan import Plan, Stage, make_plan

LARGEST_EVAL_BATCH = 1024  # unless eval.global_batch_size is set


class ExperimentError(UsageError):
    """An experiment does not fit its data or devices."""


@dataclasses.dataclass(frozen=True)
class Job:
    """An experiment and what every mode of the program needs to run it.

    Attributes:
      experiment: experiment with the fields filled in that depend on data and network.
      spec: specification of the network.
      data_info: names, classes and counts of the data.
      distribution: the replicas.
      task: loss and score.
      plan: the run in steps.
      stage: the stage whose settings `experiment`, `spec` and `task` have; None: those of the whole run.
      source: opens the images and returns the same source at every call; not needed to plan or export.
    """

    experiment: Experiment
    spec: ModelSpec
    data_info: DatasetInfo
    distribution: Distribution
    task: Task
    plan: Plan
    source: Callable[[], Source]
    stage: Stage | None = None

    @property
    def model_dir(self) -> str:
        """The run's folder, local or gs://."""
        return str(self.experiment.model_dir)

    @property
    def current_stage(self) -> Stage:
        """The stage of a job from `at`."""
        assert self.stage, "of no stage; see Job.at"
        return self.stage

    def at(self, step: int) -> "Job":
        """Return this job under the settings of the stage that comes after `step` updates."""
        stage = self.plan.stage_at(step)
        experiment = stage.experiment
        return dataclasses.replace(
            self,
            experiment=experiment,
            spec=model_spec(experiment),
            task=make_task(experiment, self.data_info),
            stage=stage,
        )

    @property
    def precision(self) -> str:
        """Keras' dtype policy; "auto" is the recipe's bfloat16 on TPUs and float32 elsewhere."""
        given = self.experiment.train.precision
        if given == "auto":
            return "mixed_bfloat16" if self.distribution.is_tpu else "float32"
        return given

    @property
    def eval_batch_size(self) -> int:
        """Global batch size of evaluations."""
        return eval_batch_size(self.experiment, self.distribution.num_replicas)

    def with_cached_images(self) -> "Job":
        """Return this job with its images cached as data.cache asks, in memory or on a local disk.

        Raises:
          DatasetError: they do not fit.
        """
        data = self.experiment.data
        cached = cache_source(
            self.source(),
            data.cache,
            data.cache_dir,
            splits=("train", data.eval_split),
            skip_damage=data.on_error == "skip",
        )
        return dataclasses.replace(self, source=lambda: cached)


def open_job(experiment: Experiment, distribution: Distribution) -> Job:
    """Check that an experiment fits its devices, its network and its data, and build its job.

    Initial weights fill in settings that are open; see `initial.with_expectations`.

    Raises:
      UsageError: batches or groups do not divide among the replicas, the model is unknown, or the number of
        classes is not that of the data.
      DatasetError: the data cannot be read, or a split is missing.
    """
    for each in stage_experiments(experiment):
        check_batches(each, distribution)
        model_spec(each)
    experiment = with_expectations(experiment, model_spec)
    source = functools.cache(lambda: open_source(experiment, model_spec(experiment)))
    return make_job(experiment, source().info, distribution, source)


def make_job(
    experiment: Experiment,
    data_info: DatasetInfo,
    distribution: Distribution,
    source: Callable[[], Source] | None = None,
) -> Job:
    """Build a job from the description of its data, without opening the images."""
    spec = model_spec(experiment)
    experiment = resolve(experiment, spec, data_info)
    return Job(
        experiment,
        spec,
        data_info,
        distribution,
        make_task(experiment, data_info),
        make_plan(experiment, data_info.splits["train"].num_examples),
        source or functools.cache(lambda: open_source(experiment, spec)),
    )


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
        "padding": model.padding,
    }
    try:
        if model.network:
            spec = vary(from_plain(model.network.model_dump()), **variation)
        else:
            scaling = {"width": model.width, "depth": model.depth, "phi": model.phi}
            spec = get_spec(model.name, **scaling, **variation)
        return spec
    except ValueError as error:
        raise ExperimentError(f"model: {error}") from error


def open_source(experiment: Experiment, spec: ModelSpec) -> Source:
    """Open the images that the experiment names.

    Raises:
      DatasetError: they cannot be found or read.
    """
    data = experiment.data
    settings = own_settings(data)
    settings.pop("shuffle_buffer_mib", None)  # of the reading; see training/inputs.py
    return get_source(
        data.source,
        **settings,
        num_classes=experiment.model.num_classes,
        image_size=height_width(spec.resolution),
        skip_damage=data.on_error == "skip",
        target=make_target(experiment),
    )


def eval_view(experiment: Experiment, spec: ModelSpec) -> EvalView:
    """Return what the network sees of an image in evaluation and in serving."""
    given = experiment.eval
    framing = EVAL_FRAMINGS[given.framing](**own_settings(given))
    return EvalView(
        given.image_size or spec.eval_resolution, framing, given.resize or experiment.augment.resize
    )


def describe_sizes(experiment: Experiment, spec: ModelSpec) -> str:
    """Describe the sizes of the images: "300 px, evaluated at 384 px"; `spec` is that of a stage."""
    trained, evaluated = spec.resolution, eval_view(experiment, model_spec(experiment)).size
    text = f"{describe_size(trained)} px"
    if height_width(trained) != height_width(evaluated):
        text += f", evaluated at {describe_size(evaluated)} px"
    return text


def make_task(experiment: Experiment, data_info: DatasetInfo) -> Task:
    """Return the task of a data set; the experiment's number of classes must be known.

    Raises:
      UsageError: the settings of the task do not fit the data.
    """
    assert experiment.model.num_classes
    kind, settings = TASKS[experiment.task.name], own_settings(experiment.task)
    return kind.task(
        Labels(experiment.model.num_classes, data_info.splits["train"].class_counts),
        experiment.train.label_smoothing,
        **{name: x for name, x in settings.items() if name not in kind.target_settings},
    )


def make_target(experiment: Experiment) -> Target:
    """Return what the task reads beside the images."""
    kind, settings = TASKS[experiment.task.name], own_settings(experiment.task)
    return kind.target(**{name: settings[name] for name in kind.target_settings})


def check_batches(experiment: Experiment, distribution: Distribution) -> None:
    """Check that batches and groups of batch norm divide among the replicas.

    Raises:
      ExperimentError: a batch does not divide.
      DistributionError: a group does not divide the number of replicas.
    """
    replicas, accumulation = distribution.num_replicas, experiment.train.accumulation_steps
    for key, size in (
        ("train.global_batch_size", experiment.train.global_batch_size),
        ("eval.global_batch_size", eval_batch_size(experiment, replicas)),
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


def eval_batch_size(experiment: Experiment, num_replicas: int) -> int:
    """Return the global batch size of evaluations: as set, else the training batch up to a limit."""
    if given := experiment.eval.global_batch_size:
        return given
    largest = min(experiment.train.global_batch_size, LARGEST_EVAL_BATCH)
    return max(largest - largest % num_replicas, num_replicas)


def skips_allowed(experiment: Experiment) -> int:
    """Return how many non-finite steps are skipped before the run stops."""
    train = experiment.train
    if train.on_nonfinite == "stop":
        return 0
    return 10 if train.max_skipped_steps is None else train.max_skipped_steps


def resolve(experiment: Experiment, spec: ModelSpec, data_info: DatasetInfo) -> Experiment:
    """Fill in the fields of the experiment that depend on data and network.

    Raises:
      ExperimentError: the number of classes is not that of the data.
      DatasetError: a split is missing.
    """
    wanted, found = experiment.model.num_classes, data_info.num_classes
    if wanted is not None and wanted != found:
        raise ExperimentError(
            f"model.num_classes: {wanted}, but the classes of {data_info.name} are {found}; "
            "set model.num_classes=null to take the data's"
        )
    for split in ("train", experiment.data.eval_split):
        if split not in data_info.splits:
            raise DatasetError(f"{data_info.name} has no split {split!r}")
    # phi sets width, depth and size together; a size beside it would be refused on resume.
    size = {} if experiment.model.phi is not None else {"image_size": spec.resolution}
    model = experiment.model.model_copy(update={"num_classes": found, **size})
    return experiment.model_copy(update={"model": model})
