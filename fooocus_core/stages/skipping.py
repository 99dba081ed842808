"""Pictures that are left out on request while they are being made; the stage goes on with the next one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from fooocus_core.errors import Skipped
from fooocus_core.events import CancelToken, Event, SkipToken

log = logging.getLogger(__name__)


def skippable(
    picture: Callable[[CancelToken], Iterator[Event]], cancel: CancelToken, skip: SkipToken
) -> Iterator[Event]:
    """The events of ``picture``, which end early where somebody wishes it away.

    ``picture`` is handed what it has to ask in place of ``cancel``. A wish that comes while no picture is being made is
    met by the next one.
    """

    def is_cancelled() -> bool:
        if cancel():
            return True
        if skip():
            raise Skipped("left out on request")
        return False

    try:
        yield from picture(is_cancelled)
    except Skipped:
        log.info("a picture is left out on request")
