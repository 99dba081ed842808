"""The jobs of this dialect by the numbers and keys that its clients know them by (contract sections 1.1 and 5.2).

All of it stands in the jobs' own contexts, so that the journal is the only record; here it is kept at hand.
"""

from __future__ import annotations

import secrets
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from fooocus_core.plan import Plan
from fooocusapi.jobs.job import Job, ResultImage
from fooocusapi.jobs.journal_base import TimeRange
from fooocusapi.jobs.queue import JobQueue
from fooocusapi.surfaces.tams.failures import Problem, Refusal
from fooocusapi.surfaces.tams.resources import canonical

SURFACE: Final = "tams"

DAY_MS: Final = 24 * 3600 * 1000
KEY_KEPT_MS: Final = DAY_MS
JOB_KEPT_MS: Final = 7 * DAY_MS

EPOCH_MS: Final = 1_420_070_400_000
"""2015, so that numbers have 18 digits until 2045."""
SEQUENCE_BITS: Final = 20

MAX_PICTURES: Final = 4
_PLACE_BITS: Final = 120


@dataclass(frozen=True)
class Order:
    """A job that is to be queued."""

    application: str
    request_id: str
    fingerprint: str
    plan: Plan
    job_type: str
    """As the dialects that list all jobs call it."""
    credits: float
    notify_url: str
    base_url: str
    """Where the client reached this server: addresses in its callback begin with it."""


@dataclass(frozen=True)
class _Entry:
    job_id: str
    application: str
    request_id: str
    fingerprint: str
    queued_ms: int


class Ledger:
    """Finds jobs and makes each request's only once. For any thread; may use the disk."""

    def __init__(self, jobs: JobQueue, draw: Callable[[int], int] = secrets.randbelow) -> None:
        """``draw``: a random number below its argument, for the last digits of numbers."""
        self._jobs = jobs
        self._draw = draw
        self._lock = threading.Lock()
        self._is_loaded = False
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._keys: dict[tuple[str, str], int] = {}
        self._cancelled: set[str] = set()

    def repeated(self, application: str, request_id: str, fingerprint: str) -> Job | None:
        """The job that this key made already. Raises ``Refusal`` (409) if it was for another body."""
        with self._lock:
            return self._repeated(application, request_id, fingerprint)

    def submit(self, order: Order) -> Job:
        """A new job, unless the key has made one meanwhile. Raises what ``JobQueue.submit`` does."""
        with self._lock:
            job = self._repeated(order.application, order.request_id, order.fingerprint)
            if job is not None:
                return job
            self._forget_old()
            job = self._jobs.submit(order.plan, SURFACE, order.job_type, _context(order, self._next_number()))
            self._enter([job])
            return job

    def find(self, application: str, number: str) -> Job:
        """The application's job. Raises ``Refusal``: 400 for what is no number, 404 for a job that there is not."""
        if not (number.isascii() and number.isdecimal()):
            raise Refusal.of([Problem("jobId", "a number is needed")])
        with self._lock:
            self._load()
            entry = self._entries.get(int(number)) if len(number) <= _MAX_DIGITS else None
        is_own = entry is not None and entry.application == application and not self._is_old(entry)
        job = self._jobs.get(entry.job_id) if entry is not None and is_own else None
        if job is None:
            raise Refusal(404, "there is no such job")
        return job

    def cancel(self, job: Job) -> None:
        """Stops a job; one that has ended stays as it is."""
        if self._jobs.cancel(job.id):
            with self._lock:
                self._cancelled.add(job.id)

    def is_cancelled(self, job: Job) -> bool:
        """Whether the job was stopped, also while it still does its last step."""
        with self._lock:
            return job.id in self._cancelled

    def finished_picture(self, application: str | None, picture_id: str) -> ResultImage | None:
        """The picture that a job made, by the identifier in its answer; ``application`` ``None``: anyone's."""
        for place in range(MAX_PICTURES if canonical(picture_id) else 0):
            job = self._jobs.get(_moved(picture_id, place))
            if job is not None and job.surface == SURFACE and self._is_for(application, job):
                return next((result for result in job.results if result.index == place), None)
        return None

    def _is_for(self, application: str | None, job: Job) -> bool:
        is_kept = job.queued_ms + JOB_KEPT_MS > self._jobs.now_ms()
        return is_kept and application in (None, job.context.get("application"))

    def _repeated(self, application: str, request_id: str, fingerprint: str) -> Job | None:
        self._load()
        entry = self._entries.get(self._keys.get((application, request_id), 0))
        if entry is None or entry.queued_ms + KEY_KEPT_MS <= self._jobs.now_ms():
            return None
        job = self._jobs.get(entry.job_id)
        if job is not None and entry.fingerprint != fingerprint:
            raise Refusal(409, "this requestId was used with another body")
        return job

    def _load(self) -> None:
        """What earlier runs of the server left; once."""
        if self._is_loaded:
            return
        now_ms = self._jobs.now_ms()
        unfinished = self._jobs.unfinished()
        ended = self._jobs.history(
            surface=SURFACE, queued_ms=TimeRange(now_ms - JOB_KEPT_MS, now_ms), newest_first=False
        )
        self._enter([*ended, *unfinished.running, *unfinished.waiting])
        self._is_loaded = True

    def _enter(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            if job.surface == SURFACE:
                number = int(job.context["number"])
                application, request_id = job.context["application"], job.context["request_id"]
                self._entries[number] = _Entry(
                    job.id, application, request_id, job.context["fingerprint"], job.queued_ms
                )
                self._keys[application, request_id] = number

    def _forget_old(self) -> None:
        while self._entries and self._is_old(next(iter(self._entries.values()))):
            number, entry = self._entries.popitem(last=False)
            self._cancelled.discard(entry.job_id)
            if self._keys.get((entry.application, entry.request_id)) == number:
                del self._keys[entry.application, entry.request_id]

    def _is_old(self, entry: _Entry) -> bool:
        return entry.queued_ms + JOB_KEPT_MS <= self._jobs.now_ms()

    def _next_number(self) -> int:
        """Ordered by time, and never one that was given out already."""
        now = (self._jobs.now_ms() - EPOCH_MS) << SEQUENCE_BITS
        latest = max(self._entries, default=0)
        return max(now + self._draw(1 << SEQUENCE_BITS), latest + 1)


_MAX_DIGITS: Final = 20


def picture_id(job: Job, place: int) -> str:
    """The identifier of a job's picture: the job's own, a little changed for every picture but the first."""
    return _moved(job.id, place)


def _moved(identifier: str, place: int) -> str:
    return str(uuid.UUID(int=uuid.UUID(identifier).int ^ (place << _PLACE_BITS)))


def _context(order: Order, number: int) -> dict[str, Any]:
    return {
        "application": order.application,
        "request_id": order.request_id,
        "fingerprint": order.fingerprint,
        "number": str(number),
        "credits": order.credits,
        "webhook_url": order.notify_url,
        "base_url": order.base_url,
    }
