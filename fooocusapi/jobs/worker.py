"""The worker: one thread that makes the engine, takes the oldest job and plays its plan, again and again.

Jobs that wait right behind it and fit it are played together with it. Finished pictures are saved on a second thread,
which also ends the jobs: the engine is at the next ones by then.

Nothing that a job, the engine, the disk or the database does ends the threads: the job fails with a reason fit for
clients, the cause goes to the log, and the next job is taken.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Protocol

from fooocus_core.errors import CoreError
from fooocus_core.events import Cancelled, Ending, Event, Failed, Finished, ImageFinished, PlanRun, Progress
from fooocus_core.plan import Plan
from fooocusapi.jobs.caretaker import Pulse
from fooocusapi.jobs.job import Job, Taken
from fooocusapi.jobs.journal_base import JournalError
from fooocusapi.jobs.queue import Assignment, JobQueue
from fooocusapi.jobs.reasons import ENGINE_LOST, JOURNAL_LOST, PICTURE_LOST, TOOK_TOO_LONG, UNFORESEEN, WORKER_LOST
from fooocusapi.jobs.saver import Saver
from fooocusapi.services import EngineStatus

logger = logging.getLogger(__name__)

JOURNAL_AWAITED_S = 60.0
"""How long jobs wait for a journal that could not take the end of one."""
JOURNAL_RETRIED_S = 0.1

IDLE_ENDS_WITHIN_S = 0.5
"""How long a thread without a job takes at most to see that the queue is closed."""


class Engine(Protocol):
    """What the worker asks of ``fooocus_core.engine.Engine``."""

    def takes_together(self, plans: Sequence[Plan]) -> bool:
        """Whether these plans may be run together."""

    def run_together(self, runs: Sequence[PlanRun]) -> Iterator[tuple[int, Event]]:
        """The events of one plan, or of several that may be run together, each with its plan's number from 0."""

    @property
    def thread_ids(self) -> Sequence[int]:
        """Of the threads beside the worker's that are at plans; for any thread."""

    def unload(self) -> None:
        """Give the device's memory back; the next plan loads again."""


class ImageStore(Protocol):
    """What the worker asks of ``fooocusapi.images.outputs.OutputStore``."""

    def save(self, job: Job, event: ImageFinished, note: Callable[[str], object]) -> str:
        """Write one picture, whole or not at all; its path as ``ResultImage`` holds it.

        ``note`` is told the path before the picture is there.
        """


@dataclass(eq=False)
class _Played:
    """A job on its way through engine and saver."""

    job: Job
    """As it stood when the worker began with it."""
    assignment: Assignment
    ends_s: float
    """When its time is up, by a clock that never jumps."""
    ending: Ending | None = None
    """What the engine told, or what happened instead; ``None`` while it is being played."""
    lost: str = ""
    """Why a picture of it could not be saved, fit for clients: nothing that happens later counts then."""

    @property
    def is_interrupted(self) -> bool:
        """Whether only the shutdown has stopped it: it is made anew."""
        return isinstance(self.ending, Cancelled) and not self.assignment.cancel()


