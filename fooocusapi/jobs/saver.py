"""The saver: a thread that writes a job's pictures while the engine is at the next one.

Packing a megapixel into a PNG and flushing it to the disk takes longer than a step, and the device would stand still
for as long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue
from types import TracebackType

from fooocus_core.events import ImageFinished

PICTURES_IN_HAND = 8
"""How many are in memory at most between the engine and the disk: those that were painted together come all at once."""


class Saver:
    """Saves the pictures of one job in the order in which they are handed over.

    To be used as a context on the worker's thread: behind it nothing is being saved any more. The first picture that
    cannot be saved is the last one that is tried; its error is raised where it is asked for, or at the end, where it
    replaces whatever happened later.
    """

    def __init__(self, save: Callable[[ImageFinished], object]) -> None:
        """``save`` is called on the saver's thread."""
        self._save = save
        self._handed_over: Queue[ImageFinished | None] = Queue(PICTURES_IN_HAND - 1)  # one more is being saved
        self._error: BaseException | None = None
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="saver", daemon=True)

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._thread.ident is not None:
            self._handed_over.put(None)
            self._thread.join()
        if error is not self._error:
            self.raise_error()

    @property
    def thread_id(self) -> int | None:
        """As ``sys._current_frames`` knows it; ``None`` before the first picture."""
        return self._thread.ident

    def hand_over(self, picture: ImageFinished) -> None:
        """Blocks while there are as many pictures in hand as there may be."""
        if self._thread.ident is None:
            self._thread.start()
        self._handed_over.put(picture)

    def raise_error(self) -> None:
        """Raises what kept a picture from being saved, if something has."""
        if self._error is not None:
            raise self._error

    def leave_out_the_rest(self) -> None:
        """Nobody wants the pictures any more: those that are still in hand are not saved."""
        self._is_over = True

    def _work(self) -> None:
        while (picture := self._handed_over.get()) is not None:
            if self._is_over:
                continue
            try:
                self._save(picture)
            except BaseException as error:  # The worker's to judge, whatever it is.
                self._error, self._is_over = error, True
