"""How events end, and what is told of a plan that begins again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence

import numpy as np
import pytest

from fooocus_core.errors import CoreError, Interrupted, UnknownModel
from fooocus_core.events import Cancelled, Ending, Event, Failed, Finished, ImageFinished, Progress
from fooocus_core.stages.endings import numbered, to_an_ending, untold, with_room

HALFWAY = Progress(0.5, "halfway")
PIXELS = np.zeros((8, 8, 3), np.uint8)


def picture(index: int) -> ImageFinished:
    return ImageFinished(index, index, PIXELS, None)


def raising(told: Sequence[Event], error: BaseException | None = None) -> Generator[Event, None, None]:
    yield from told
    if error is not None:
        raise error


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (None, Finished()),
        (Interrupted("stopped"), Cancelled()),
        (UnknownModel("vae", "a"), Failed("vae: no file named 'a'")),
        (CoreError("too large"), Failed("too large")),
        (ValueError("/home/somebody"), Failed("internal error, see the server's log")),
    ],
)
def test_whatever_is_raised_is_an_ending(error: Exception | None, ending: Ending) -> None:
    assert list(to_an_ending(raising([HALFWAY], error))) == [HALFWAY, ending]


def test_what_is_no_error_of_a_plan_is_none_of_its_endings() -> None:
    with pytest.raises(SystemExit):
        list(to_an_ending(raising([HALFWAY], SystemExit())))


@pytest.mark.parametrize(("error", "had_room"), [(None, True), (MemoryError(), False)])
def test_pictures_are_counted_until_there_is_no_room(error: Exception | None, had_room: bool) -> None:
    told: Counter[int] = Counter()
    events = with_room(raising([picture(0), HALFWAY, picture(1), picture(0)], error), told)
    for _ in range(4):
        next(events)
    with pytest.raises(StopIteration) as ended:
        next(events)
    assert (ended.value.value, told) == (had_room, {0: 2, 1: 1})


def test_any_other_error_is_raised() -> None:
    with pytest.raises(CoreError, match="too large"):
        list(with_room(raising([], CoreError("too large")), Counter()))


def test_pictures_are_left_out_as_often_as_they_were_told() -> None:
    told = Counter({0: 1, 2: 1})
    events = [picture(0), HALFWAY, picture(1), picture(0), picture(2)]
    assert list(untold(raising(events), told)) == events[1:4]
    assert told == {0: 1, 2: 1}


def test_events_have_the_number_of_their_plan() -> None:
    assert list(numbered(3, raising([HALFWAY, Finished()]))) == [(3, HALFWAY), (3, Finished())]
