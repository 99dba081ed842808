"""Where the worker thread meets the event loop: jobs go in from any thread, coroutines wait for them.

A watcher holds only the newest job it was told of, so a slow reader costs one record however fast the worker is.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict

from fooocusapi.jobs.job import Job


class QueueClosed(Exception):
    """The server is going down: no job is taken any more, and nobody can wait for one."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class Watcher:
    """One coroutine that follows one job. Made and awaited on the event loop, told from any thread."""

    def __init__(self, *, endings_only: bool) -> None:
        self.endings_only = endings_only
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._news: Job | QueueClosed | None = None

    def tell(self, news: Job | QueueClosed) -> None:
        """Hand over the newest state; from any thread. A loop that is gone has nobody left to tell."""
        try:
            self._loop.call_soon_threadsafe(self._receive, news)
        except RuntimeError:
            return

    async def next(self) -> Job:
        """The newest job since the last call; raises ``QueueClosed`` when the queue is closed."""
        await self._changed.wait()
        self._changed.clear()
        if isinstance(self._news, QueueClosed):
            raise self._news
        assert self._news is not None
        return self._news

    def _receive(self, news: Job | QueueClosed) -> None:
        if isinstance(self._news, Job) and self._news.state.is_terminal:
            return  # An ending is the last word, also when the queue is closed before somebody has read it.
        self._news = news
        self._changed.set()


class Watchers:
    """All watchers by job. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_job: dict[str, list[Watcher]] = defaultdict(list)
        self._closed = False

    def add(self, job_id: str, watcher: Watcher) -> None:
        with self._lock:
            self._by_job[job_id].append(watcher)
            closed = self._closed
        if closed:
            watcher.tell(QueueClosed())

    def remove(self, job_id: str, watcher: Watcher) -> None:
        with self._lock:
            self._by_job[job_id].remove(watcher)
            if not self._by_job[job_id]:
                del self._by_job[job_id]

    def publish(self, job: Job) -> None:
        """Tell everybody who follows ``job``; those who wait for its end only about that."""
        with self._lock:
            watchers = tuple(self._by_job.get(job.id, ()))
        for watcher in watchers:
            if job.state.is_terminal or not watcher.endings_only:
                watcher.tell(job)

    def close(self) -> None:
        """Let everybody go, now and later, with ``QueueClosed``."""
        with self._lock:
            self._closed = True
            watchers = [watcher for followers in self._by_job.values() for watcher in followers]
        for watcher in watchers:
            watcher.tell(QueueClosed())
