"""How long callers may take: connections on which nothing is asked are closed.

The framework waits for the head of a request for ever; a few thousand callers who send a byte now and then would have
all connections of a server.
"""

from __future__ import annotations

import asyncio
import logging
import os

from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)

HEAD_WITHIN_S = 20.0
"""From the connection, or the answer before, to the last line of a request's head."""

MAX_OPEN_FILES = 65_536


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose next request does not begin in full within ``head_within_s``."""

    head_within_s = HEAD_WITHIN_S
    _until_head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        before = self.cycle
        super().on_response_complete()
        if self.cycle is before:
            self._await_head()

    def _await_head(self) -> None:
        self._stop_waiting()
        self._until_head = self.loop.call_later(self.head_within_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._until_head is not None:
            self._until_head.cancel()
            self._until_head = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            logger.debug("a connection on which no request began in time is closed")
            self.transport.close()


def allow_many_connections() -> None:
    """Lifts the soft limit of open files as far as the system lets a process: each connection is one."""
    if os.name != "posix":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
