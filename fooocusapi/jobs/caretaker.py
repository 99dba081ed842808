"""The caretaker: tells when the running job stands still, writes down what the journal could not take, and gives
memory back that nobody uses.

A standstill cannot be ended from here, for nothing stops a thread from outside. It is told in the log, with where the
worker hangs, and by the health of the server, so that whoever watches over the process can start it anew.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fooocusapi.jobs.journal_base import JournalError

logger = logging.getLogger(__name__)

LOOKS_EVERY_S = 1.0

Seconds = Callable[[], float]
"""A clock that never jumps."""


@dataclass(frozen=True)
class Standstill:
    """A job that has given no sign of life for too long. ``step`` is what it told last, fit for clients."""

    job_id: str
    step: str
    silent_s: float

    @property
    def reason(self) -> str:
        """Fit for clients."""
        return f"the running job has made no progress for {self.silent_s:.0f} s; its last step: {self.step}"


class Pulse:
    """When the worker was last seen at work. Its threads tell, any may look."""

    def __init__(self, stalled_after_s: float = 0.0, now_s: Seconds = time.monotonic) -> None:
        """``stalled_after_s``: how long a job may be silent before it stands still; 0: as long as it likes."""
        self._stalled_after_s = stalled_after_s
        self._now_s = now_s
        self._job_ids: tuple[str, ...] = ()
        self._step = ""
        self._beat_s = now_s()
        self._changing = threading.Lock()

    def begin(self, job_id: str) -> None:
        """A job was taken."""
        with self._changing:
            self._beat_s, self._step, self._job_ids = self._now_s(), "", (*self._job_ids, job_id)

    def beat(self, step: str | None = None) -> None:
        """The worker lives, and perhaps tells what it does."""
        self._beat_s = self._now_s()
        self._step = self._step if step is None else step

    def end(self, job_id: str) -> None:
        """A job has ended; after the last one the worker is idle."""
        with self._changing:
            self._beat_s, self._job_ids = self._now_s(), tuple(one for one in self._job_ids if one != job_id)

    @property
    def idle_s(self) -> float:
        """For how long there has been no job; 0 while there is one."""
        return 0.0 if self._job_ids else self._now_s() - self._beat_s

    @property
    def standstill(self) -> Standstill | None:
        """The job that stands still, if one does: of several the one that has run longest."""
        job_ids, silent_s = self._job_ids, self._now_s() - self._beat_s
        if not job_ids or not self._stalled_after_s or silent_s < self._stalled_after_s:
            return None
        return Standstill(job_ids[0], self._step, silent_s)


class Watched(Protocol):
    """What the caretaker asks of ``fooocusapi.jobs.worker.Worker``."""

    @property
    def pulse(self) -> Pulse: ...

    @property
    def thread_ids(self) -> Sequence[int]:
        """Of the threads that are at the running job, as ``sys._current_frames`` knows them."""

    def unload_if_idle(self, for_s: float) -> bool:
        """Give the engine's memory back if there was no job for so long; whether it was."""


class Caretaker:
    """A thread that looks after a worker once a second."""

    def __init__(
        self,
        worker: Watched,
        *,
        unload_after_s: float = 0.0,
        unload_others: Sequence[Callable[[], None]] = (),
        write_what_is_owed: Callable[[], None] = lambda: None,
    ) -> None:
        """``unload_after_s``: after how long without a job networks are forgotten; 0: never.

        ``unload_others`` give the memory of networks back that work beside the engine's, and so perhaps without a job:
        they are called again whenever as much time has passed. ``write_what_is_owed`` is ``JobQueue``'s.
        """
        self._worker = worker
        self._unload_after_s = unload_after_s
        self._unload_others = tuple(unload_others)
        self._write_what_is_owed = write_what_is_owed
        self._told: str | None = None
        self._rounds = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="caretaker", daemon=True)

    def start(self) -> None:
        """Begin to look; once."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Does not wait for a look that is being taken."""
        self._ended.set()

    def look(self) -> None:
        """One look: whether the job stands still, whether the journal can be written again, what is idle."""
        self._tell_standstill()
        with contextlib.suppress(JournalError):  # The queue has told of it when it began.
            self._write_what_is_owed()
        if self._unload_after_s:
            self._unload_idle(self._unload_after_s)

    def _work(self) -> None:
        while not self._ended.wait(LOOKS_EVERY_S):
            try:
                self.look()
            except Exception:
                logger.exception("the caretaker could not do its work")

    def _unload_idle(self, after_s: float) -> None:
        rounds = int(self._worker.pulse.idle_s // after_s)
        if rounds > self._rounds and self._worker.unload_if_idle(after_s):
            for unload in self._unload_others:
                unload()
            if self._rounds == 0:
                logger.info("no job for %g s: networks are forgotten until they are needed", after_s)
        self._rounds = rounds

    def _tell_standstill(self) -> None:
        """Once when it begins, once when it is over."""
        standstill = self._worker.pulse.standstill
        if standstill is None:
            if self._told is not None:
                logger.warning("job %s goes on or has ended", self._told)
            self._told = None
        elif self._told != standstill.job_id:
            self._told = standstill.job_id
            logger.error("job %s: %s\n%s", standstill.job_id, standstill.reason, _places(self._worker.thread_ids))


def _places(thread_ids: Sequence[int]) -> str:
    """Where threads are, each as in a traceback."""
    frames = sys._current_frames()
    return "\n".join("".join(traceback.format_stack(frames[one])) for one in thread_ids if one in frames)