class Worker:
    """Runs the queue's jobs one after another. Also the ``EngineControl`` of the HTTP side."""

    def __init__(
        self,
        queue: JobQueue,
        store: ImageStore,
        make_engine: Callable[[], Engine],
        time_limit_s: Callable[[Job], float] = lambda job: inf,
        pulse: Pulse | None = None,
    ) -> None:
        """``make_engine`` is called on the worker's thread, where its heavy imports delay nobody.

        ``time_limit_s``: how long a job may run before it fails. ``pulse`` tells how long it may be silent.
        """
        self._queue = queue
        self._time_limit_s = time_limit_s
        self._store = store
        self._make_engine = make_engine
        self._engine: Engine | None = None
        self._status = EngineStatus("starting")
        self._engine_in_use = threading.Lock()
        self.pulse = pulse or Pulse()
        self._letting_go = threading.Event()
        self._saver = Saver()
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)

    def start(self) -> None:
        """Begin to work; once."""
        self._thread.start()

    def stop(self, finish_within_s: float, let_go_within_s: float) -> bool:
        """Take no job any more and wait for the end of the threads; whether it came.

        Running jobs have ``finish_within_s`` to end by themselves; then they are interrupted, which takes one step and
        shall take no more than ``let_go_within_s``, and put back to be run after the next start. Without a running
        job there is nothing to wait for: an engine that is still being made cannot be interrupted.
        """
        self._queue.close()
        if not self._thread.is_alive():
            return True
        if self._queue.is_running():
            self._thread.join(finish_within_s)
        self._letting_go.set()
        self._thread.join(let_go_within_s if self._queue.is_running() else IDLE_ENDS_WITHIN_S)
        return not self._thread.is_alive()

    def status(self) -> EngineStatus:
        """How the engine is, and whether a running job stands still; answered from memory."""
        standstill = self.pulse.standstill
        if standstill is not None:
            return EngineStatus("unhealthy", standstill.reason)
        if self._thread.ident is not None and not self._thread.is_alive():
            return EngineStatus("unhealthy", WORKER_LOST)
        return self._status

    @property
    def thread_ids(self) -> Sequence[int]:
        """Of the threads that are at the running jobs, as ``sys._current_frames`` knows them."""
        own = (self._thread.ident, self._saver.thread_id)
        engines = () if self._engine is None else self._engine.thread_ids
        return [*(thread_id for thread_id in own if thread_id is not None), *engines]

    def unload(self) -> None:
        """Give the device's memory back; blocks until the engine has done with the running jobs."""
        with self._engine_in_use:
            self._unload()

    def unload_if_idle(self, for_s: float) -> bool:
        """The same if there was no job for so long; whether it was. Never waits for a job."""
        if not self._engine_in_use.acquire(blocking=False):
            return False
        try:
            is_idle = self.pulse.idle_s >= for_s
            if is_idle:
                self._unload()
            return is_idle
        finally:
            self._engine_in_use.release()

    def _unload(self) -> None:
        if self._engine is not None:
            self._engine.unload()

    # ------------------------------------------------------------------------------------- on the worker's thread

    def _work(self) -> None:
        with self._engine_in_use:
            self._have_engine()
            self.pulse.beat()
        with self._saver:
            while assignments := self._queue.take(self._fit):
                if any(_is_suspect(assignment.job) for assignment in assignments):
                    self._saver.wait()
                self._play([self._begin(assignment) for assignment in assignments])
                self._await_journal()

    def _fit(self, jobs: Sequence[Job]) -> bool:
        """Whether the engine takes these jobs together."""
        plans = [job.plan for job in jobs if job.plan is not None and not _is_suspect(job)]
        try:
            return self._engine is not None and len(plans) == len(jobs) and self._engine.takes_together(plans)
        except Exception:
            logger.exception("whether jobs fit together could not be told")
            return False

    def _await_journal(self) -> None:
        """Waiting jobs would only fail while the journal cannot be written: they wait, but not for ever."""
        ends_s = time.monotonic() + JOURNAL_AWAITED_S
        while self._queue.owes_the_journal() and time.monotonic() < ends_s:
            if self._letting_go.wait(JOURNAL_RETRIED_S):
                return
            with contextlib.suppress(Exception):  # The queue has told of it when it began.
                self._queue.write_what_is_owed()

    def _have_engine(self) -> Engine | None:
        """The engine, made if there is none. A failure is not for ever: the next job tries again."""
        if self._engine is None:
            try:
                self._engine = self._make_engine()
                self._status = EngineStatus("ready")
            except BaseException as error:  # Whatever a broken installation raises, SystemExit included.
                logger.exception("the engine could not be made")
                self._status = EngineStatus("unhealthy", _reason(error, ENGINE_LOST))
        return self._engine

    def _begin(self, assignment: Assignment) -> _Played:
        job = assignment.job
        self.pulse.begin(job.id)
        played = _Played(job, assignment, time.monotonic() + self._time_limit_s(job))
        try:
            played.job = self._taken(job.id)
        except Exception:
            logger.exception("job %s cannot be recorded", played.job.id)
            self._end(played, Failed(JOURNAL_LOST))
        return played

    def _taken(self, job_id: str) -> Job:
        """The job, noted down as begun: the first that meets a journal which takes nothing fails, others wait."""
        try:
            return self._queue.apply(job_id, Taken())
        except JournalError:
            self._saver.wait()
            if not self._queue.owes_the_journal():
                raise
            self._await_journal()
            return self._queue.apply(job_id, Taken())

    def _play(self, group: Sequence[_Played]) -> None:
        """Play jobs that fit together to their ends, whatever happens."""
        begun = [played for played in group if played.ending is None]
        try:
            with self._engine_in_use:
                self._run(begun)
            otherwise = UNFORESEEN
        except BaseException as error:  # An exception that got out of here would leave every later job waiting.
            logger.exception("the engine stopped on an error")
            otherwise = _reason(error, UNFORESEEN)
        for played in begun:
            if played.ending is None:
                logger.error("job %s has not come to an end of its own", played.job.id)
                self._end(played, Failed(otherwise))

    def _run(self, group: Sequence[_Played]) -> None:
        engine = self._have_engine()
        if engine is None:
            for played in group:
                self._end(played, Failed(self._status.reason or UNFORESEEN))
            return
        runs = [self._plan_run(played) for played in group]
        for number, event in engine.run_together(runs):
            self._tell(group[number], event)
            if all(played.ending is not None or played.lost for played in group):
                return

    def _plan_run(self, played: _Played) -> PlanRun:
        if played.job.plan is None:
            raise ValueError(f"job {played.job.id} has no plan")
        return PlanRun(played.job.plan, partial(self._is_to_stop, played), played.assignment.skip)

    def _is_to_stop(self, played: _Played) -> bool:
        """What an engine asks between network calls, each of which is a sign of life."""
        self.pulse.beat()
        is_unwanted = played.assignment.cancel() or bool(played.lost)
        return is_unwanted or self._letting_go.is_set() or time.monotonic() >= played.ends_s

    def _tell(self, played: _Played, event: Event) -> None:
        self.pulse.beat(event.text if isinstance(event, Progress) else None)
        match event:
            case ImageFinished():
                self._saver.hand_over(partial(self._save, played, event))
            case Cancelled() if not (played.assignment.cancel() or self._letting_go.is_set()):
                self._end(played, Failed(TOOK_TOO_LONG))
            case Finished() | Failed() | Cancelled():
                self._end(played, event)
            case _:
                self._queue.apply(played.job.id, event)

    def _end(self, played: _Played, ending: Ending) -> None:
        """The job ends when all of its pictures are saved."""
        played.ending = ending
        self._saver.hand_over(partial(self._conclude, played))

    # -------------------------------------------------------------------------------------- on the saver's thread

    def _save(self, played: _Played, event: ImageFinished) -> None:
        """One picture, unless one before was lost, or all are made anew."""
        if played.lost or played.is_interrupted:
            return
        job = played.job
        try:
            self._queue.apply_image(job.id, event.index, event.seed, lambda note: self._store.save(job, event, note))
        except BaseException as error:
            logger.exception("picture %d of job %s could not be saved", event.index, job.id)
            played.lost = JOURNAL_LOST if isinstance(error, JournalError) else PICTURE_LOST

    def _conclude(self, played: _Played) -> None:
        """Write the ending down; a job that only the shutdown interrupted waits again instead."""
        ending = Failed(played.lost) if played.lost else played.ending or Failed(UNFORESEEN)
        try:
            if played.is_interrupted and not played.lost:
                self._queue.put_back(played.job.id)
            else:
                self._queue.apply(played.job.id, ending)
        except Exception:
            logger.exception("the end of job %s could not be told", played.job.id)
        finally:
            self.pulse.end(played.job.id)


def _is_suspect(job: Job) -> bool:
    """Whether the process was lost when a worker had the job: if it is again, no other job shall be in hand."""
    return job.attempts > 0


def _reason(error: BaseException, otherwise: str) -> str:
    """Errors of the core are written for clients, all others are not."""
    return str(error) if isinstance(error, CoreError) else otherwise
