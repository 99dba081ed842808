"""Work that would hold up the event loop, on a thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

P = ParamSpec("P")
T = TypeVar("T")


async def run_in_threadpool(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``call`` on a thread; raises what it raises."""
    return await run_limited(None, call, *args, **kwargs)


async def run_limited(limiter: CapacityLimiter | None, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same, as many at once as ``limiter`` lets through.

    An exception that came through a future would hold the future's waiter, who holds the future: bodies and pictures
    of a refused request would stay until the next full collection. Through here it comes as a value, in no cycle.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(call(*args, **kwargs))
        except Exception as error:
            errors.append(error)

    await to_thread.run_sync(work, limiter=limiter)
    if errors:
        raise errors.pop()
    return results.pop()
