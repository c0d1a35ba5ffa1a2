"""Read and write model files: a network as plain YAML, by stages or by blocks.

    name: small
    resolution: 64
    stem: {filters: 16, stride: 1}
    stages:
    - {repeats: 1, kernel_size: 3, expand_ratio: 1, output_filters: 16}
    - {repeats: 2, kernel_size: 5, stride: 2, expand_ratio: 6, output_filters: 24}
    head: {filters: 320}

`--model=small.yaml` trains it. `write_model_file` writes one; `blocks` in place of `stages` gives each
block its own numbers. This module checks the keys, their types and ranges; `efficientnet` checks whether
the network can be built.
"""

import json
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from configs import strict_yaml
from system import files
from system.errors import UsageError

EXTENSIONS = (".yaml", ".yml")
_MAX_FILE_SIZE = 2**20  # bytes; efficientnet-l2 is 12 kB
_MAX_VALUE_LENGTH = 80  # characters of a value in a message


class ModelFileError(UsageError):
    """An invalid model file; the message has the file, the key, the value and what is allowed."""


def _check_size(value: object) -> object:
    sides = value if isinstance(value, tuple) else (value, value)
    if len(sides) != 2 or not all(type(side) is int and side >= 8 for side in sides):
        raise ValueError("must be pixels, at least 8, or [height, width]")
    return value


def _check_scale(value: "Normalization") -> "Normalization":
    if min(value[1]) <= 0.0:
        raise ValueError("must be [mean, standard deviation], with deviations above 0")
    return value


Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
Size = Annotated[int | tuple[int, int], BeforeValidator(_check_size)]
RGB = tuple[float, float, float]
Normalization = Annotated[
    tuple[RGB, RGB],
    AfterValidator(_check_scale),
    Field(description="[mean, standard deviation], each [R, G, B] on the scale 0..255"),
]
Padding = Literal["same", "symmetric"]
Shortcut = Literal["identity", "projection", "none"]


class _Part(BaseModel):
    """A part of a model file: frozen, and strict about its keys and their types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Stem(_Part):
    """The layers before the blocks: a convolution with batch norm and activation."""

    filters: Count
    kernel_size: Count = 3
    stride: Count = 2
    pooling: Literal["none", "max"] = "none"


class NetworkStage(_Part):
    """A run of equal blocks; only the first takes the stride."""

    repeats: Count
    block: Text = "mbconv"
    kernel_size: Count
    stride: Count = 1
    expand_ratio: Count
    output_filters: Count
    se_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.25
    shortcut: Shortcut = "identity"


class Block(_Part):
    """One block; its input is the output of the one before."""

    stage: Annotated[int, Field(ge=0)] | None = None
    block: Text = "mbconv"
    kernel_size: Count
    stride: Count = 1
    expanded_filters: Count | None
    squeeze_filters: Annotated[int, Field(ge=0)]
    output_filters: Count
    shortcut: Shortcut = "identity"


class Head(_Part):
    """The layers between the blocks and the classifier."""

    filters: Count | None
    kernel_size: Count = 1
    pooling: Literal["average", "max"] = "average"


class Network(_Part):
    """The content of a model file; the defaults are those of efficientnet-b0."""

    name: Text
    resolution: Size
    eval_resolution: Size | None = None
    stem: Stem | None
    stages: Annotated[tuple[NetworkStage, ...], Field(min_length=1)] | None = None
    blocks: Annotated[tuple[Block, ...], Field(min_length=1)] | None = None
    head: Head
    activation: Text = "silu"
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    survival_probability: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    batch_norm_momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    batch_norm_epsilon: Annotated[float, Field(gt=0.0)] = 1e-3
    padding: Padding = "same"
    normalization: Normalization = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))

    @model_validator(mode="after")
    def _check_stages_or_blocks(self) -> "Network":
        if (self.stages is None) == (self.blocks is None):
            raise ValueError("needs either stages or blocks")
        return self


def is_model_file(name: object) -> bool:
    """Return whether a `model.name` is the path of a model file and not a published name."""
    return isinstance(name, str) and name.endswith(EXTENSIONS)


def read_model_file(path: str) -> Network:
    """Read a model file, local or remote.

    Raises:
      ModelFileError: the file cannot be read, or its content is not a network.
    """
    try:
        tree = strict_yaml.parse(files.read_text(path, limit=_MAX_FILE_SIZE))
    except FileNotFoundError:
        raise ModelFileError(f"{path}: model file not found") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelFileError(f"{path}: not a model file in YAML: {error}") from error
    return _network(tree, path)


def write_model_file(path: str | os.PathLike[str], network: Mapping[str, Any]) -> None:
    """Save a network as a model file, atomically.

    Args:
      path: local or remote, ends in .yaml.
      network: plain data, as `efficientnet.to_plain` returns it.

    Raises:
      ModelFileError: the file cannot be written, or `network` is not a network.
    """
    path = os.fspath(path)
    if not is_model_file(path):
        raise ModelFileError(f"{path}: a model file's name must end in {' or '.join(EXTENSIONS)}")
    plain = _network(network, path).model_dump(mode="json", exclude_none=False)
    plain.pop("stages" if plain["stages"] is None else "blocks")
    try:
        files.write_text(path, strict_yaml.dump(plain, compact=True))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written: {error.strerror or error}") from error


def describe_problem(problem: Mapping[str, Any]) -> str:
    """Describe one of pydantic's errors in a `Network`, as in `blocks[3].stride must be ..., not 0`."""
    key = _key(problem["loc"])
    value = _format_value(problem.get("input"))
    if problem["type"] == "extra_forbidden":
        *above, name = problem["loc"]
        holder = _key(above) or "a model file"
        return f"unknown key {name} in {holder}, which has {', '.join(_known_keys(above))}"
    if problem["type"] == "missing":
        return f"{key} is missing"
    message = (
        str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    )
    message = message.replace("a valid tuple", "a list")
    message = re.sub(r"a valid dictionary or instance of \w+", "keys and values", message)
    return f"{key} {message}, not {value}" if key else f"a model file {message}"


def _network(tree: object, path: str) -> Network:
    if not isinstance(tree, Mapping):
        raise ModelFileError(f"{path}: expected keys and values, not {_format_value(tree)}")
    try:
        return Network.model_validate(_with_tuples(tree))
    except ValidationError as error:
        # A misspelt key is also a missing one: report the misspelt one first.
        problems = sorted(
            error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden"
        )
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ModelFileError(f"{path}: {describe_problem(dict(problems[0]))}{more}") from None


def _with_tuples(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _with_tuples(value) for key, value in tree.items()}
    return tuple(map(_with_tuples, tree)) if isinstance(tree, list | tuple) else tree


def _key(location: Any) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _known_keys(location: Any) -> list[str]:
    parts: dict[str, type[_Part]] = {
        "stem": Stem,
        "stages": NetworkStage,
        "blocks": Block,
        "head": Head,
    }
    return list((parts[location[0]] if location else Network).model_fields)


def _format_value(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MAX_VALUE_LENGTH else text[: _MAX_VALUE_LENGTH - 3] + "..."
