"""What an experiment is: every field with its unit, range and default.

The defaults are the published EfficientNet recipe (AutoAugment, 350 epochs), so a YAML file holds
what differs from it. Everything is frozen and validated; an unknown key is an error. The comment of
a field is its line in docs/experiments.md; where a value is None it says where the real one comes
from.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from configs.durations import Duration, PositiveDuration


class ConflictError(ValueError):
    """Values that are right alone and wrong together; `keys` are theirs, in full (`model.phi`)."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("the first number is above the second")
    return pair


Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Natural = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
ZeroToOne = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Text = Annotated[str, Field(min_length=1)]
Address = Annotated[
    str,
    Field(pattern=r"^grpc://[^/\s]+:[0-9]+$", description="grpc://HOST:PORT"),
]
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
FileName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$",
        description="a name of letters, digits and _ . + - that begins with a letter or digit",
    ),
]


class Section(BaseModel):
    """A part of an experiment: frozen, and strict about its keys and their types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Model(Section):
    """The network, by name or by scaling coefficients over that name's."""

    name: Text = "efficientnet-b0"  # a row of the catalog
    num_classes: Count | None = None  # None: as many as the data set has
    image_size: Annotated[int, Field(ge=8)] | None = None  # pixels; None: the model's own
    width: Positive | None = None  # multiplier of filters; None: the model's own
    depth: Positive | None = None  # multiplier of repeats; None: the model's own
    phi: NotNegative | None = None  # compound scaling, instead of width and depth
    dropout: Fraction | None = None  # before the classifier; None: the model's own
    survival_probability: Share | None = None  # of the last block; None: the model's own

    @model_validator(mode="after")
    def _one_way_to_scale(self) -> "Model":
        if self.phi is not None and (self.width or self.depth):
            raise ConflictError(
                f"model.phi={self.phi:g} sets width and depth: give either phi or those",
                "model.phi",
                "model.width",
                "model.depth",
            )
        return self


class Data(Section):
    """Where the images come from, and how they are read."""

    source: Text = "tfrecord"  # tfrecord | image_folder | digits | synthetic | tfds:NAME
    data_dir: Text | None = None  # a folder or gs:// path; --data_dir
    eval_split: Literal["validation", "minival"] = "validation"  # minival: the holdout shards
    holdout_shards: Natural = 0  # first train shards kept back as minival
    num_train_examples: Count | None = None  # synthetic data only: how many images are imagined
    shuffle_buffer_mib: Positive = 1024.0  # MiB of encoded images per host
    cache: Literal["none", "memory", "disk"] = "none"  # encoded images, read once and kept near
    cache_dir: Text | None = None  # for cache=disk: a folder on a local disk
    service: Address | None = None  # grpc://HOST:PORT of a data service that makes training images
    on_error: Literal["fail", "skip"] = "fail"  # what a broken image does; skipped ones are counted
    max_error_fraction: Fraction = 0.001  # of the examples read; more than that stops the run

    @model_validator(mode="after")
    def _what_is_asked_for_exists(self) -> "Data":
        if self.eval_split == "minival" and not self.holdout_shards:
            raise ConflictError(
                "data.eval_split=minival evaluates the holdout shards, and there are none:"
                " data.holdout_shards must be at least 1 (20 of ImageNet's 1024 in the recipe)",
                "data.eval_split",
                "data.holdout_shards",
            )
        return self

    @model_validator(mode="after")
    def _images_are_kept_in_one_place(self) -> "Data":
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
                " other machines read them: give one of the two",
                "data.cache",
                "data.service",
            )
        return self


