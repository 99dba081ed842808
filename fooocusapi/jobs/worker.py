"""The worker: one thread that makes the engine, takes the oldest job and plays its plan, again and again.

Finished pictures are saved on a second thread meanwhile; a job has ended when all of its own are.

Nothing that a job, the engine, the disk or the database does ends the thread: the job fails with a reason fit for
clients, the cause goes to the log, and the next job is taken.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import inf
from typing import Protocol

from fooocus_core.errors import CoreError
from fooocus_core.events import (
    Cancelled,
    CancelToken,
    Ending,
    Event,
    Failed,
    Finished,
    ImageFinished,
    Progress,
    SkipToken,
)
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


class PictureLost(Exception):
    """A picture could not be saved; the cause is in the log."""


class Engine(Protocol):
    """What the worker asks of ``fooocus_core.engine.Engine``."""

    def run(self, plan: Plan, cancel: CancelToken, skip: SkipToken) -> Iterator[Event]: ...

    def unload(self) -> None:
        """Give the device's memory back; the next plan loads again."""


class ImageStore(Protocol):
    """What the worker asks of ``fooocusapi.images.outputs.OutputStore``."""

    def save(self, job: Job, event: ImageFinished, note: Callable[[str], object]) -> str:
        """Write one picture, whole or not at all; its path as ``ResultImage`` holds it.

        ``note`` is told the path before the picture is there.
        """


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
        self._saver: Saver | None = None
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)

    def start(self) -> None:
        """Begin to work; once."""
        self._thread.start()

    def stop(self, finish_within_s: float, let_go_within_s: float) -> bool:
        """Take no job any more and wait for the end of the thread; whether it came.

        The running job has ``finish_within_s`` to end by itself; then it is interrupted, which takes one step and
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
        """How the engine is, and whether the running job stands still; answered from memory."""
        standstill = self.pulse.standstill
        if standstill is not None:
            return EngineStatus("unhealthy", standstill.reason)
        if self._thread.ident is not None and not self._thread.is_alive():
            return EngineStatus("unhealthy", WORKER_LOST)
        return self._status

    @property
    def thread_ids(self) -> Sequence[int]:
        """Of the threads that are at the running job, as ``sys._current_frames`` knows them."""
        saver = self._saver
        found = (self._thread.ident, None if saver is None else saver.thread_id)
        return [thread_id for thread_id in found if thread_id is not None]

    def unload(self) -> None:
        """Give the device's memory back; blocks until a running job has ended."""
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

    def _work(self) -> None:
        with self._engine_in_use:
            self._have_engine()
            self.pulse.end()
        while (assignment := self._queue.take()) is not None:
            self._end(assignment, self._outcome(assignment))
            self._await_journal()

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

    def _outcome(self, assignment: Assignment) -> Ending:
        """How the job ended, whatever happened."""
        try:
            with self._engine_in_use:
                self.pulse.begin(assignment.job.id)
                return self._play(assignment)
        except JournalError:
            logger.exception("job %s cannot be recorded", assignment.job.id)
            return Failed(JOURNAL_LOST)
        except PictureLost:
            return Failed(PICTURE_LOST)
        except BaseException as error:  # An exception that got out of here would leave every later job waiting.
            logger.exception("job %s stopped on an error", assignment.job.id)
            return Failed(_reason(error, UNFORESEEN))
        finally:
            self._saver = None
            self.pulse.end()

    def _play(self, assignment: Assignment) -> Ending:
        job = self._queue.apply(assignment.job.id, Taken())
        engine = self._have_engine()
        if engine is None or job.plan is None:
            return Failed(self._status.reason or UNFORESEEN)
        with Saver(partial(self._save, job)) as saver:
            self._saver = saver
            return self._events(engine, job, job.plan, assignment, saver)

    def _events(self, engine: Engine, job: Job, plan: Plan, assignment: Assignment, saver: Saver) -> Ending:
        """What the engine tells, up to the ending; pictures may still be in the saver's hand then."""
        ends_s = time.monotonic() + self._time_limit_s(job)
        for event in engine.run(plan, self._asked_to_stop(assignment, ends_s), assignment.skip):
            self.pulse.beat(event.text if isinstance(event, Progress) else None)
            saver.raise_error()
            if isinstance(event, ImageFinished):
                saver.hand_over(event)
            elif isinstance(event, Cancelled) and not self._asked_to_stop(assignment)():
                return Failed(TOOK_TOO_LONG)
            elif isinstance(event, (Finished, Failed, Cancelled)):
                if _is_interrupted(event, assignment):
                    saver.leave_out_the_rest()  # They are made anew.
                return event
            else:
                self._queue.apply(job.id, event)
        logger.error("the plan of job %s ran out without an ending", job.id)
        return Failed(UNFORESEEN)

    def _save(self, job: Job, event: ImageFinished) -> None:
        try:
            self._queue.apply_image(job.id, event.index, event.seed, lambda note: self._store.save(job, event, note))
        except JournalError:
            raise
        except Exception as error:
            logger.exception("picture %d of job %s could not be saved", event.index, job.id)
            raise PictureLost from error

    def _asked_to_stop(self, assignment: Assignment, ends_s: float = inf) -> CancelToken:
        """What an engine asks between network calls, each of which is a sign of life."""

        def is_asked_to_stop() -> bool:
            self.pulse.beat()
            return assignment.cancel() or self._letting_go.is_set() or time.monotonic() >= ends_s

        return is_asked_to_stop

    def _end(self, assignment: Assignment, ending: Ending) -> None:
        """Write the ending down; a job that only the shutdown interrupted waits again instead."""
        try:
            if _is_interrupted(ending, assignment):
                self._queue.put_back(assignment.job.id)
            else:
                self._queue.apply(assignment.job.id, ending)
        except Exception:
            logger.exception("the end of job %s could not be told", assignment.job.id)


def _is_interrupted(ending: Ending, assignment: Assignment) -> bool:
    """Whether only the shutdown has stopped the job."""
    return isinstance(ending, Cancelled) and not assignment.cancel()


def _reason(error: BaseException, otherwise: str) -> str:
    """Errors of the core are written for clients, all others are not."""
    return str(error) if isinstance(error, CoreError) else otherwise
