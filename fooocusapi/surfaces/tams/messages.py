"""Reading bodies by the JSON mapping of protobuf, as leniently as its clients need it (contract section 1).

A message is a frozen pydantic model. Its fields are read in camel case or in snake case, numbers may be texts, ``null``
is not said, unknown fields are ignored and named in the log. Every problem is told by the path of its field.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from fooocusapi.surfaces.lenient import Text
from fooocusapi.surfaces.tams.failures import Problem, Refusal

logger = logging.getLogger(__name__)

MAX_LOGGED_FIELDS: Final = 32
MAX_LOGGED_CHARS: Final = 64

M = TypeVar("M", bound="Message")


class Message(BaseModel):
    """A message, or a part of one; ``None`` is a field that was not said."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, allow_inf_nan=False, alias_generator=to_camel, populate_by_name=True
    )

    other_names: ClassVar[Mapping[str, str]] = {}
    """Names beside the two spellings of its own under which clients send a field."""

    absent_at_zero: ClassVar[Collection[str]] = ()
    """The fields, by their own names, of which 0 says as much as nothing: proto3 cannot tell them apart (5.6)."""


def _no_truth(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "a number is needed")
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise PydanticCustomError("finite_number", "a finite number is needed")
    return value


def _truth(value: object) -> object:
    if isinstance(value, bool):
        return value
    found = {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        raise PydanticCustomError("bool_type", "true or false is needed")
    return found


def _as_text(value: object) -> object:
    """Identifiers of 64 bits are texts, and some clients send them as numbers."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Integer = Annotated[int, BeforeValidator(_no_truth)]
Number = Annotated[float, BeforeValidator(_no_truth), AfterValidator(_finite)]
Truth = Annotated[bool, BeforeValidator(_truth)]
Identifier = Annotated[Text, BeforeValidator(_as_text)]


def choice(*names: str) -> BeforeValidator:
    """Reads an enum: one of ``names``, or its number, from 0 in their order."""

    def name_of(value: object) -> str:
        if isinstance(value, str) and value in names:
            return value
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
            return names[value]
        raise PydanticCustomError("enum", f"one of {', '.join(names)} is needed")

    return BeforeValidator(name_of, json_schema_input_type=Literal[names])


def read_message(kind: type[M], values: object) -> M:
    """The message that JSON values hold. Raises ``Refusal`` naming every field that cannot be read."""
    problems: list[Problem] = []
    unknown: list[str] = []
    spelt = _Spelling(problems, unknown).of_message(kind, values, "")
    for path in unknown[:MAX_LOGGED_FIELDS]:
        logger.warning("unknown field ignored: %s", path)
    if problems:
        raise Refusal.of(problems)
    try:
        return kind.model_validate(spelt)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        raise Refusal.of([Problem(_path(entry["loc"]), entry["msg"]) for entry in errors]) from None


def fingerprint(message: Message) -> str:
    """What two requests have in common that say the same, however they spell it (5.2, rule 2)."""
    return hashlib.sha256(json.dumps(_said(message), sort_keys=True).encode()).hexdigest()


def _said(value: Any) -> Any:
    """A value by the names of the program, without what is the same as nothing: ``null``, ``""``, ``[]``, some 0."""
    if isinstance(value, list):
        return [_said(entry) for entry in value]
    if not isinstance(value, Message):
        return value
    return {
        name: _said(entry)
        for name, entry in value
        if entry not in (None, "", []) and not (entry == 0 and name in value.absent_at_zero)
    }


class _Spelling:
    """Brings the names of fields to those of the program, and notes what has none."""

    def __init__(self, problems: list[Problem], unknown: list[str]) -> None:
        self._problems = problems
        self._unknown = unknown

    def of_message(self, kind: type[Message], values: object, path: str) -> object:
        if not isinstance(values, Mapping):
            self._problems.append(Problem(path or "body", "an object is needed"))
            return {}
        names = dict(_names(kind))
        spelt: dict[str, Any] = {}
        for key, value in values.items():
            name = names.get(key)
            if name is None:
                self._unknown.append(_below(path, key[:MAX_LOGGED_CHARS]))
            elif value is not None:
                place = _below(path, to_camel(name))
                if name in spelt:
                    self._problems.append(Problem(place, "is given twice, under two names"))
                spelt[name] = self._of_field(kind.model_fields[name], value, place)
        return spelt

    def _of_field(self, field: FieldInfo, value: object, path: str) -> object:
        inner = _message_in(field.annotation)
        if isinstance(value, list):
            if any(entry is None for entry in value):
                self._problems.append(Problem(path, "null cannot be an element of a list"))
            if inner is not None:
                return [self.of_message(inner, entry, f"{path}[{place}]") for place, entry in enumerate(value)
                        if entry is not None]  # fmt: skip
            return value
        if inner is None:
            return value
        if _is_list(field.annotation):
            self._problems.append(Problem(path, "a list is needed"))
            return []
        return self.of_message(inner, value, path)


def _names(kind: type[Message]) -> Iterator[tuple[str, str]]:
    """Every name of every field, and the field's own."""
    for name in kind.model_fields:
        yield name, name
        yield to_camel(name), name
    yield from kind.other_names.items()


def _message_in(annotation: object) -> type[Message] | None:
    if isinstance(annotation, type) and issubclass(annotation, Message):
        return annotation
    return next((found for part in get_args(annotation) if (found := _message_in(part)) is not None), None)


def _is_list(annotation: object) -> bool:
    return getattr(annotation, "__origin__", None) is list or any(_is_list(part) for part in get_args(annotation))


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _path(loc: tuple[str | int, ...]) -> str:
    """A place as ``stages[1].diffusion.width``."""
    path = ""
    for part in loc:
        path = f"{path}[{part}]" if isinstance(part, int) else _below(path, to_camel(part))
    return path
