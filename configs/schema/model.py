"""The sections `model`, `batch_norm` and `init`: the network and what it starts from."""

from typing import Literal

from pydantic import model_validator

from configs.model_file import Normalization, Padding
from configs.schema.fields import (
    BelowOne,
    ConflictError,
    Count,
    ModelFile,
    NotNegative,
    Positive,
    Share,
    Size,
    Text,
)
from configs.sections import Section


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
    padding: Padding | None = None  # of strided convolutions; symmetric: PyTorch's; None: same
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


# "recipe": none up to 8 replicas N, then max(8, N / 8), as V1; "up_to_8": min(8, N), as V2; "up_to_32":
# min(32, N), as the detector.
BatchNormGroup = Literal["recipe", "up_to_8", "up_to_32", "all", "none"]


class BatchNorm(Section):
    """Batch normalisation over the replicas."""

    momentum: BelowOne | None = None  # of the moving mean and variance; None: the model family's
    epsilon: Positive | None = None  # added to the variance; None: the model family's
    group: BatchNormGroup | Count = "recipe"  # replicas that share statistics, by rule or number


class Init(Section):
    """The source of the initial weights."""

    weights: Text | None = None  # run, checkpoint, file or name (imagenet, wheel...); None: random
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
