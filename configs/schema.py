"""The schema of an experiment: every field with its unit, range and default.

The defaults are the published EfficientNet recipe (AutoAugment, 350 epochs), so a YAML file needs only
the differences. Everything is frozen and validated; an unknown key is an error. The comment of a field is
its line in docs/experiments.md; if the default is None, it has the source of the real value. Some
sections come in kinds (see configs.sections): the class that they extend has the fields that all of them
share.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from configs.durations import Duration, Part, PositiveDuration
from configs.model_file import Network, Normalization
from configs.model_file import Size as ModelSize
from configs.sections import By, Kinds, Section, kinds_of


class ConflictError(ValueError):
    """Values that are valid alone and not together; `keys` are their full keys (`model.phi`)."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("the first number is above the second")
    return pair


BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Natural = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
ZeroToOne = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Text = Annotated[str, Field(min_length=1)]


def _compiles(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(str(error)) from error
    return text


Pattern = Annotated[
    str, AfterValidator(_compiles), Field(description="a regular expression", min_length=1)
]
NOT_BATCH_NORM = r"(?!.*/(gamma|beta)$)"
Address = Annotated[
    str,
    Field(pattern=r"^grpc://[^/\s]+:[0-9]+$", description="grpc://HOST:PORT"),
]
Size = Annotated[ModelSize, Field(description="pixels, at least 8, or [height, width]")]
# With TensorFlow 1's kernels, or its later bilinear one, with half-pixel centres.
Resize = Literal["bicubic", "bilinear", "bilinear_half_pixel"]
Range = Annotated[
    tuple[Positive, Positive],
    AfterValidator(_rising),
    Field(description="[low, high], both above 0 and low not above high"),
]
ShareRange = Annotated[
    tuple[Share, Share],
    AfterValidator(_rising),
    Field(description="[low, high], both above 0, at most 1, and low not above high"),
]
ModelFile = Annotated[Network, Field(description="the content of a model file")]
FileName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$",
        description="a name of letters, digits and _ . + - that begins with a letter or digit",
    ),
]
Growth = Annotated[
    tuple[NotNegative, NotNegative],
    Field(description="[first, last], two numbers of at least 0"),
]
Sides = Annotated[
    tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]],
    Field(description="[first, last], two whole numbers of at least 8"),
]
StageSettings = Annotated[
    Mapping[str, Any],
    Field(description="keys and values, as in {model.image_size: 128, augment.magnitude: 5}"),
]

# What a stage may set; a section stands for all of its fields. The rest is fixed when a run begins: it
# decides which variables there are, or which images.
STAGE_KEYS = (
    "model.image_size",
    "model.dropout",
    "model.survival_probability",
    "augment",
    "train.global_batch_size",
    "train.accumulation_steps",
    "train.steps_per_call",
    "train.label_smoothing",
    "train.weight_decay",
    "train.gradient_clip_norm",
    "train.gradient_clip_each",
    "train.trainable",
    "train.freeze_batch_norm",
    "optimizer.layer_decay",
    "schedule",
    "eval.every",
    "checkpoint.every",
)


# "recipe": none up to 8 replicas N, then max(8, N / 8), as V1; "up_to_8": min(8, N), as V2; "up_to_32":
# min(32, N), as the detector.
BatchNormGroup = Literal["recipe", "up_to_8", "up_to_32", "all", "none"]


TrainFraming = Literal["random_crop", "random_sample", "squash", "scale_jitter"]


class Model(Section):
    """The network, by name or by scaling coefficients over that name's."""

    name: Text = "efficientnet-b0"  # a row of the catalog, or the path of a model file (*.yaml)
    num_classes: Count | None = None  # None: as many as the data set has
    image_size: Size | None = None  # of the training images; None: the model's own
    width: Positive | None = None  # multiplier of filters; None: the model's own
    depth: Positive | None = None  # multiplier of repeats; None: the model's own
    phi: NotNegative | None = None  # compound scaling, instead of width and depth
    dropout: BelowOne | None = None  # before the classifier; None: the model's own
    survival_probability: Share | None = None  # of the last block; None: the model's own
    normalization: Normalization | None = None  # of the images; None: the model's own
    network: ModelFile | None = None  # what the model file holds, kept with the run

    @model_validator(mode="after")
    def _check_scaling(self) -> "Model":
        if self.phi is not None and (self.width or self.depth):
            raise ConflictError(
                f"model.phi={self.phi:g} sets width and depth: give either phi or those",
                "model.phi",
                "model.width",
                "model.depth",
            )
        return self

    @model_validator(mode="after")
    def _check_model_file(self) -> "Model":
        if self.network is None:
            return self
        for key in ("width", "depth", "phi"):
            if getattr(self, key) is not None:
                raise ConflictError(
                    f"model.{key}={getattr(self, key):g} scales published models, and"
                    f" {self.name} is a model file: set model.{key}=null",
                    f"model.{key}",
                    "model.name",
                )
        if self.network.name != self.name:
            raise ConflictError(
                f"model.name={self.name}, but model.network is {self.network.name}",
                "model.name",
                "model.network",
            )
        return self


