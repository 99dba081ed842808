"""What every request passes on its way in, as plain ASGI: its identifier, its path, and the net under it."""

from __future__ import annotations

import logging
import re
import secrets
import time
from contextvars import ContextVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fooocusapi.errors import bug_response

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "X-Request-ID"

_request_id: ContextVar[str] = ContextVar("request_id", default="-")
_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestIdFilter(logging.Filter):
    """Gives every log record ``request_id``: the request during which it was written, ``-`` outside of any."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = _request_id.get()
        return True


class RequestIds:
    """Names each request, in the log and to the client; a name that the client brings is kept if it is well formed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        brought = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = brought if _WELL_FORMED_ID.fullmatch(brought) else secrets.token_hex(8)
        token = _request_id.set(request_id)
        try:
            await self._answer(scope, receive, send, request_id)
        finally:
            _request_id.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        started_s = time.perf_counter()

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
                elapsed_ms = (time.perf_counter() - started_s) * 1000
                level = _log_level(scope["method"], message["status"])
                logger.log(level, "%s %r %d %.1f ms", scope["method"], scope["path"], message["status"], elapsed_ms)
            await send(message)

        await self._app(scope, receive, send_named)


def _log_level(method: str, status: int) -> int:
    """Pollers and probes ask several times a second; what they ask is told only to those who look for it."""
    return logging.DEBUG if method in ("GET", "HEAD") and status < 500 else logging.INFO


class OneSlashForm:
    """Lets ``/path/`` mean ``/path`` without a redirect: many clients turn a redirected POST into a GET."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/" and scope["path"].endswith("/"):
            scope = {**scope, "path": scope["path"].rstrip("/") or "/"}
        await self._app(scope, receive, send)


class ErrorBoundary:
    """Turns a bug into a logged 500 inside of the headers that browsers need, instead of outside of them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def send_watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_watched)
        except ClientDisconnect:
            logger.info("caller went away: %s %r", scope["method"], scope["path"])
        except Exception:
            if scope["type"] != "http" or begun:
                raise
            logger.exception("unhandled error: %s %r", scope["method"], scope["path"])
            await bug_response()(scope, receive, send)
