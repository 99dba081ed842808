"""The application in front of the application: it answers ``/ping`` while the real one is still being imported.

The framework, its schemas and its routes take longer to import than a readiness probe likes to wait. So the port is
opened with this small ASGI application; the real one is loaded by a thread, and requests that arrive before it is
there wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Doorway:
    """Hands every request to the application that ``load`` returns, once it is there."""

    def __init__(self, load: Callable[[], App], on_failure: Callable[[], None]) -> None:
        """``load`` is called on a thread, ``on_failure`` on the event loop when there will be no application."""
        self._load = load
        self._on_failure = on_failure
        self._app: App | None = None
        self._state: dict[str, Any] = {}
        self._settled = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._app is None and scope["type"] == "http" and scope["path"] == "/ping":
            await _answer(send, 200, b'"pong"')
        else:
            await self._pass_on(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._settled.wait()
        if self._app is not None:
            await self._app({**scope, "state": dict(self._state)}, receive, send)
        elif scope["type"] == "http":
            await _answer(send, 503, b'{"detail":"the server could not start, see its log"}')

    async def _live(self, receive: Receive, send: Send) -> None:
        """Starts at once and loads behind the open port; ends what was started."""
        await receive()
        inner = _Lifespan(self._state)
        loading = asyncio.create_task(self._open(inner))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.wait([loading])
        await inner.shut_down()
        await send({"type": "lifespan.shutdown.complete"})

    async def _open(self, inner: _Lifespan) -> None:
        try:
            app = await asyncio.to_thread(self._load)
            await inner.start_up(app)
            self._app = app
        except Exception:
            logger.exception("the server could not start")
            self._on_failure()
        finally:
            self._settled.set()


class _Lifespan:
    """The other end of an application's lifespan: this side is the server's."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start_up(self, app: App) -> None:
        """Raises what the application raises, or ``RuntimeError`` when it says that it cannot start."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        self._task = asyncio.create_task(_run(app, scope, self._to_app.get, self._from_app.put))
        answer = await self._ask("lifespan.startup")
        if answer["type"] != "lifespan.startup.complete":
            await asyncio.wait([self._task])
            raise RuntimeError("the application did not start") from self._task.exception()

    async def shut_down(self) -> None:
        """Ends what was started; nothing to do when nothing was."""
        if self._task is not None and not self._task.done():
            await self._ask("lifespan.shutdown")
            await self._task

    async def _ask(self, kind: str) -> Message:
        assert self._task is not None
        await self._to_app.put({"type": kind})
        answer = asyncio.create_task(self._from_app.get())
        await asyncio.wait([answer, self._task], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done() and self._from_app.empty():
            answer.cancel()
            self._task.result()
            raise RuntimeError("the application has no lifespan")
        return await answer


async def _run(app: App, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"access-control-allow-origin", b"*"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