class Task(Section):
    """What the network learns."""

    name: str  # how labels become a loss and a score


class Classification(Task):
    """One class for each image: softmax."""

    name: Literal["classification"] = "classification"


class MultiLabel(Task):
    """Any number of classes for each image: a sigmoid for each class."""

    name: Literal["multi_label"] = "multi_label"
    max_labels: Count = 32  # largest number of labels of an image


class Data(Section):
    """Where the images come from, and how they are read."""

    source: str  # what holds the images
    eval_split: Literal["validation", "minival"] = "validation"  # minival: the holdout shards
    shuffle_buffer_mib: Positive = 1024.0  # MiB of encoded images per host
    cache: Literal["none", "memory", "disk"] = "none"  # encoded images, read once and kept here
    cache_dir: Text | None = None  # for cache=disk: a folder on a local disk
    service: Address | None = None  # grpc://HOST:PORT of a data service that makes training images
    on_error: Literal["fail", "skip"] = "fail"  # at a broken image; skipped ones are counted
    max_error_fraction: BelowOne = 0.001  # of the examples read; more than that stops the run

    @model_validator(mode="after")
    def _check_eval_split(self) -> "Data":
        if self.eval_split == "minival" and not hasattr(self, "holdout_shards"):
            raise ConflictError(
                "data.eval_split=minival evaluates the holdout shards, and"
                f" data.source={self.source} is not read in shards: expected validation",
                "data.eval_split",
                "data.source",
            )
        if self.eval_split == "minival" and not getattr(self, "holdout_shards", 0):
            raise ConflictError(
                "data.eval_split=minival evaluates the holdout shards, and there are none:"
                " data.holdout_shards must be at least 1 (20 of ImageNet's 1024 in the recipe)",
                "data.eval_split",
                "data.holdout_shards",
            )
        return self

    @model_validator(mode="after")
    def _check_errors(self) -> "Data":
        default = Data.model_fields["max_error_fraction"].default
        if self.on_error != "skip" and self.max_error_fraction != default:
            raise ConflictError(
                f"data.max_error_fraction={self.max_error_fraction:g} has no effect with"
                f" data.on_error={self.on_error}: it is for skip",
                "data.max_error_fraction",
                "data.on_error",
            )
        return self

    @model_validator(mode="after")
    def _check_cache(self) -> "Data":
        if self.cache == "disk" and not self.cache_dir:
            raise ConflictError(
                "data.cache=disk needs data.cache_dir, a folder on a local disk",
                "data.cache",
                "data.cache_dir",
            )
        if self.cache_dir and self.cache != "disk":
            raise ConflictError(
                f"data.cache_dir={self.cache_dir} is for data.cache=disk, not {self.cache}",
                "data.cache",
                "data.cache_dir",
            )
        if self.service and self.cache != "none":
            raise ConflictError(
                f"data.cache={self.cache} keeps images on this host, and with data.service={self.service}"
                " other machines read them; give one of the two",
                "data.cache",
                "data.service",
            )
        return self


class TFRecord(Data):
    """TFRecord shards, as `python -m input_pipeline.prepare` writes them."""

    source: Literal["tfrecord"] = "tfrecord"
    data_dir: Text | None = None  # folder or gs:// path of the shards; --data_dir
    holdout_shards: Natural = 0  # first train shards kept back as minival


class ImageFolder(Data):
    """Image files in a folder for each class."""

    source: Annotated[
        str,
        Field(pattern=r"^image_folder(:[^:]+)?$", description="image_folder[:SHARE]"),
    ] = "image_folder"
    data_dir: Text | None = None  # the folder above the classes'; --data_dir


class CSV(Data):
    """Image files that CSV files list with their labels."""

    source: Annotated[str, Field(pattern=r"^csv(:[^:]+)?$", description="csv[:SHARE]")] = "csv"
    data_dir: Text | None = None  # the training list, or the folder of train.csv; --data_dir


