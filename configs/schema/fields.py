"""Types of the schema's fields, with what an error message says of their values."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from configs.model_file import Network
from configs.model_file import Size as ModelSize


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
InsideZeroToOne = Annotated[float, Field(gt=0.0, lt=1.0)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Level = Annotated[int, Field(ge=4, le=10)]
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
SideRange = Annotated[
    tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]],
    Field(description="[first, last], two whole numbers of at least 8"),
]
Scales = Annotated[
    Positive | tuple[Positive, ...],
    Field(description="a number above 0, or one for each level from 3 on"),
]
Steps = Annotated[
    tuple[Count, Count],
    AfterValidator(_rising),
    Field(description="[first, last], steps from 1 on, first not after last"),
]
MaskValue = Annotated[int, Field(ge=0, le=255)]
StageSettings = Annotated[
    Mapping[str, Any],
    Field(description="keys and values, as in {model.image_size: 128, augment.magnitude: 5}"),
]
