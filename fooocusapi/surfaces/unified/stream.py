"""The event stream of a job, to the byte (contract section 6).

Clients cut the stream into events by network chunks, by lines, or by braces. So each event is one chunk of its own, on
one line of JSON, with time between it and the next.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fooocusapi.images.outputs import OutputStore
from fooocusapi.jobs.bridge import QueueClosed
from fooocusapi.jobs.job import Job, JobState
from fooocusapi.jobs.queue import JobQueue
from fooocusapi.surfaces.unified.render import percent, picture_urls, preview_text
from fooocusapi.threads import run_in_threadpool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MEDIA_TYPE: Final = "text/event-stream"
HEADERS: Final = {"Cache-Control": "no-store", "Connection": "keep-alive", "X-Accel-Buffering": "no"}
PACE_S: Final = 0.2
"""The least time between two events."""
PING_S: Final = 15.0
"""After so long without an event, a comment shows that the connection lives."""


async def event_stream(
    jobs: JobQueue, outputs: OutputStore, job_id: str, *, pace_s: float = PACE_S, ping_s: float = PING_S
) -> AsyncGenerator[bytes, None]:
    """The chunks: nothing but pings while the job waits, its changes while it runs, its pictures at the end.

    A reader who goes away closes it, which does nothing to the job. A server that ends closes it without a last event:
    the job runs after the restart.
    """
    told: _Seen | None = None
    async with aclosing(_states(jobs, job_id, ping_s)) as states:
        async for job in states:
            if job is None:
                yield _ping()
                continue
            seen = _Seen(job, jobs.latest_preview(job_id))
            if job.state is JobState.WAITING or seen.is_like(told):
                continue
            told = seen
            yield await run_in_threadpool(_event, seen, outputs)
            if not job.state.is_terminal:
                await asyncio.sleep(pace_s)


class _Seen(NamedTuple):
    """A job at one moment, and its picture as it stood."""

    job: Job
    preview: NDArray[np.uint8] | None

    def is_like(self, other: _Seen | None) -> bool:
        """Whether a reader of ``other`` would learn nothing new."""
        if other is None or self.preview is not other.preview:
            return False
        return _shown(self.job) == _shown(other.job)


def _shown(job: Job) -> tuple[object, ...]:
    return job.state, percent(job), job.text


async def _states(jobs: JobQueue, job_id: str, ping_s: float) -> AsyncGenerator[Job | None, None]:
    """The job after its changes, the last one its end; ``None`` after each ``ping_s`` without any."""
    async with aclosing(jobs.subscribe(job_id)) as changes:
        while True:
            change = asyncio.ensure_future(anext(changes))
            try:
                while not (await asyncio.wait([change], timeout=ping_s))[0]:
                    yield None
                yield change.result()
            except (StopAsyncIteration, QueueClosed):
                return
            finally:
                await _gone(change)


async def _gone(task: asyncio.Future[Any]) -> None:
    """Ends a wait that nobody needs any more, so that what it waited on can be closed."""
    task.cancel()
    await asyncio.wait([task])


def _event(seen: _Seen, outputs: OutputStore) -> bytes:
    job, preview = seen
    if job.state.is_terminal:
        return _framed({"progress": 100, "preview": None, "message": "Finished", "images": picture_urls(job, outputs)})
    picture = None if preview is None else f"data:image/png;base64,{preview_text(preview, job)}"
    return _framed({"progress": percent(job), "preview": picture, "message": job.text, "images": []})


def _framed(fields: dict[str, Any]) -> bytes:
    """One event. Its payload ends with a newline, which is what the second, empty line stands for."""
    return f"data: {json.dumps(fields)}\r\ndata: \r\n\r\n".encode("ascii")


def _ping() -> bytes:
    return f": ping - {datetime.now(UTC)}\r\n\r\n".encode("ascii")