class Digits(Data):
    """The 1,797 handwritten digits that ship inside scikit-learn."""

    source: Literal["digits"] = "digits"
    data_dir: Text | None = None  # where to write them as TFRecords; None: data/digits; --data_dir


class Synthetic(Data):
    """Noise of the model's image size, for tests."""

    source: Literal["synthetic"] = "synthetic"
    num_train_examples: Count | None = None  # training images; None: as many as ImageNet


class TFDS(Data):
    """A data set that TensorFlow Datasets has prepared, in TFRecord format."""

    source: Annotated[str, Field(pattern=r"^tfds:.+$", description="tfds:NAME")]
    data_dir: Text | None = None  # its data_dir; None: ~/tensorflow_datasets; --data_dir
    holdout_shards: Natural = 0  # first train shards kept back as minival


class Augment(Section):
    """How training images are cropped and augmented."""

    policy: str  # operations after crop and flip
    framing: TrainFraming = "random_crop"  # the part shown; random_sample: V2's random_crop
    flip: bool = True  # mirror half of the images
    crop_area: ShareRange = (0.08, 1.0)  # of random_crop and _sample: share of the image's area
    crop_aspect_ratio: Range = (0.75, 1.3333333333333333)  # of those two: width / height
    scale_range: Range = (0.1, 2.0)  # of scale_jitter: times the scale at which the image fits
    resize: Resize = "bicubic"  # of the part to the model's size
    random_erasing: ZeroToOne = 0.0  # share of the images of which a rectangle becomes noise
    mixup_alpha: NotNegative = 0.0  # blend pairs of images, by Beta(alpha, alpha); 0: off
    cutmix_alpha: NotNegative = 0.0  # paste parts of a pair's other image; 0: off; both: in turns
    pairing: Literal["neighbours", "reversed"] = "neighbours"  # for mixing; reversed: as V2's code

    @property
    def mixes_labels(self) -> bool:
        """Whether training images show shares of several classes."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0

    @model_validator(mode="after")
    def _check_framing(self) -> "Augment":
        windows = ("random_crop", "random_sample")
        for key, framings in (
            ("crop_area", windows),
            ("crop_aspect_ratio", windows),
            ("scale_range", ("scale_jitter",)),
        ):
            value, default = getattr(self, key), Augment.model_fields[key].default
            if self.framing not in framings and value != default:
                raise ConflictError(
                    f"augment.{key}={list(value)} has no effect with augment.framing={self.framing}: it is"
                    f" for {' and '.join(framings)}; leave it out, or set augment.{key}={list(default)}",
                    f"augment.{key}",
                    "augment.framing",
                )
        if self.framing == "scale_jitter" and self.mixes_labels:
            raise ConflictError(
                "augment.framing=scale_jitter pads each image differently, and mixup and cutmix would mix"
                " images with padding: set augment.mixup_alpha=0 and augment.cutmix_alpha=0",
                "augment.framing",
                "augment.mixup_alpha",
                "augment.cutmix_alpha",
            )
        return self


class AutoAugment(Augment):
    """AutoAugment v0 (arXiv 1805.09501), the published recipe's."""

    policy: Literal["autoaugment"] = "autoaugment"
    quirks: bool = True  # keep the published code's deviations from the papers


class RandAugment(Augment):
    """RandAugment (arXiv 1909.13719): operations drawn uniformly, all at one level."""

    policy: Literal["randaugment"] = "randaugment"
    layers: Count = 2  # operations per image
    magnitude: NotNegative = 10.0  # level of the operations; 10 is the tables' full range
    magnitude_std: NotNegative = 0.0  # standard deviation of the level
    quirks: bool = True  # keep the published code's deviations from the papers


class Cutout(Augment):
    """A square of noise in every image, as EfficientNetV2 is fine-tuned."""

    policy: Literal["cutout"] = "cutout"


class NoAugment(Augment):
    """Crop and flip alone."""

    policy: Literal["none"] = "none"


