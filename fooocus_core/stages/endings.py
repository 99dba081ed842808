"""Events on their way out of the engine: how they end, and what is told of a plan that begins again."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing

from fooocus_core.errors import CoreError, Interrupted
from fooocus_core.events import Cancelled, Event, Failed, Finished, ImageFinished
from fooocus_core.models.device import is_out_of_memory

logger = logging.getLogger(__name__)


def to_an_ending(events: Generator[Event, None, None]) -> Generator[Event, None, None]:
    """The events and how they ended, whatever they raise."""
    try:
        with closing(events):
            yield from events
    except Interrupted:
        yield Cancelled()
    except CoreError as error:
        logger.warning("plan failed: %s", error)
        yield Failed(str(error))
    except Exception:
        logger.exception("plan failed unexpectedly")
        yield Failed("internal error, see the server's log")
    else:
        yield Finished()


def with_room(events: Generator[Event, None, None], told: Counter[int]) -> Generator[Event, None, bool]:
    """The events; ``told`` counts the pictures by their indices. Returns false where there was no room to go on.

    It returns: only after its handler is left does nothing hold on to what the lost calls were at, which can be freed.
    """
    try:
        with closing(events):
            for event in events:
                if isinstance(event, ImageFinished):
                    told[event.index] += 1
                yield event
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def untold(events: Generator[Event, None, None], told: Counter[int]) -> Generator[Event, None, None]:
    """The events but for pictures that were told as often already."""
    left = told.copy()
    with closing(events):
        for event in events:
            if isinstance(event, ImageFinished) and left[event.index] > 0:
                left[event.index] -= 1
            else:
                yield event


def numbered(number: int, events: Iterator[Event]) -> Iterator[tuple[int, Event]]:
    """The events of one of several plans, each with its number."""
    for event in events:
        yield number, event
