"""What tests of threads share: a limit in time, and a look at what is left."""

from __future__ import annotations

import faulthandler
import functools
import threading
from collections.abc import Callable
from typing import ParamSpec

from fooocus_core.stages.strand import THREAD_NAME

LIMIT_S = 60.0
"""Far above what any of these tests takes: only threads that wait for each other for ever come to it."""

Arguments = ParamSpec("Arguments")


def in_time(test: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Ends the test process with everybody's traces where threads wait for each other for ever."""

    @functools.wraps(test)
    def limited(*arguments: Arguments.args, **named: Arguments.kwargs) -> None:
        faulthandler.dump_traceback_later(LIMIT_S, exit=True)
        try:
            test(*arguments, **named)
        finally:
            faulthandler.cancel_dump_traceback_later()

    return limited


def strands_alive() -> list[str]:
    """Threads of strands that have not ended."""
    return [thread.name for thread in threading.enumerate() if thread.name == THREAD_NAME]
