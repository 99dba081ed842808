"""The queue: every job from its submission to its end, the same for all dialects.

Any thread may call it. What it tells is durable first: a job is in the journal before ``submit`` returns, and a state
or a result is there before anybody hears of it. Progress and previews live in memory only.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
import uuid
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from fooocus_core.events import Cancelled, CancelToken, Failed, Progress, SkipToken
from fooocus_core.plan import Plan
from fooocusapi.jobs.bridge import QueueClosed, Watcher, Watchers
from fooocusapi.jobs.job import ImageSaved, Job, JobEvent, JobState, Requeued, advance
from fooocusapi.jobs.journal_base import Journal, TimeRange
from fooocusapi.jobs.reasons import LOST_AGAIN, OTHER_RELEASE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

P = ParamSpec("P")
V = TypeVar("V")


Clock = Callable[[], int]
"""Milliseconds since the epoch."""


SavePicture = Callable[[Callable[[str], None]], str]
"""Writes a picture and returns its path. It is handed what notes the path down, and calls that when the whole file
lies under another name."""


class QueueFull(Exception):
    """Waiting and running jobs have reached the limit; the refused plan leaves no job."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} jobs are waiting or running already")
        self.limit = limit


class UnknownJob(Exception):
    """No job has this identifier, or it was deleted."""

    def __init__(self, job_id: str) -> None:
        super().__init__("there is no such job")
        self.job_id = job_id


@dataclass(frozen=True)
class Limits:
    """What bounds the queue."""

    queue_size: int = 100
    """Waiting plus running jobs beyond which a submission is refused."""
    history: int = 0
    """Finished jobs kept, pictures included; 0 keeps all."""
    attempts: int = 2
    """How often a job may be begun when the process is lost in the middle of it."""
    recent: int = 256
    """Finished jobs that are answered from memory rather than from the journal."""
    listed: int = 100_000
    """Finished jobs in the list of this run (some 30 MB); the oldest leave the list, not the journal."""


@dataclass(frozen=True, slots=True)
class Counters:
    """The queue in three numbers."""

    unfinished: int
    """Waiting plus running."""
    finished: int
    """Ended since the start of the server and not deleted."""
    last_job_id: str | None
    """The job submitted last."""


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A job in lists: the attributes that ``Job`` has under the same names."""

    id: str
    surface: str
    job_type: str
    state: JobState
    queued_ms: int
    started_ms: int
    finished_ms: int

    @classmethod
    def of(cls, job: Job) -> JobSummary:
        return cls(job.id, job.surface, job.job_type, job.state, job.queued_ms, job.started_ms, job.finished_ms)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every job of this run of the server, oldest first."""

    queue: tuple[JobSummary, ...]
    """The running jobs, then the waiting ones in their order."""
    history: tuple[JobSummary, ...]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Every job that has not ended; ``running`` as they were taken, ``waiting`` in the order in which they will be."""

    running: tuple[Job, ...]
    waiting: tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job that a worker has taken, and the questions whether to stop it or to leave out the picture in work."""

    job: Job
    cancel: CancelToken
    skip: SkipToken


Fits = Callable[[Sequence[Job]], bool]
"""Whether a worker takes these jobs together."""


def one_by_one(jobs: Sequence[Job]) -> bool:
    """For workers that take one job at a time."""
    return len(jobs) == 1


@dataclass(eq=False)
class _Running:
    """What is known of a job that a worker has, beside the job itself."""

    stop_wanted: threading.Event = field(default_factory=threading.Event)
    skips: bool = False
    delete_at_end: bool = False
    preview: NDArray[np.uint8] | None = None


def random_id() -> str:
    """A random UUID (version 4) with dashes."""
    return str(uuid.uuid4())


