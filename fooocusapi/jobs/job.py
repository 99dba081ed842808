"""A job: a plan with an identity, a state and the sum of its events.

``advance`` is the only way a job changes. It is a pure function, so what the journal, the pollers, the event streams
and the webhooks see is always the same record, and a test can play any story to it without a queue or a thread.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, assert_never

from fooocus_core.events import Cancelled, Event, Failed, Finished, ImageFinished, Progress, Started
from fooocus_core.plan import Plan

ALMOST_DONE = 0.999
"""The highest fraction of a job that has not succeeded: clients take 1 for the end."""


BEGUN = "Initializing ..."
"""What a job tells that a worker has taken and that has told nothing of its own yet."""


class JobState(StrEnum):
    """Where a job stands. Cancelled and failed are two things: a stop on request is no error."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can happen to the job any more."""
        return self not in (JobState.WAITING, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class ResultImage:
    """One saved picture: its place in the job (from 0), its seed, and where it lies.

    ``path`` is what the image store calls it: relative to its folder, with ``/`` between the parts whatever the system.
    """

    index: int
    seed: int
    path: str


@dataclass(frozen=True, slots=True)
class Job:
    """One job as everybody sees it. Times are milliseconds since the epoch, 0 = not yet."""

    id: str
    """A random UUID (version 4) with dashes: a stale identifier never names another job."""
    surface: str
    """The dialect that took the job, such as ``classic``; it alone understands ``context``."""
    job_type: str
    """What the dialect calls this kind of job, such as ``Text to Image``."""
    plan: Plan | None
    """``None`` only for a job of the journal whose plan another release wrote."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """What the dialect needs to render its answers, in JSON values (``require_base64``, ``webhook_url`` ...)."""
    state: JobState = JobState.WAITING
    queued_ms: int = 0
    started_ms: int = 0
    finished_ms: int = 0
    fraction: float = 0.0
    """The share that is done, in [0, 1], never falling during one attempt; 1 only after success."""
    text: str = ""
    """What is happening, fit for clients; empty while waiting."""
    reason: str = ""
    """Why the job failed, fit for clients; empty unless it did."""
    results: tuple[ResultImage, ...] = ()
    """The saved pictures in the order of their index, also those of a job that was stopped later."""
    attempts: int = 0
    """How often a worker took the job; 2 after a restart in the middle."""
    number: int = 0
    """The job's place in the journal, from 1: later jobs have higher ones. 0 before it is written down."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The worker begins with the job; nothing of an earlier attempt counts."""


@dataclass(frozen=True, slots=True)
class ImageSaved:
    """A picture is a whole file now; ``path`` as in ``ResultImage``."""

    index: int
    seed: int
    path: str


@dataclass(frozen=True, slots=True)
class Requeued:
    """The job waits again although it had begun.

    ``orderly``: the server let go of it on purpose (shutdown), so the attempt does not count; otherwise the process
    was lost in the middle of it, and a job that takes the process down must not do so for ever.
    """

    orderly: bool


JobEvent = Event | Taken | ImageSaved | Requeued


def advance(job: Job, event: JobEvent, now_ms: int) -> Job:
    """The job after ``event``. A job that has ended stays as it is, whatever comes late.

    A clock that was set back never makes a job end before it began.
    """
    if job.state.is_terminal:
        return job
    match event:
        case Taken():
            return _begun(job, now_ms)
        case Requeued(orderly=orderly):
            return _waiting_again(job, orderly)
        case Started() | ImageFinished():
            return job
        case Progress(fraction=fraction, text=text):
            return dataclasses.replace(job, fraction=_risen(job.fraction, fraction), text=text)
        case ImageSaved():
            return dataclasses.replace(job, results=_with_result(job.results, event))
        case Finished():
            return dataclasses.replace(_ended(job, JobState.SUCCEEDED, now_ms), fraction=1.0, text="Finished")
        case Failed(reason=reason):
            return dataclasses.replace(_ended(job, JobState.FAILED, now_ms), reason=reason)
        case Cancelled():
            return _ended(job, JobState.CANCELLED, now_ms)
        case _:
            assert_never(event)


def _begun(job: Job, now_ms: int) -> Job:
    return dataclasses.replace(
        job,
        state=JobState.RUNNING,
        started_ms=max(now_ms, job.queued_ms),
        fraction=0.0,
        text=BEGUN,
        results=(),
        attempts=job.attempts + 1,
    )


def _waiting_again(job: Job, orderly: bool) -> Job:
    return dataclasses.replace(
        job,
        state=JobState.WAITING,
        started_ms=0,
        fraction=0.0,
        text="",
        results=(),
        attempts=max(job.attempts - 1, 0) if orderly else job.attempts,
    )


def _ended(job: Job, state: JobState, now_ms: int) -> Job:
    return dataclasses.replace(job, state=state, finished_ms=max(now_ms, job.started_ms, job.queued_ms))


def _risen(before: float, fraction: float) -> float:
    return max(before, min(fraction, ALMOST_DONE))


def _with_result(results: tuple[ResultImage, ...], saved: ImageSaved) -> tuple[ResultImage, ...]:
    others = [result for result in results if result.index != saved.index]
    return tuple(sorted([*others, ResultImage(saved.index, saved.seed, saved.path)], key=lambda result: result.index))