class Augment(Section):
    """How training images are cropped and augmented."""

    policy: Literal["none", "autoaugment", "randaugment"] = "autoaugment"  # after crop and flip
    layers: Count = 2  # RandAugment: operations per image
    magnitude: NotNegative = 10.0  # RandAugment: level, 10 is the tables' full range
    magnitude_std: NotNegative = 0.0  # RandAugment: spread of the level
    quirks: bool = True  # keep the published code's deviations from the papers
    flip: bool = True  # mirror half of the images
    crop_area: ShareRange = (0.08, 1.0)  # share of the image's area
    crop_aspect_ratio: Range = (0.75, 1.3333333333333333)  # width / height
    resize: Literal["bicubic", "bilinear"] = "bicubic"  # of the crop to the model's size
    random_erasing: ZeroToOne = 0.0  # share of the images of which a rectangle becomes noise
    mixup_alpha: NotNegative = 0.0  # blend pairs of images, by Beta(alpha, alpha); 0: off
    cutmix_alpha: NotNegative = 0.0  # paste parts of a pair's other image; 0: off; both: in turns

    @property
    def mixes_labels(self) -> bool:
        """Whether training images show shares of several classes."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0


class Train(Section):
    """The loop: how much, in what batches, on which loss."""

    global_batch_size: Count = 4096  # examples per update, over all replicas and accumulation steps
    duration: PositiveDuration = Duration(350, "epochs")  # of the whole training
    accumulation_steps: Count = 1  # micro-batches per update on each replica
    steps_per_call: Count = 100  # steps between two returns to Python
    label_smoothing: Fraction = 0.1  # share of the target spread evenly over all classes
    weight_decay: NotNegative = 1e-5  # L2 in the loss, not on batch norm's gamma and beta
    gradient_clip_norm: Positive | None = None  # global norm, after the all-reduce
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"  # by device
    on_nonfinite: Literal["stop", "skip"] = "stop"  # what a NaN loss or gradient does
    max_skipped_steps: Natural = 10  # for on_nonfinite=skip; more than that stops the run

    @model_validator(mode="after")
    def _micro_batches_are_whole(self) -> "Train":
        if self.global_batch_size % self.accumulation_steps:
            raise ConflictError(
                f"train.accumulation_steps={self.accumulation_steps} must divide"
                f" train.global_batch_size={self.global_batch_size}",
                "train.accumulation_steps",
                "train.global_batch_size",
            )
        return self


class Optimizer(Section):
    """What turns gradients into updates."""

    name: Literal["rmsprop", "sgd"] = "rmsprop"  # RMSProp as published: epsilon inside the root
    momentum: Fraction = 0.9  # of the update
    decay: Fraction = 0.9  # RMSProp: of the mean square
    epsilon: Positive = 1e-3  # RMSProp: inside the root
    nesterov: bool = False  # SGD: Nesterov's momentum


class Schedule(Section):
    """The learning rate over time."""

    name: Literal["exponential", "cosine", "constant"] = "exponential"  # after the warm-up
    learning_rate: Positive = 0.016  # per 256 examples of the global batch
    warmup: Duration = Duration(5, "epochs")  # linear from 0; overrides the schedule, no delay
    decay_every: PositiveDuration = Duration(2.4, "epochs")  # exponential: length of a stair
    decay_rate: Share = 0.97  # exponential: what a stair keeps of the rate


class Ema(Section):
    """The moving average of the weights that is evaluated and exported."""

    decay: Fraction = 0.9999  # 0: no averaging
    ramp: bool = True  # min(decay, (1 + step) / (10 + step)): useful from the first epoch on


class BatchNorm(Section):
    """Batch normalisation over the replicas."""

    momentum: Fraction | None = None  # of the moving mean and variance; None: the model family's
    epsilon: Positive | None = None  # added to the variance; None: the model family's
    group: Literal["recipe", "all", "none"] | Count = "recipe"  # replicas that share statistics


class Evaluation(Section):
    """When and how the model is measured."""

    every: PositiveDuration = Duration(1, "epochs")  # between two evaluations
    global_batch_size: Count | None = None  # None: the training batch, at most 1024
    crop_padding: Natural | None = None  # pixels; None: round(S * (1/.875 - 1))
    weights: Literal["ema", "raw"] | None = None  # which to measure; None: ema, raw if ema.decay=0
    timeout_minutes: Positive = 60.0  # --mode=eval_loop: to wait for the next checkpoint


class Checkpoint(Section):
    """What is kept of a run."""

    every: PositiveDuration = Duration(1, "epochs")  # between two checkpoints
    keep: Count = 3  # newest ones; the best is kept besides
    asynchronous: bool = True  # write while training goes on, never more than one write behind


class Init(Section):
    """Where the first weights come from."""

    weights: Text | None = None  # a .weights.h5 file (efficientnet.weights.convert); None: random


class Export(Section):
    """What the finished run leaves for serving."""

    formats: tuple[Literal["saved_model", "tflite", "onnx"], ...] = ("saved_model",)  # which files
    weights: Literal["ema", "raw"] | None = None  # which to export; None: ema, raw if ema.decay=0


class Experiment(Section):
    """All of it: what to train, on what, how, and what to keep."""

    name: FileName = "experiment"  # what the run is called
    model_dir: Text | None = None  # checkpoints, curves, exports; --model_dir; None: runs/NAME
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0  # of every random choice
    model: Model = Model()
    data: Data = Data()
    augment: Augment = Augment()
    train: Train = Train()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    ema: Ema = Ema()
    batch_norm: BatchNorm = BatchNorm()
    eval: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    init: Init = Init()
    export: Export = Export()

    @model_validator(mode="after")
    def _an_average_that_is_used_is_kept(self) -> "Experiment":
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