class JobQueue:
    """Waiting, running and finished jobs over a journal.

    Locks, taken in this order where two are held: ``_submitting`` keeps the journal's order the queue's order;
    ``_files`` keeps a picture from being deleted between its rename and its record; ``_state`` guards the memory and
    is never held during a disk access, so that looking up a job never waits for a disk.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        clock: Clock,
        limits: Limits | None = None,
        new_id: Callable[[], str] = random_id,
        delete_files: Callable[[Iterable[str]], None],
        on_ending: Sequence[Callable[[Job], None]] = (),
        on_ended: Sequence[Callable[[Job], None]] = (),
        on_trimmed: Sequence[Callable[[Job], None]] = (),
    ) -> None:
        """``delete_files`` deletes results by their paths, and finds nothing wrong with one that is gone.

        ``on_ending`` are called with the ended job before its end is written down: a process that is lost in between
        has not ended it.
        ``on_ended`` are called once for each job, when everybody can already see its end, on the thread that ended it.
        ``on_trimmed`` are called when the history has grown too long for a job, which is in the journal no more.
        """
        self._journal = journal
        self._clock = clock
        self._limits = limits or Limits()
        self._new_id = new_id
        self._delete_files = delete_files
        self._on_ending = tuple(on_ending)
        self._on_ended = tuple(on_ended)
        self._on_trimmed = tuple(on_trimmed)

        self._submitting = threading.Lock()
        self._files = threading.Lock()
        self._state = threading.Condition()
        self._unfinished: OrderedDict[str, Job] = OrderedDict()
        self._waiting: deque[str] = deque()
        self._running: OrderedDict[str, _Running] = OrderedDict()
        self._history: OrderedDict[str, JobSummary] = OrderedDict()
        self._recent: OrderedDict[str, Job] = OrderedDict()
        self._unsaved: dict[str, Job] = {}
        self._last_job_id: str | None = None
        self._closed = False
        self._watchers = Watchers()

    # ------------------------------------------------------------------------------------------------- submitting

    def submit(self, plan: Plan, surface: str, job_type: str, context: Mapping[str, Any]) -> Job:
        """Write a new job down, then queue it. Blocks for one journal entry: call it off the event loop.

        Raises ``QueueFull``, ``QueueClosed`` once the server goes down, and ``JournalError``; then there is no job.
        """
        with self._submitting:
            self._check_room()
            job = Job(
                id=self._new_id(),
                surface=surface,
                job_type=job_type,
                plan=plan,
                context=dict(context),
                queued_ms=self._clock(),
            )
            job = dataclasses.replace(job, number=self._journal.add(job))
            self._enqueue(job)
        return job

    def restore(self) -> None:
        """Queue what an earlier run of the server left behind, in its order. Called once, before any other call.

        A job that was running starts again, until its attempts are used up.
        """
        for job in self._journal.unfinished():
            if job.plan is None:
                self._refuse_restored(job, OTHER_RELEASE)
            elif job.state is JobState.RUNNING and job.attempts >= self._limits.attempts:
                self._delete_results(job)
                self._refuse_restored(dataclasses.replace(job, results=()), LOST_AGAIN)
            else:
                self._restore(job)
        _guarded("trimming the history", self._trim)

    # --------------------------------------------------------------------------------------------------- looking

    def get(self, job_id: str) -> Job | None:
        """The job as it stands, or ``None``. Unfinished and recent jobs come from memory, older ones from disk."""
        return self.get_cached(job_id) or self._journal.get(job_id)

    def get_cached(self, job_id: str) -> Job | None:
        """Like ``get``, without the disk: fit for the event loop."""
        with self._state:
            return self._unfinished.get(job_id) or self._recent.get(job_id) or self._unsaved.get(job_id)

    def counters(self) -> Counters:
        """The queue in three numbers."""
        with self._state:
            return Counters(len(self._unfinished), len(self._history), self._last_job_id)

    def is_running(self) -> bool:
        """Whether a worker has a job."""
        with self._state:
            return bool(self._running)

    def is_closed(self) -> bool:
        """Whether no job is taken any more."""
        with self._state:
            return self._closed

    def owes_the_journal(self) -> bool:
        """Whether the journal could not take the end of a job and has not since."""
        with self._state:
            return bool(self._unsaved)

    def write_what_is_owed(self) -> None:
        """Write the ends down that the journal could not take before. Raises ``JournalError`` while it cannot."""
        with self._state:
            unsaved = tuple(self._unsaved.values())
        for ended in unsaved:
            self._journal.save(ended)
            with self._state:
                self._unsaved.pop(ended.id, None)

    def snapshot(self) -> Snapshot:
        """Every job of this run of the server, oldest first."""
        with self._state:
            queue, history = tuple(self._unfinished.values()), tuple(self._history.values())
        return Snapshot(tuple(JobSummary.of(job) for job in queue), history)

    def history(
        self,
        *,
        page: int = 0,
        page_size: int | None = None,
        newest_first: bool = True,
        job_id: str | None = None,
        surface: str | None = None,
        queued_ms: TimeRange | None = None,
    ) -> list[Job]:
        """Finished jobs of all runs of the server, from the journal: blocks for a disk."""
        return self._journal.history(
            page=page,
            page_size=page_size,
            newest_first=newest_first,
            job_id=job_id,
            surface=surface,
            queued_ms=queued_ms,
        )

    def now_ms(self) -> int:
        """The time by the clock that stamps the jobs."""
        return self._clock()

    def unfinished(self) -> Unfinished:
        """The jobs that a worker has and those that wait, as they stand."""
        with self._state:
            return Unfinished(
                running=tuple(self._unfinished[job_id] for job_id in self._running),
                waiting=tuple(self._unfinished[job_id] for job_id in self._waiting),
            )

    def latest_preview(self, job_id: str) -> NDArray[np.uint8] | None:
        """A running job's picture as it stands, uint8 ``[height, width, 3]``; ``None`` for every other job."""
        with self._state:
            running = self._running.get(job_id)
            return None if running is None else running.preview

    async def wait(self, job_id: str) -> Job:
        """The job once it has ended. Raises ``UnknownJob`` and ``QueueClosed``; as many may wait as like to."""
        with self._watching(job_id, endings_only=True) as watcher:
            job = await self._look_up(job_id)
            while not job.state.is_terminal:
                job = await watcher.next()
            return job

    async def subscribe(self, job_id: str) -> AsyncGenerator[Job, None]:
        """The job as it stands, then after its changes until it has ended. A slow reader misses those in between.

        Raises ``UnknownJob`` and ``QueueClosed``.
        """
        with self._watching(job_id, endings_only=False) as watcher:
            job = await self._look_up(job_id)
            yield job
            while not job.state.is_terminal:
                job = await watcher.next()
                yield job

    # -------------------------------------------------------------------------------------------------- stopping

    def stop_running(self) -> bool:
        """Ask the running jobs to stop, and no other ones; false when there is none. Does not wait for their end."""
        with self._state:
            for running in self._running.values():
                running.stop_wanted.set()
            return bool(self._running)

    def skip_running(self) -> bool:
        """Ask the running jobs to leave out what they are painting; false when none runs. A second wish is no other.

        Where a job is not at a picture, the next one is meant; a job without a next one has nothing to leave out.
        """
        with self._state:
            for running in self._running.values():
                running.skips = True
            return bool(self._running)

    def cancel(self, job_id: str) -> bool:
        """Stop one job, waiting or running; false when it has ended or is unknown. May block for the journal."""
        with self._state:
            if job_id in self._running:
                self._running[job_id].stop_wanted.set()
                return True
            withdrawn = self._withdraw(job_id)
        if withdrawn:
            self.apply(job_id, Cancelled())
        return withdrawn

    def delete(self, job_id: str) -> bool:
        """Forget a job and its pictures; a running one is stopped and forgotten at its end. False: unknown.

        Pictures that another job wrote since under the same ``save_name`` stay. Blocks for disks.
        """
        with self._state:
            if job_id in self._running:
                self._running[job_id].delete_at_end = True
                self._running[job_id].stop_wanted.set()
                return True
            withdrawn = self._withdraw(job_id)
        job = self.apply(job_id, Cancelled()) if withdrawn else self.get(job_id)
        if job is None or not job.state.is_terminal:
            return False
        self._forget(job)
        return True

    def close(self) -> None:
        """Take no job any more and give none out; the running ones are untouched."""
        with self._state:
            self._closed = True
            self._state.notify_all()

    def release_waiters(self) -> None:
        """End every ``wait`` and ``subscribe`` with ``QueueClosed``: their jobs run after the next start."""
        self._watchers.close()

    # --------------------------------------------------------------------------------------------- for the worker

    def take(self, fits: Fits = one_by_one) -> Sequence[Assignment]:
        """The oldest waiting job, which its taker must bring to an end; blocks until there is one.

        With it those that wait right behind it for as long as they all fit together: no job overtakes another.
        None once the queue is closed.
        """
        with self._state:
            self._state.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return ()
            taken = [self._assigned(self._unfinished[self._waiting.popleft()])]
        while (following := self._first_waiting()) and fits([*(one.job for one in taken), following]):
            taken += self._taken_if_first(following)
        return taken

    def apply(self, job_id: str, event: JobEvent) -> Job:
        """Advance an unfinished job that the caller has taken; tell everybody who follows it.

        A journal that cannot be written raises, except at the end of a job: an ending is told all the same and
        written down with the next one, or by ``write_what_is_owed``.
        """
        if isinstance(event, Progress):
            return self._advance(job_id, event, event.preview)
        before = self._unfinished[job_id]
        job = advance(before, event, self._clock())
        if job.state.is_terminal:
            self._conclude(job)
        elif job is not before:
            self._journal.save(job)
            self._show(job, None)
        return job

    def apply_image(self, job_id: str, index: int, seed: int, save: SavePicture) -> Job:
        """Let ``save`` write the picture, as one step for those who delete; tell everybody who follows the job.

        The path is in the journal before the picture has its name, so that a process that is lost in between leaves
        no file that nobody knows of. May be called while another thread applies the job's progress. A job that was put
        back in the meantime gets no picture: it makes its own anew.
        """
        with self._files:
            if self._unfinished[job_id].state is not JobState.RUNNING:
                return self._unfinished[job_id]

            def note(path: str) -> None:
                self._journal.save(advance(self._unfinished[job_id], ImageSaved(index, seed, path), self._clock()))

            return self._advance(job_id, ImageSaved(index, seed, save(note)))

    def put_back(self, job_id: str) -> None:
        """Let go of a running job; it runs first, in its turn, after the next start. Raises ``JournalError``.

        Its pictures are made anew then, perhaps under other names: those that it has are deleted.
        """
        with self._files:
            self._delete_results(self._unfinished[job_id])
            self.apply(job_id, Requeued(orderly=True))
        with self._state:
            self._running.pop(job_id, None)
            self._waiting = deque(sorted({*self._waiting, job_id}, key=lambda one: self._unfinished[one].number))

    def put_back_running(self) -> None:
        """The same for a worker that cannot be waited for, in a process that is about to end.

        What the worker still does to the jobs counts as well: it may end them, or put them back once more.
        """
        with self._state:
            stops = {job_id: running.stop_wanted.is_set() for job_id, running in self._running.items()}
        for job_id, is_stopped in stops.items():
            if is_stopped:
                _guarded("ending a stopped job", self.apply, job_id, Cancelled())
            else:
                _guarded("putting a job back", self.put_back, job_id)

    # -------------------------------------------------------------------------------------------------- internals

    def _check_room(self) -> None:
        with self._state:
            if self._closed:
                raise QueueClosed
            if len(self._unfinished) >= self._limits.queue_size:
                raise QueueFull(self._limits.queue_size)

    def _enqueue(self, job: Job) -> None:
        with self._state:
            self._unfinished[job.id] = job
            self._waiting.append(job.id)
            self._last_job_id = job.id
            self._state.notify()

    def _restore(self, job: Job) -> None:
        if job.state is JobState.RUNNING:
            self._delete_results(job)
            job = advance(job, Requeued(orderly=False), self._clock())
            self._journal.save(job)
        self._enqueue(job)

    def _refuse_restored(self, job: Job, reason: str) -> None:
        with self._state:
            self._unfinished[job.id] = job
        self.apply(job.id, Failed(reason))

    def _withdraw(self, job_id: str) -> bool:
        """Take a job out of the waiting ones; whoever gets true must end it."""
        if job_id not in self._waiting:
            return False
        self._waiting.remove(job_id)
        return True

    def _first_waiting(self) -> Job | None:
        with self._state:
            return self._unfinished[self._waiting[0]] if self._waiting and not self._closed else None

    def _taken_if_first(self, job: Job) -> list[Assignment]:
        """Nothing where somebody has withdrawn the job in the meantime."""
        with self._state:
            if not self._waiting or self._waiting[0] != job.id:
                return []
            return [self._assigned(self._unfinished[self._waiting.popleft()])]

    def _assigned(self, job: Job) -> Assignment:
        running = self._running[job.id] = _Running()
        return Assignment(job, running.stop_wanted.is_set, partial(self._take_skip, running))

    def _take_skip(self, running: _Running) -> bool:
        """Whether a running job is to leave something out; told once."""
        with self._state:
            skips, running.skips = running.skips, False
            return skips

    def _advance(self, job_id: str, event: JobEvent, preview: NDArray[np.uint8] | None = None) -> Job:
        """In memory alone, and as one step: progress and pictures come from two threads."""
        with self._state:
            return self._show(advance(self._unfinished[job_id], event, self._clock()), preview)

    def _show(self, job: Job, preview: NDArray[np.uint8] | None) -> Job:
        with self._state:
            self._unfinished[job.id] = job
            if preview is not None and job.id in self._running:
                self._running[job.id].preview = preview
            self._watchers.publish(job)
        return job

    def _conclude(self, job: Job) -> None:
        for prepare in self._on_ending:
            _guarded("preparing the end of a job", prepare, job)
        self._save_ending(job)
        with self._state:
            del self._unfinished[job.id]
            self._withdraw(job.id)  # One that was put back may still be brought to its end.
            _remember(self._history, job.id, JobSummary.of(job), self._limits.listed)
            _remember(self._recent, job.id, job, self._limits.recent)
            running = self._running.pop(job.id, None)
            self._watchers.publish(job)
        for tell in self._on_ended:
            _guarded("telling of an ended job", tell, job)
        if running is not None and running.delete_at_end:
            _guarded("deleting a job", self._forget, job)
        _guarded("trimming the history", self._trim)

    def _save_ending(self, job: Job) -> None:
        with self._state:
            self._unsaved[job.id] = job
        try:
            self.write_what_is_owed()
        except Exception:
            logger.exception("the end of job %s could not be written to the journal yet", job.id)

    def _trim(self) -> None:
        if self._limits.history <= 0:
            return
        while surplus := self._journal.finished_beyond(self._limits.history):
            for job in surplus:
                self._forget(job)
                for tell in self._on_trimmed:
                    _guarded("tidying up after a job", tell, job)

    def _forget(self, job: Job) -> None:
        """Files first: what a crash leaves in between is a record that is trimmed later, never an orphaned file."""
        with self._files:
            self._delete_results(job)
            self._journal.delete(job.id)
        with self._state:
            self._history.pop(job.id, None)
            self._recent.pop(job.id, None)
            self._unsaved.pop(job.id, None)

    def _delete_results(self, job: Job) -> None:
        """The pictures of a job, but for those that another job wrote since under the same name."""
        kept = self._journal.shared_paths(job)
        self._delete_files([result.path for result in job.results if result.path not in kept])

    async def _look_up(self, job_id: str) -> Job:
        job = self.get_cached(job_id) or await asyncio.to_thread(self._journal.get, job_id)
        if job is None:
            raise UnknownJob(job_id)
        return job

    @contextmanager
    def _watching(self, job_id: str, *, endings_only: bool) -> Iterator[Watcher]:
        watcher = Watcher(endings_only=endings_only)
        self._watchers.add(job_id, watcher)
        try:
            yield watcher
        finally:
            self._watchers.remove(job_id, watcher)


def _remember(memory: OrderedDict[str, V], job_id: str, value: V, limit: int) -> None:
    memory[job_id] = value
    while len(memory) > limit:
        memory.popitem(last=False)


def _guarded(purpose: str, action: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """House-keeping after a job's end must not take the worker with it."""
    try:
        action(*args, **kwargs)
    except Exception:
        logger.exception("%s failed", purpose)
