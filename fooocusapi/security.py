"""Who may call what: the keys in ``X-API-KEY``, and how much a caller may send.

Both are plain ASGI middleware in front of the routes, so that a caller without a key is turned away before a byte of
the body is read, and an endless body is cut off while it arrives.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEY_HEADER = "X-API-KEY"

api_key_scheme = APIKeyHeader(name=KEY_HEADER, scheme_name="APIKeyHeader", auto_error=False)
"""The key as the published document names it; ``ApiKeyGuard`` is what enforces it."""

OPEN_PATHS = frozenset(
    {"/", "/ping", "/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
)
"""Never behind the key: probes, and the pages that explain the rest."""

DOCS_ASSETS = "/docs/assets"
"""Scripts and styles of the documentation pages, as open as these."""

PICTURE_FOLDERS = ("/files/", "/outputs/", "/inputs/")
"""Open unless a setting closes them: pictures are embedded in pages and fetched by services that have no key."""

HasOwnKeys = Callable[[str], bool]
"""Which paths are those of a dialect that asks for keys in its own way."""


@dataclass(frozen=True)
class Access:
    """No ``keys``: everything is open. ``pictures_need_key``: finished pictures too are only for callers with one."""

    keys: tuple[str, ...] = ()
    pictures_need_key: bool = False
    has_own_keys: HasOwnKeys = lambda path: False

    def __repr__(self) -> str:
        return f"Access({len(self.keys)} keys, pictures_need_key={self.pictures_need_key})"

    def allows(self, path: str, sent_key: str | None) -> bool:
        """Whether a caller who sent this key (``None``: none at all) may have this path."""
        if not self.keys or path in OPEN_PATHS or path.startswith(f"{DOCS_ASSETS}/"):
            return True
        if self.has_own_keys(path) or (not self.pictures_need_key and path.startswith(PICTURE_FOLDERS)):
            return True
        return is_one_of(sent_key, self.keys)


def is_one_of(sent_key: str | None, keys: Sequence[str]) -> bool:
    """Whether a header holds one of the keys. The time tells neither how much of one was right nor which it was."""
    sent = b"" if sent_key is None else sent_key.encode("latin-1")
    matches = [hmac.compare_digest(sent, key.encode()) for key in keys]
    return any(matches)


class ApiKeyGuard:
    """Answers 403 ``{"detail": "Forbidden"}`` to callers without a key."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._access.allows(scope["path"], Headers(scope=scope).get(KEY_HEADER)):
            await self._app(scope, receive, send)
        else:
            await JSONResponse({"detail": "Forbidden"}, status_code=403)(scope, receive, send)


class BodyLimit:
    """Answers 413 to bodies that are too long, announced or not, without holding more than the limit.

    Bodies that take longer than ``within_s`` to arrive are answered with 408.

    Forms with files are written to disk as they arrive; anything else is held and read as a whole, so that it has a
    limit of its own.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_json_bytes: int, within_s: float) -> None:
        self._app = app
        self._within_s = within_s
        self._max_form_bytes = max_bytes
        self._max_other_bytes = min(max_bytes, max_json_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._max_form_bytes if is_form_with_files(Headers(scope=scope)) else self._max_other_bytes
        if self._announced(scope) > max_bytes:
            await JSONResponse({"detail": _too_large(max_bytes).detail}, status_code=413)(scope, receive, send)
        else:
            await self._app(scope, _counted(receive, max_bytes, self._within_s), send)

    def _announced(self, scope: Scope) -> int:
        length = Headers(scope=scope).get("content-length", "")
        return int(length) if length.isdecimal() and len(length) < 20 else 0


def is_form_with_files(headers: Headers) -> bool:
    """Whether the body comes in parts, any of which may be a file."""
    return "multipart/" in headers.get("content-type", "").lower()


def _counted(receive: Receive, max_bytes: int, within_s: float) -> Receive:
    """The body under its limits; what comes behind it, the end of the connection, may take as long as it likes."""
    received_bytes = 0
    ends_s = inf
    is_whole = False

    async def receive_counted() -> Message:
        nonlocal received_bytes, ends_s, is_whole
        if is_whole:
            return await receive()
        now_s = asyncio.get_running_loop().time()
        ends_s = min(ends_s, now_s + within_s)
        try:
            async with asyncio.timeout_at(ends_s):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"the body took longer than {within_s:g} s to arrive") from None
        is_whole = not message.get("more_body", False)
        received_bytes += len(message.get("body", b""))
        if received_bytes > max_bytes:
            raise _too_large(max_bytes)
        return message

    return receive_counted


def _too_large(max_bytes: int) -> HTTPException:
    return HTTPException(413, f"the body is larger than {max_bytes} bytes")
