"""Bodies of endpoints that take pictures: a form, with or without files, or JSON (contract section 8)."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import FormData

from fooocusapi.bodies import LenientRequest
from fooocusapi.form_bodies import FormLimits
from fooocusapi.settings import Settings
from fooocusapi.surfaces.classic.schemas import AdvancedParams
from fooocusapi.surfaces.lenient import LenientModel

logger = logging.getLogger(__name__)

MAX_FILES: Final = 16
MAX_FIELDS: Final = 200
MAX_PYTHON_CHARS: Final = 2**16
MAX_MARKS_OF_LONG_TEXT: Final = 2**14
"""Commas and opening brackets; the parser stops everything else while it works through them."""

_NAMES: Final = frozenset({"style_selections", "outpaint_selections", "image_type"})
"""Lists of names, which may be spread over several parts."""
_LISTS: Final = frozenset({"image_prompts", "enhance_ctrlnets", "enhance_ctrls"})
"""Lists of objects, which may be so too. Of all other fields the last counts."""
_FORM_TYPES: Final = ("multipart/form-data", "application/x-www-form-urlencoded")
_WORDS: Final = {"true": "True", "false": "False", "null": "None"}

Body = TypeVar("Body", bound=LenientModel)


async def read_body(request: Request, from_json: type[Body], from_form: type[Body]) -> Body:
    """The body by its own form, whatever the endpoint's. Its files are closed with the request.

    Raises ``RequestValidationError``, ``RefusedField``, ``HTTPException``.
    """
    if request.headers.get("content-type", "").lower().startswith(_FORM_TYPES):
        form = await cast("LenientRequest", request).read_form(_limits(request.app.state.settings))
        return validated(from_form, fields_of(form))
    return validated(from_json, await _json_of(request))


def _limits(settings: Settings) -> FormLimits:
    """A picture may come as text, which makes it a third longer than the largest file, and has line breaks."""
    largest = settings.max_input_bytes
    return FormLimits(files=MAX_FILES, texts=MAX_FIELDS, file_bytes=largest, text_bytes=largest * 7 // 5)


def fields_of(form: FormData) -> dict[str, Any]:
    """A form's fields by name; finer controls that cannot be read are left out, as clients are used to."""
    fields: dict[str, Any] = {name: _joined(name, form.getlist(name)) for name in form}
    if "advanced_params" in fields:
        fields["advanced_params"] = _advanced(fields["advanced_params"])
    for name in _LISTS & fields.keys():
        fields[name] = _entries(form.getlist(name))
    return fields


def _joined(name: str, values: list[Any]) -> Any:
    if name in _NAMES and len(values) > 1:
        return ",".join(value for value in values if isinstance(value, str))
    return values[-1]


def _entries(parts: list[Any]) -> Any:
    """The list, as one part or with a part for each entry; what is neither JSON nor Python stays as it is."""
    entries = [_python_or_json(part) if isinstance(part, str) and part.strip() else part for part in parts]
    entries = [part if entry is None else entry for part, entry in zip(parts, entries, strict=True)]
    return entries[0] if len(entries) == 1 and not isinstance(entries[0], dict) else entries


def _advanced(text: object) -> Mapping[str, Any]:
    """The object, also with Python's quotes and words. What is no such object, or out of range, says nothing."""
    read = _python_or_json(text) if isinstance(text, str) else None
    if not isinstance(read, Mapping):
        if text not in ("", None):
            logger.warning("advanced_params of a form ignored: no object")
        return {}
    try:
        AdvancedParams.model_validate(read)
    except ValidationError as error:
        fields = sorted({str(part) for entry in error.errors() for part in entry["loc"][:1]})
        logger.warning("advanced_params of a form ignored: %s", ", ".join(fields))
        return {}
    return read


def _python_or_json(text: str) -> object:
    """What a text says, ``None`` where it says nothing. Long ones are JSON and hold a picture, not many values."""
    if len(text) > MAX_PYTHON_CHARS and sum(text.count(mark) for mark in ",[{") > MAX_MARKS_OF_LONG_TEXT:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if len(text) > MAX_PYTHON_CHARS:
            return None
    try:
        return ast.literal_eval(re.sub(r"\b(true|false|null)\b", lambda word: _WORDS[word[0]], text.strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


async def _json_of(request: Request) -> Any:
    if not await request.body():
        raise RequestValidationError([{"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}])
    try:
        return await request.json()  # A ``LenientRequest``, as the route has made of it.
    except json.JSONDecodeError as error:
        detail = {"type": "json_invalid", "loc": ("body", error.pos), "msg": "JSON decode error", "input": {}}
        raise RequestValidationError([{**detail, "ctx": {"error": error.msg}}], body=error.doc) from error


def validated(model: type[Body], values: Any, place: str = "body") -> Body:
    """``values``, which stand in the body or in the query, as ``model``. Raises ``RequestValidationError``."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        entries = [{**entry, "loc": (place, *entry["loc"])} for entry in error.errors(include_url=False)]
        raise RequestValidationError(entries, body=values) from error
