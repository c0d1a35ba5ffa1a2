"""Parse durations with units and convert them to steps.

A duration is written `"350 epochs"`, `"218949 steps"` or `"448000000 examples"`. The recipes use epochs,
because a number of steps means another schedule at every batch size.
"""

import dataclasses
import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

UNITS = ("epochs", "steps", "examples")
LONGEST = 1e12  # of any unit: far beyond every training, and still exact in a float and an int64
EXAMPLES = "as in '350 epochs', '100 steps' or '6400 examples'"
FORM = f"a duration from 0 to 1e12, {EXAMPLES}"
POSITIVE_FORM = f"a duration above 0 and up to 1e12, {EXAMPLES}"
PART_FORM = "a share such as '25 %', or a duration above 0, as in '5 epochs'"

_PERCENT = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*%\s*", re.ASCII)
_PATTERN = re.compile(
    r"\s*((?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*(epoch|step|example)s?\s*", re.ASCII
)


@dataclasses.dataclass(frozen=True)
class Duration:
    """A length of training: `amount` (0 to `LONGEST`) of `unit`, one of `UNITS`."""

    amount: float
    unit: str

    def __post_init__(self) -> None:
        if self.unit not in UNITS or not 0 <= self.amount <= LONGEST:
            raise ValueError(
                f"a duration is 0 to {LONGEST:g} epochs, steps or examples,"
                f" not {self.amount:g} {self.unit}"
            )

    @classmethod
    def parse(cls, text: object) -> "Duration":
        """Parse a text such as `"5 epochs"`; raise ValueError with the allowed form otherwise."""
        if isinstance(text, Duration):
            return text
        match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
        if not match:
            raise ValueError(f"not {FORM}: {text!r}")
        return cls(float(match[1]), match[2] + "s")

    def __str__(self) -> str:
        """Return the text that `parse` reads back as the same duration."""
        return f"{repr(float(self.amount)).removesuffix('.0')} {self.unit}"

    def in_steps(self, *, num_examples: int, global_batch_size: int) -> float:
        """Return the steps, not rounded, of `global_batch_size` examples; an epoch is `num_examples`."""
        return float(self._exact_steps(num_examples, global_batch_size))

    def whole_steps(self, *, num_examples: int, global_batch_size: int) -> int:
        """Return the steps, rounded down as in the reference, at least one unless the amount is 0."""
        steps = int(self._exact_steps(num_examples, global_batch_size))
        return max(steps, 1) if self.amount else 0

    def in_examples(self, *, num_examples: int, global_batch_size: int) -> Fraction:
        """Return the exact number of examples; an epoch is `num_examples`."""
        return self._exact_steps(num_examples, global_batch_size) * global_batch_size

    def _exact_steps(self, num_examples: int, global_batch_size: int) -> Fraction:
        # Exact fractions of the written decimal: 2.4 epochs of 1,281,167 images must not depend on the
        # order of float operations, and rounding down must not lose a step.
        amount = exact(self.amount)
        if self.unit == "steps":
            return amount
        examples = amount * num_examples if self.unit == "epochs" else amount
        return examples / global_batch_size

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "format": "duration", "description": FORM}


@dataclasses.dataclass(frozen=True)
class Percentage:
    """A part of a training: `amount` percent of its duration, above 0 and at most 100."""

    amount: float

    def __str__(self) -> str:
        """Return the text that `parse_part` reads back."""
        return f"{repr(float(self.amount)).removesuffix('.0')} %"


def parse_part(text: object) -> Duration | Percentage:
    """Parse `"25 %"` or a duration; raise ValueError with the allowed form otherwise."""
    if isinstance(text, Duration | Percentage):
        return text
    match = _PERCENT.fullmatch(text) if isinstance(text, str) else None
    part = Percentage(float(match[1])) if match else Duration.parse(text)
    if not 0 < part.amount <= (100 if match else LONGEST):
        raise ValueError(f"not {PART_FORM}: {text!r}")
    return part


def exact(number: float) -> Fraction:
    """Return the fraction that a number was written as: 1/10 of 0.1."""
    return Fraction(repr(float(number)))


# The length of a stage of a training.
StageLength = Annotated[
    Duration | Percentage,
    PlainValidator(parse_part, json_schema_input_type=str),
    PlainSerializer(str, return_type=str),
    Field(description=PART_FORM),
]


def _check_not_zero(duration: Duration) -> Duration:
    if not duration.amount:
        raise ValueError("a duration must be above 0")
    return duration


# The length of a loop, or of the interval between two actions.
PositiveDuration = Annotated[
    Duration, AfterValidator(_check_not_zero), Field(description=POSITIVE_FORM)
]
