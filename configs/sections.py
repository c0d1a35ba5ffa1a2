"""Sections of an experiment, and sections that come in kinds.

`optimizer: Annotated[RMSProp | SGD, By("name")] = RMSProp()` is a section whose field `name` decides
which fields the others are: a new kind is one class, and its name in this line. The first class is
the kind of a section that does not say. What all kinds share is the fields of the class that they
extend; the rest is a kind's own.
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
    """Names of the fields that `kind` has beside those that all kinds of its section share."""
    return frozenset(kind.model_fields) - frozenset(shared_class(kind).model_fields)


def own_settings(section: Section) -> dict[str, Any]:
    """Values of a section's own fields: what the implementation of its kind takes, by name."""
    own = own_fields(type(section))
    return {name: getattr(section, name) for name in type(section).model_fields if name in own}


def shared_class(kind: type[Section]) -> type[Section]:
    """The class of the fields that all kinds of a section share: the one that `kind` extends."""
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
        """The kind of a section or of the mapping that describes one; None: there is no such kind."""
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
        """The classes of `union` by kind."""
        classes = get_args(union)
        return Kinds(self.key, {_kind(each.model_fields[self.key]): each for each in classes})

    def __get_pydantic_core_schema__(
        self, union: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        kinds = self.kinds(union)
        choices = {kind: handler.generate_schema(each) for kind, each in kinds.classes.items()}
        return core_schema.tagged_union_schema(choices, discriminator=kinds.of)


def kinds_of(field: FieldInfo) -> Kinds | None:
    """The kinds that a field of the experiment can be; None for a field that has none."""
    by = next((note for note in field.metadata if isinstance(note, By)), None)
    return by.kinds(field.annotation) if by else None


def _kind(key: FieldInfo) -> str:
    """`Literal["sgd"]` is the kind "sgd", a text described as "tfds:NAME" is "tfds"."""
    literal = get_args(key.annotation)
    name = re.match(r"\w+", literal[0] if literal else key.description or "")
    assert name, f"{key}: neither a Literal nor a text with a description"
    return name[0]
