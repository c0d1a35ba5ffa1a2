"""Durations carry their unit, and this is the one place where they become steps.

A duration is written `"350 epochs"`, `"218949 steps"` or `"448000000 examples"`: steps mean
something else at every batch size, which is how published schedules get lost, so recipes speak in
epochs.
"""

import dataclasses
import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

UNITS = ("epochs", "steps", "examples")
LONGEST = 1e12  # of any unit: far beyond every training, and still exact in a float and an int64
EXAMPLES = "as in '350 epochs', '100 steps' or '6400 examples'"
FORM = f"a duration from 0 to 1e12, {EXAMPLES}"
POSITIVE_FORM = f"a duration above 0 and up to 1e12, {EXAMPLES}"

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
        """Read `"5 epochs"`; raise ValueError with what is allowed when it is anything else."""
        if isinstance(text, Duration):
            return text
        match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
        if not match:
            raise ValueError(f"not {FORM}: {text!r}")
        return cls(float(match[1]), match[2] + "s")

    def __str__(self) -> str:
        """The text that `parse` reads back as the same duration."""
        return f"{repr(float(self.amount)).removesuffix('.0')} {self.unit}"

    def in_steps(self, *, num_examples: int, global_batch_size: int) -> float:
        """Steps (not rounded) of `global_batch_size` examples on a set of `num_examples`."""
        return float(self._exact_steps(num_examples, global_batch_size))

    def whole_steps(self, *, num_examples: int, global_batch_size: int) -> int:
        """Steps, rounded down as the reference does, but at least one unless the amount is zero."""
        steps = int(self._exact_steps(num_examples, global_batch_size))
        return max(steps, 1) if self.amount else 0

    def _exact_steps(self, num_examples: int, global_batch_size: int) -> Fraction:
        # Fractions of the written decimal: 2.4 epochs of 1,281,167 images must not depend on the
        # order of float operations, nor a whole number of steps fall short of itself.
        amount = Fraction(repr(float(self.amount)))
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


def _some(duration: Duration) -> Duration:
    if not duration.amount:
        raise ValueError("a length of zero is no length")
    return duration


# What a loop can be long, or repeat after: every duration but zero.
PositiveDuration = Annotated[Duration, AfterValidator(_some), Field(description=POSITIVE_FORM)]
