"""Sections of an experiment, and sections that come in kinds.

`optimizer: Annotated[RMSProp | SGD, By("name")] = RMSProp()` is a section whose field `name` decides
which other fields it has: a new kind is one class, and its name in this line. The first class is the
default kind. All kinds share the fields of the class that they extend; the other fields are a kind's own.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import core_schema


class Section(BaseModel):
    """A part of an experiment: frozen, and strict about its keys and their types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def own_fields(kind: type[Section]) -> frozenset[str]:
    """List the fields of `kind` that not all kinds of its section share."""
    return frozenset(kind.model_fields) - frozenset(shared_class(kind).model_fields)


def own_settings(section: Section) -> dict[str, Any]:
    """Return the values of a section's own fields by name: the arguments of its kind's implementation."""
    own = own_fields(type(section))
    return {name: getattr(section, name) for name in type(section).model_fields if name in own}


def shared_class(kind: type[Section]) -> type[Section]:
    """Return the class of the fields that all kinds of a section share: the one that `kind` extends."""
    shared = kind.__base__
    assert shared is not None
    assert issubclass(shared, Section)
    return shared


@dataclasses.dataclass(frozen=True)
class Kinds:
    """The kinds of a section: the class it has for each value of its field `key`.

    A kind is a whole value ("sgd"), or a value's first word where more follows ("tfds" of
    "tfds:mnist").
    """

    key: str
    classes: Mapping[str, type[Section]]

    @property
    def default(self) -> str:
        """The kind of a section that does not name one."""
        return next(iter(self.classes))

    def of(self, section: object) -> str | None:
        """Return the kind of a section or of a mapping that describes one; None if it is unknown."""
        name: object = None
        if isinstance(section, Mapping):
            name = section.get(self.key, self.default)
        elif isinstance(section, Section):
            name = getattr(section, self.key, None)
        if not isinstance(name, str):
            return None
        kind = name.partition(":")[0]
        return kind if kind in self.classes else None


@dataclasses.dataclass(frozen=True)
class By:
    """Annotation of a union of sections: the field `key` decides between them."""

    key: str

    def kinds(self, union: Any) -> Kinds:
        """Return the classes of `union` by kind."""
        classes = get_args(union)
        return Kinds(self.key, {_kind(each.model_fields[self.key]): each for each in classes})

    def __get_pydantic_core_schema__(
        self, union: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        kinds = self.kinds(union)
        choices = {kind: handler.generate_schema(each) for kind, each in kinds.classes.items()}
        return core_schema.tagged_union_schema(choices, discriminator=kinds.of)


def kinds_of(field: FieldInfo) -> Kinds | None:
    """Return the kinds of a field of the experiment; None if it has none."""
    by = next((note for note in field.metadata if isinstance(note, By)), None)
    return by.kinds(field.annotation) if by else None


def _kind(key: FieldInfo) -> str:
    """Return the kind of a key: "sgd" of `Literal["sgd"]`, "tfds" of a text described as "tfds:NAME"."""
    literal = get_args(key.annotation)
    name = re.match(r"\w+", literal[0] if literal else key.description or "")
    assert name, f"{key}: neither a Literal nor a text with a description"
    return name[0]
