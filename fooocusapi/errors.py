"""Every failure as an HTTP answer: one table, one handler, two shapes.

A field that cannot be taken answers 422 ``{"detail": [{"type", "loc", "msg", "input", "ctx"?}], "body": ...}``;
everything else ``{"detail": "text"}``. Both are JSON, hold no paths and no traces, and show long input shortened.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from fooocus_core.errors import CoreError, InvalidRequest, UnknownModel
from fooocusapi.jobs.bridge import QueueClosed
from fooocusapi.jobs.journal_base import JournalError
from fooocusapi.jobs.queue import QueueFull, UnknownJob

logger = logging.getLogger(__name__)

MAX_ECHOED_CHARS = 200
MAX_MESSAGE_CHARS = 2000
"""Enough for the list of accepted values that a refusal carries."""
MAX_ECHOED_ITEMS = 64
MAX_ECHOED_DEPTH = 12
MAX_ECHOED_VALUES = 500
"""Of all levels together; ``MAX_ECHOED_ITEMS`` of each."""
MAX_ECHOED_DIGITS = 64

Location = tuple[str | int, ...]


class NotOpened(Exception):
    """The services could not be opened; the log says why."""

    def __init__(self) -> None:
        super().__init__("the server could not start, see its log")


class RefusedField(Exception):
    """A field of a request that this server will not take, by the name under which the client sent it."""

    def __init__(self, loc: Location, reason: str, *, value: object = None, body: object = None) -> None:
        super().__init__(f"{'.'.join(str(part) for part in loc)}: {reason}")
        self.loc = loc
        self.reason = reason
        self.value = value
        self.body = body


STATUS_OF: dict[type[Exception], int] = {
    UnknownJob: 404,
    QueueFull: 429,
    QueueClosed: 503,
    JournalError: 503,
    NotOpened: 503,
    UnknownModel: 503,
    CoreError: 500,
}
"""Failures that are neither a field's nor a bug; a class stands for its subclasses."""


def install_error_handlers(app: FastAPI) -> None:
    """Makes ``app`` answer every failure that is not a bug; bugs are the middleware's (``ErrorBoundary``)."""
    app.add_exception_handler(RequestValidationError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_error)
    app.add_exception_handler(RefusedField, _answer_error)
    app.add_exception_handler(InvalidRequest, _answer_error)
    for known in STATUS_OF:
        app.add_exception_handler(known, _answer_error)


def bug_response() -> JSONResponse:
    """What is told of an unforeseen failure: nothing."""
    return JSONResponse({"detail": "Internal Server Error"}, status_code=500)


def printable(value: object, depth: int = MAX_ECHOED_DEPTH, left: Iterator[int] | None = None) -> Any:
    """``value`` as JSON that can be sent back: long texts, lists and numbers shortened, the rest made harmless.

    Files are shown by their names. ``left`` runs out where no more entries are told.
    """
    left = iter(range(MAX_ECHOED_VALUES)) if left is None else left
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 10**MAX_ECHOED_DIGITS else f"(a number of more than {MAX_ECHOED_DIGITS} digits)"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, bytearray)):
        return _shortened(bytes(value[: MAX_ECHOED_CHARS + 1]).decode("utf-8", "replace"), len(value))
    if isinstance(value, str):
        return _shortened(value, len(value))
    if depth == 0:
        return "..."
    if isinstance(value, Mapping):
        items = zip(islice(value.items(), MAX_ECHOED_ITEMS), left, strict=False)
        return {printable(str(key)): printable(entry, depth - 1, left) for (key, entry), _ in items}
    if isinstance(value, Sequence):
        entries = zip(value[:MAX_ECHOED_ITEMS], left, strict=False)
        return [printable(entry, depth - 1, left) for entry, _ in entries]
    return printable(value.filename if isinstance(value, UploadFile) else str(value))


async def _answer_error(request: Request, error: Exception) -> Response:
    """The one handler: which shape and which status, by the class of the failure."""
    if isinstance(error, RequestValidationError):
        return _field_errors([_detail_of(entry) for entry in error.errors()[:MAX_ECHOED_ITEMS]], error.body)
    if isinstance(error, RefusedField):
        return _field_errors([_detail("value_error", error.loc, error.reason, error.value)], error.body)
    if isinstance(error, InvalidRequest):
        return _field_errors([_detail("value_error", ("body", error.field), error.reason, None)], None)
    if isinstance(error, HTTPException):
        return JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=error.headers)
    status = next(STATUS_OF[known] for known in type(error).__mro__ if known in STATUS_OF)
    if status >= 500:
        # Where a file is missing, its name says all; where from it was asked for is of no use to anybody.
        logger.error("request failed: %s", error, exc_info=None if isinstance(error, UnknownModel) else error)
    return JSONResponse({"detail": str(error)}, status_code=status)


def _field_errors(details: list[dict[str, Any]], body: object) -> JSONResponse:
    return JSONResponse({"detail": details, "body": printable(body)}, status_code=422)


def _detail_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    detail = _detail(entry["type"], tuple(entry["loc"]), entry["msg"], entry.get("input"))
    return {**detail, "ctx": printable(entry["ctx"])} if entry.get("ctx") else detail


def _detail(kind: str, loc: Location, message: str, value: object) -> dict[str, Any]:
    return {
        "type": kind,
        "loc": [printable(part) for part in loc],
        "msg": _shortened(message, len(message), MAX_MESSAGE_CHARS),
        "input": printable(value),
    }


def _shortened(text: str, length: int, limit: int = MAX_ECHOED_CHARS) -> str:
    """At most ``limit`` characters and a word on the rest; characters that are no text are spelt out."""
    shown = text if length <= limit else f"{text[:limit]}... ({length} characters)"
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")