class Train(Section):
    """The training loop: its length, its batches and its loss."""

    global_batch_size: Count = 4096  # examples per update, over all replicas and accumulation steps
    duration: PositiveDuration = Duration(350, "epochs")  # of the whole training
    patience: Count | None = None  # evaluations in a row below the best end it; None: never
    accumulation_steps: Count = 1  # micro-batches per update on each replica
    steps_per_call: Count = 100  # steps between two returns to Python
    label_smoothing: BelowOne = 0.1  # share of the target spread evenly over all classes
    weight_decay: NotNegative = 1e-5  # of the variables in weight_decay_pattern
    weight_decay_coupled: bool | None = None  # L2 in the loss, or apart; None: by the optimizer
    weight_decay_pattern: Pattern = NOT_BATCH_NORM  # paths of the variables that decay
    gradient_clip_norm: Positive | None = None  # of the whole gradient, after the all-reduce
    gradient_clip_each: Positive | None = None  # of the gradient of each variable
    trainable: Text | tuple[Text, ...] = "all"  # all, head, blocks>=N, or patterns of paths
    freeze_batch_norm: bool = False  # normalise by the moving statistics, and keep them
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"  # by device
    on_nonfinite: Literal["stop", "skip"] = "stop"  # at a loss or gradient that is not finite
    max_skipped_steps: Natural | None = None  # for on_nonfinite=skip: more stop the run; None: 10

    @model_validator(mode="after")
    def _check_skipped_steps(self) -> "Train":
        if self.max_skipped_steps is not None and self.on_nonfinite != "skip":
            raise ConflictError(
                f"train.max_skipped_steps={self.max_skipped_steps} has no effect with"
                f" train.on_nonfinite={self.on_nonfinite}: it is for skip",
                "train.max_skipped_steps",
                "train.on_nonfinite",
            )
        return self

    @model_validator(mode="after")
    def _check_micro_batches(self) -> "Train":
        if self.global_batch_size % self.accumulation_steps:
            raise ConflictError(
                f"train.accumulation_steps={self.accumulation_steps} must divide"
                f" train.global_batch_size={self.global_batch_size}",
                "train.accumulation_steps",
                "train.global_batch_size",
            )
        return self


class Optimizer(Section):
    """The rule that turns gradients into updates."""

    name: str  # the update rule
    layer_decay: Share = 1.0  # factor on the rate for each stage below the classifier


class RMSProp(Optimizer):
    """RMSProp as published: momentum over the scaled rate, epsilon inside the root."""

    name: Literal["rmsprop"] = "rmsprop"
    decay: BelowOne = 0.9  # of the mean square
    momentum: BelowOne = 0.9  # of the update
    epsilon: Positive = 1e-3  # added to the mean square, inside the root


class SGD(Optimizer):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    momentum: BelowOne = 0.9  # of the gradient
    nesterov: bool = False  # Nesterov's momentum: look one step ahead
    rate_in_velocity: bool = False  # Keras' form: a change of the rate acts on new gradients alone


class AdamW(Optimizer):
    """Adam with bias correction (arXiv 1412.6980); decoupled decay by train.weight_decay_coupled."""

    name: Literal["adamw"] = "adamw"
    beta_1: BelowOne = 0.9  # of the mean gradient
    beta_2: BelowOne = 0.999  # of the mean square
    epsilon: Positive = 1e-8  # added to the root of the mean square


class LARS(Optimizer):
    """Layer-wise rates for large batches (arXiv 1708.03888)."""

    name: Literal["lars"] = "lars"
    momentum: BelowOne = 0.9  # of the scaled gradient
    coefficient: Positive = 0.001  # how far a variable may move, as a share of its norm
    unscaled: Pattern = r".*/(gamma|beta|bias)$"  # paths of the variables with the plain rate


class Schedule(Section):
    """The learning rate over time."""

    name: str  # the curve after the warm-up
    learning_rate: Positive = 0.016  # per 256 examples of the global batch
    warmup: Duration = Duration(5, "epochs")  # linear; overrides the schedule, no delay
    warmup_from: ZeroToOne = 0.0  # where the warm-up starts, as a share of the peak


class Exponential(Schedule):
    """A staircase that falls by the same factor each time."""

    name: Literal["exponential"] = "exponential"
    decay_every: PositiveDuration = Duration(2.4, "epochs")  # length of a stair
    decay_rate: Share = 0.97  # factor from one stair to the next


class Cosine(Schedule):
    """Half a cosine, down to 0 at the end of the training."""

    name: Literal["cosine"] = "cosine"


class Polynomial(Schedule):
    """A power of the time left: 1 is a straight line."""

    name: Literal["polynomial"] = "polynomial"
    power: Positive = 1.0  # exponent of the share of the training that is left
    end_share: ZeroToOne = 0.0  # rate at the end, as a share of the peak


