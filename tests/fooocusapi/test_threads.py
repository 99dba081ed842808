"""Work on threads: its values, its exceptions, and what these do not keep alive."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest
from anyio import CapacityLimiter

from fooocusapi.threads import run_in_threadpool, run_limited


class Held:
    """Something that a caller holds while it waits."""


def test_values_and_arguments() -> None:
    main = threading.get_ident()
    assert asyncio.run(run_in_threadpool(divmod, 7, 3)) == (2, 1)
    assert asyncio.run(run_in_threadpool(int, "11", base=2)) == 3
    assert asyncio.run(run_in_threadpool(threading.get_ident)) != main


def test_exceptions_come_through_and_hold_nobody() -> None:
    seen: list[weakref.ref[Held]] = []

    async def caller() -> None:
        held = Held()
        seen.append(weakref.ref(held))
        await run_in_threadpool(int, "no number")

    async def handler() -> bool:
        with pytest.raises(ValueError, match="no number"):
            await caller()
        return seen[0]() is None

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(handler())
    finally:
        gc.enable()


def test_as_many_at_once_as_may() -> None:
    at_work, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        threading.Event().wait(0.002)
        with lock:
            at_work -= 1

    async def several() -> None:
        limiter = CapacityLimiter(2)
        await asyncio.gather(*(run_limited(limiter, work) for _ in range(10)))

    asyncio.run(several())
    assert most == 2
