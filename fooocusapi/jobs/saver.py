"""The saver: a thread that writes pictures, and the ends of their jobs, while the engine is at the next one.

Packing a megapixel into a PNG and flushing it to the disk takes longer than a step, and the device would stand still
for as long.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import Queue
from types import TracebackType

logger = logging.getLogger(__name__)

IN_HAND = 8
"""How much is in hand at most between the engine and the disk: pictures that were painted together come all at once."""

Work = Callable[[], object]


class Saver:
    """Does what it is handed, in that order. To be used as a context: behind it nothing is left to be done."""

    def __init__(self) -> None:
        self._handed_over: Queue[Work | None] = Queue(IN_HAND - 1)  # one more is being done
        self._thread = threading.Thread(target=self._work, name="saver", daemon=True)

    def __enter__(self) -> Saver:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._handed_over.put(None)
        self._thread.join()

    @property
    def thread_id(self) -> int | None:
        """As ``sys._current_frames`` knows it; ``None`` before the start."""
        return self._thread.ident

    def hand_over(self, work: Work) -> None:
        """Blocks while there is as much in hand as there may be."""
        self._handed_over.put(work)

    def wait(self) -> None:
        """Blocks until all is done that was handed over."""
        self._handed_over.join()

    def _work(self) -> None:
        while (work := self._handed_over.get()) is not None:
            try:
                work()
            except BaseException:  # Whatever it is, the next job's pictures are to be saved.
                logger.exception("something could not be saved")
            finally:
                self._handed_over.task_done()