class Stepwise(Schedule):
    """Constant between boundaries."""

    name: Literal["stepwise"] = "stepwise"
    boundaries: tuple[PositiveDuration, ...] = ()  # where the next factor takes over
    factors: tuple[ZeroToOne, ...] = (1.0,)  # of the peak: before, between and after them

    @model_validator(mode="after")
    def _check_factors(self) -> "Stepwise":
        if len(self.factors) != len(self.boundaries) + 1:
            raise ConflictError(
                f"schedule.factors has {len(self.factors)} entries for {len(self.boundaries)} boundaries;"
                " expected one more than boundaries",
                "schedule.factors",
                "schedule.boundaries",
            )
        return self


class Constant(Schedule):
    """The same rate at every step."""

    name: Literal["constant"] = "constant"


class Ema(Section):
    """The moving average of the weights that is evaluated and exported."""

    decay: BelowOne = 0.9999  # 0: no averaging
    ramp: bool = True  # min(decay, (1 + t) / (10 + t)): useful from the first epoch on
    ramp_start: Annotated[int, Field(ge=0, le=1)] = 1  # t at the first update; the detector's: 0
    statistics: bool = True  # average batch norm's statistics too; false: take them as they are

    @model_validator(mode="after")
    def _check_effect(self) -> "Ema":
        if self.ramp_start != 1 and not (self.ramp and self.decay):
            raise ConflictError(
                f"ema.ramp_start={self.ramp_start} has no effect without a ramp: it needs ema.ramp=true"
                " and ema.decay above 0",
                "ema.ramp_start",
                "ema.ramp",
                "ema.decay",
            )
        if not self.ramp and not self.decay:
            raise ConflictError(
                "ema.ramp=false has no effect with ema.decay=0, which keeps no average",
                "ema.ramp",
                "ema.decay",
            )
        if not self.statistics and not self.decay:
            raise ConflictError(
                "ema.statistics=false has no effect with ema.decay=0, which keeps no average",
                "ema.statistics",
                "ema.decay",
            )
        return self


class BatchNorm(Section):
    """Batch normalisation over the replicas."""

    momentum: BelowOne | None = None  # of the moving mean and variance; None: the model family's
    epsilon: Positive | None = None  # added to the variance; None: the model family's
    group: BatchNormGroup | Count = "recipe"  # replicas that share statistics, by rule or number


class Evaluation(Section):
    """When and how the model is measured, and what the exports show it."""

    framing: str  # the part of an image that is shown
    image_size: Size | None = None  # None: the model's own, or model.image_size
    resize: Resize | None = None  # of the part to that size; None: augment.resize
    every: PositiveDuration = Duration(1, "epochs")  # between two evaluations
    global_batch_size: Count | None = None  # None: the training batch, at most 1024
    weights: Literal["ema", "raw"] | None = None  # which to measure; None: ema, raw if ema.decay=0
    timeout_minutes: Positive = 60.0  # --mode=eval_loop: to wait for the next checkpoint


class CenterCrop(Evaluation):
    """The centre, S / (S + crop_padding) of the largest window of the result's shape, S its shorter side."""

    framing: Literal["center_crop"] = "center_crop"
    crop_padding: Natural | None = None  # pixels; None: round(S * (1/.875 - 1))
    odd_pixels: Literal["before", "after"] = "before"  # where one too many is cut; V2's: after


class Squash(Evaluation):
    """The whole image, whatever its aspect ratio."""

    framing: Literal["squash"] = "squash"


class Letterbox(Evaluation):
    """The whole image at its aspect ratio, with zeros around it after the normalisation."""

    framing: Literal["letterbox"] = "letterbox"
    alignment: Literal["center", "top_left"] = "center"  # where the image is


class Checkpoint(Section):
    """Which checkpoints a run keeps."""

    every: PositiveDuration = Duration(1, "epochs")  # between two checkpoints
    keep: Count = 3  # newest ones; the best is kept too
    asynchronous: bool = True  # write while training goes on, never more than one write behind


class Init(Section):
    """The source of the initial weights."""

    weights: Text | None = None  # a run, checkpoint, file or published name; None: random
    strict: bool = False  # fail where a value is set that the weights do not expect

    @model_validator(mode="after")
    def _check_strict(self) -> "Init":
        if self.strict and self.weights is None:
            raise ConflictError(
                "init.strict=true checks what init.weights expects, and there are none: set init.weights",
                "init.strict",
                "init.weights",
            )
        return self


