"""How this dialect refuses: ``google.rpc.Status`` in JSON, with the codes of contract section 3.

``Refusal`` is what its own parts raise. ``OwnFailures`` puts whatever else goes wrong on its paths, in the framework or
in front of the routes, into the same shape.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fooocusapi.surfaces.tams.paths import is_own

ARGUMENT_ERROR: Final = "type.googleapis.com/tams_api.ArgumentError"
MAX_PROBLEMS: Final = 64
MAX_MESSAGE_CHARS: Final = 500

CODE_OF: Final[Mapping[int, int]] = MappingProxyType(
    {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 409: 6, 413: 3, 429: 8, 500: 13, 501: 12, 502: 14, 503: 14}
)
"""The gRPC code of each status (3.2)."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field. ``field``: its path in camel case, such as ``stages[1].diffusion.width``."""

    field: str
    message: str
    name: str = ""
    """The documented name of the problem, where it has one; it becomes the message of the answer."""


class Refusal(Exception):
    """A request that is not done: the status, what it is called, and what is wrong with which field."""

    def __init__(
        self, status: int, message: str, problems: Sequence[Problem] = (), *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.problems = tuple(problems)
        self.headers = headers

    @classmethod
    def of(cls, problems: Sequence[Problem], status: int = 400) -> Refusal:
        """A body that breaks rules; the first documented name is what the refusal is called."""
        named = next((problem.name for problem in problems if problem.name), "")
        return cls(status, named or f"{problems[0].field}: {problems[0].message}", problems)


def install_refusals(app: FastAPI) -> None:
    """Makes ``app`` answer what the parts of this dialect raise."""
    app.add_exception_handler(Refusal, _answer)


def status_body(status: int, message: str, problems: Iterable[Problem] = ()) -> dict[str, Any]:
    """The body of a refusal; its message is never empty, because clients throw it as their error's text."""
    details = [
        {"@type": ARGUMENT_ERROR, "field": problem.field, "message": _shortened(problem.message)}
        for problem in tuple(problems)[:MAX_PROBLEMS]
    ]
    return {"code": CODE_OF.get(status, 3), "message": _shortened(message) or "refused", "details": details}


async def _answer(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    body = status_body(error.status, error.message, error.problems)
    return JSONResponse(body, status_code=error.status, headers=error.headers)


class OwnFailures:
    """Rewrites the failures of all other parts on this dialect's paths: ``{"detail": ...}`` never gets out there."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_own(scope["path"]):
            await self._app(scope, receive, send)
            return
        await self._app(scope, receive, _Rewriting(scope, receive, send))


class _Rewriting:
    """Holds a failing answer until it is whole, then sends it in this dialect's shape."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        told = _told(bytes(self._body))
        if "code" in told and "message" in told:
            await self._send(start)
            await self._send({"type": "http.response.body", "body": bytes(self._body)})
            return
        status = 400 if start["status"] == 422 else start["status"]
        answer = JSONResponse(status_body(status, _text(told.get("detail"))), status_code=status)
        retry_after = MutableHeaders(scope=start).get("retry-after")
        if retry_after is not None:
            answer.headers["Retry-After"] = retry_after
        await answer(self._scope, self._receive, self._send)


def _told(body: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _text(detail: object) -> str:
    """The framework's own word for what is wrong: a text, or the first of a list of fields."""
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        return str(detail[0].get("msg", ""))
    return detail if isinstance(detail, str) else ""


def _shortened(text: str) -> str:
    shown = text if len(text) <= MAX_MESSAGE_CHARS else f"{text[:MAX_MESSAGE_CHARS]}..."
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")
