"""Work that can be set aside in the middle of a call, however deep, and taken up again: a thread that is waited for.

A generator can only be left where it yields itself; a sampler's way to the network leads through calls that do not. So
such work runs on a thread of its own. Of it and the one who drives it, one always waits for the other: nothing they
share needs a lock, and what happens does so in the same order every time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextvars import copy_context
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from threading import enumerate as living_threads
from typing import Any, TypeVar

import torch

THREAD_NAME = "strand"

Result = TypeVar("Result")
Suspend = Callable[[Any], Any]
"""Hands something to the one who drives, and comes back with what that one answers."""


class _Abandoned(BaseException):
    """Ends work that nobody drives any more, where it waits."""


@dataclass(frozen=True)
class _Said:
    """Handed over in the middle of the work."""

    what: Any


@dataclass(frozen=True)
class _Returned:
    value: Any


@dataclass(frozen=True)
class _Raised:
    error: BaseException


class _Baton:
    """Between the one who drives and the one who works: whoever waits for it does nothing else."""

    def __init__(self) -> None:
        self.to_driver: SimpleQueue[_Said | _Returned | _Raised | None] = SimpleQueue()
        self.to_worker: SimpleQueue[Any] = SimpleQueue()
        self._is_abandoned = False

    def suspend(self, what: Any) -> Any:
        """The worker's side. Raises ``_Abandoned`` from the moment on at which nobody drives any more."""
        if not self._is_abandoned:
            self.to_driver.put(_Said(what))
            answer = self.to_worker.get()
            self._is_abandoned = isinstance(answer, _Abandoned)
        if self._is_abandoned:
            raise _Abandoned
        return answer


def strand(work: Callable[[Suspend], Result], threads: int = 1) -> Generator[Any, Any, Result]:
    """``work`` as a generator: it yields what is handed to ``Suspend``, is sent the answers and returns the result.

    What ``work`` raises is raised here. Closing ends ``work`` where it waits; when this generator is left, its thread
    has ended. Log context follows; no gradients are noted down. ``threads``: with how many torch calculates in it.
    """
    baton = _Baton()
    thread = Thread(target=copy_context().run, args=(_on_thread, work, baton, threads), name=THREAD_NAME, daemon=True)
    drivers = torch.get_num_threads()
    thread.start()
    try:
        baton.to_driver.get()
        # torch takes the latest number for every thread that it meets from now on, and this one is theirs.
        torch.set_num_threads(drivers)
        while True:
            match baton.to_driver.get():
                case _Said(what):
                    baton.to_worker.put((yield what))
                case _Returned(value):
                    result: Result = value
                    return result
                case _Raised(error):
                    try:
                        raise error
                    finally:
                        del error  # its trace leads to here: a circle that would hold on to the latents
    finally:
        baton.to_worker.put(_Abandoned())
        thread.join()


def strand_thread_ids() -> list[int]:
    """Of all threads that such work runs on, as ``sys._current_frames`` knows them."""
    return [one.ident for one in living_threads() if one.name == THREAD_NAME and one.ident is not None]


def _on_thread(work: Callable[[Suspend], Any], baton: _Baton, threads: int) -> None:
    # Threads that calculate belong to the one that asks for them. Where the driver calls the networks, its own are
    # enough: what is left beside those is small, and a team of its own for every strand would stand in their way.
    torch.set_num_threads(threads)
    baton.to_driver.put(None)
    try:
        with torch.no_grad():
            baton.to_driver.put(_Returned(work(baton.suspend)))
    except _Abandoned:
        pass
    except BaseException as error:
        baton.to_driver.put(_Raised(error))