class Export(Section):
    """The exports of a finished run."""

    formats: tuple[Literal["saved_model", "tflite", "onnx"], ...] = ("saved_model",)  # which files
    weights: Literal["ema", "raw"] | None = None  # which to export; None: ema, raw if ema.decay=0


class StageOverlay(Section):
    """A part of the training with settings of its own."""

    duration: Part | None = None  # a share of train.duration, or a duration; None: the rest
    set: StageSettings = Field(default_factory=dict)  # values of this stage by key


class Progressive(Section):
    """Progressive learning: stages of one length whose images and regularisation grow."""

    stages: Annotated[int, Field(ge=2, le=8)] = 4  # number of stages
    rule: Literal["code", "paper"] = "code"  # how sizes grow: as the published code or the paper
    image_size: Sides | None = None  # [first, last]; None: constant; by code, stage 1 is larger
    magnitude: Growth | None = None  # of RandAugment, [first stage, last stage]; None: constant
    mixup_alpha: Growth | None = None  # [first stage, last stage]; None: constant
    cutmix_alpha: Growth | None = None  # [first stage, last stage]; None: constant
    dropout: Growth | None = None  # [first stage, last stage]; None: constant

    @model_validator(mode="after")
    def _check_effect(self) -> "Progressive":
        growing = [name for name in Progressive.model_fields if name not in ("stages", "rule")]
        if all(getattr(self, name) is None for name in growing):
            raise ConflictError(
                f"progressive has no effect without one of {', '.join(growing)}",
                "progressive",
            )
        if self.rule != "code" and self.image_size is None:
            raise ConflictError(
                f"progressive.rule={self.rule} has no effect without progressive.image_size, which it is for",
                "progressive.rule",
                "progressive.image_size",
            )
        return self


class Experiment(Section):
    """A whole experiment: the network, the data, the training, and what to keep."""

    name: FileName = "experiment"  # what the run is called
    model_dir: Text | None = None  # checkpoints, curves, exports; --model_dir; None: runs/NAME
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0  # of every random choice
    model: Model = Model()
    task: Annotated[Classification | MultiLabel, By("name")] = Classification()
    data: Annotated[TFRecord | ImageFolder | CSV | Digits | Synthetic | TFDS, By("source")] = (
        TFRecord()
    )
    augment: Annotated[AutoAugment | RandAugment | Cutout | NoAugment, By("policy")] = AutoAugment()
    train: Train = Train()
    optimizer: Annotated[RMSProp | SGD | AdamW | LARS, By("name")] = RMSProp()
    schedule: Annotated[Exponential | Cosine | Constant | Polynomial | Stepwise, By("name")] = (
        Exponential()
    )
    ema: Ema = Ema()
    batch_norm: BatchNorm = BatchNorm()
    eval: Annotated[CenterCrop | Squash | Letterbox, By("framing")] = CenterCrop()
    checkpoint: Checkpoint = Checkpoint()
    init: Init = Init()
    export: Export = Export()
    stages: tuple[StageOverlay, ...] = ()  # parts of the training, in order; none: one of all
    progressive: Progressive | None = None  # instead of `stages`, which it becomes when it is read

    @model_validator(mode="after")
    def _check_lars_decay(self) -> "Experiment":
        if self.optimizer.name == "lars" and self.train.weight_decay_coupled:
            raise ConflictError(
                "optimizer.name=lars takes the weight decay into its trust ratio, not into the loss: leave"
                " train.weight_decay_coupled out",
                "optimizer.name",
                "train.weight_decay_coupled",
            )
        return self

    @model_validator(mode="after")
    def _check_average_is_kept(self) -> "Experiment":
        for key, chosen in (
            ("eval.weights", self.eval.weights),
            ("export.weights", self.export.weights),
        ):
            if chosen == "ema" and not self.ema.decay:
                raise ConflictError(
                    f"{key}=ema needs a moving average, and ema.decay=0 keeps none: leave {key} out,"
                    " set it to raw, or raise ema.decay",
                    key,
                    "ema.decay",
                )
        return self


# The sections that come in kinds.
KINDS: Mapping[str, Kinds] = {
    name: kinds for name, field in Experiment.model_fields.items() if (kinds := kinds_of(field))
}


def section_classes() -> dict[str, tuple[type[Section], ...]]:
    """Return the possible classes of each section of an experiment."""
    classes: dict[str, tuple[type[Section], ...]] = {}
    for name, field in Experiment.model_fields.items():
        if name in KINDS:
            classes[name] = tuple(KINDS[name].classes.values())
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            classes[name] = (field.annotation,)
    return classes
