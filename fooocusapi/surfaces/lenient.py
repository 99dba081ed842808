"""Reading what clients of many years send: nulls, empty strings, text for numbers, any case, misspelt names.

``LenientModel`` is the base of every schema that reads a body; its published schema shows the plain types.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

logger = logging.getLogger(__name__)

_MAX_HINTED_FIELDS = 16
_MAX_HINTED_CHARS = 64


def _encodable(text: str) -> str:
    """``text`` itself; half a surrogate pair is no character, and no file or database could hold it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("string_unicode", "Input should be text that UTF-8 can hold") from error
    return text


Text = Annotated[str, AfterValidator(_encodable)]


class LenientEnum(StrEnum):
    """Text of a closed set, found in any case and with blanks around it, told in its own spelling."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        wanted = value.strip().casefold()
        return next((member for member in cls if member.value.casefold() == wanted), None)


def asked(default: Any, description: str, *, example: Any = None, **limits: Any) -> Any:
    """A field that may be left out: ``None`` in the program, ``default`` in the published schema."""
    return Field(
        default=None,
        description=description,
        examples=[default if example is None else example],
        json_schema_extra={"default": default},
        **limits,
    )


def default_of(field: FieldInfo) -> Any:
    """What a field's published schema gives as its default."""
    extra = field.json_schema_extra
    return extra["default"] if isinstance(extra, dict) and "default" in extra else field.default


class LenientModel(BaseModel):
    """A body, or a part of one. Unknown fields are ignored, null and empty text count as not sent."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    keeps_empty: ClassVar[frozenset[str]] = frozenset()
    """Text fields in which an empty string says something."""
    second_names: ClassVar[Mapping[str, str]] = {}
    """Names under which a field is read where its own is not sent."""
    misspellings: ClassVar[Mapping[str, str]] = {}
    """Names that clients use for a field of ours, too far from it to be guessed."""

    @model_validator(mode="before")
    @classmethod
    def _drop_unsaid(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        cls._log_hints(values)
        sent = {name: values[key] for name in cls.model_fields if (key := cls._sent_name(name, values)) is not None}
        return {name: value for name, value in sent.items() if cls._says_something(name, value)}

    @field_validator("*", mode="wrap")
    @classmethod
    def _trimmed_if_needed(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        """Blanks around a number or a truth value are forgiven; texts are left as they are."""
        try:
            return validate(value)
        except ValidationError:
            if isinstance(value, str) and value != value.strip():
                return validate(value.strip())
            raise

    @classmethod
    def _sent_name(cls, name: str, sent: Mapping[str, Any]) -> str | None:
        """The name under which a field was sent, its own before its second ones; ``None`` if it was not."""
        names = (name, *(second for second, own in cls.second_names.items() if own == name))
        return next((known for known in names if known in sent), None)

    @classmethod
    def _says_something(cls, name: str, value: object) -> bool:
        if isinstance(value, str) and not value.strip():
            return name in cls.keeps_empty
        return value is not None

    @classmethod
    def _log_hints(cls, names: Iterable[object]) -> None:
        """Unknown fields that look like a slip, by name only: a request may hold many, and long ones."""
        known = (*cls.model_fields, *cls.second_names)
        unknown = (name for name in names if isinstance(name, str) and name not in known)
        for name in islice(unknown, _MAX_HINTED_FIELDS):
            meant = cls.misspellings.get(name) or _closest(name, cls.model_fields)
            if meant:
                logger.info("unknown field ignored: %r, did the client mean %r?", name[:_MAX_HINTED_CHARS], meant)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Shows ``int`` where the program has ``int | None``: null is accepted, but nothing to generate code from."""
        shown = handler(schema)
        properties = handler.resolve_ref_schema(shown).get("properties", {})
        for name, described in properties.items():
            properties[name] = _without_null(described)
        return shown


def _without_null(described: dict[str, Any]) -> dict[str, Any]:
    kinds = [kind for kind in described.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return described
    kept = {key: value for key, value in described.items() if key != "anyOf" and (key, value) != ("default", None)}
    return {**kept, **kinds[0]}


def _closest(name: str, known: Iterable[str]) -> str | None:
    close = difflib.get_close_matches(name[:_MAX_HINTED_CHARS], list(known), n=1, cutoff=0.8)
    return close[0] if close else None
