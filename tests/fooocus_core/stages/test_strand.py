"""Work on a thread of its own as a generator: what it hands over, how it ends, and that nothing of it is left."""

from __future__ import annotations

import gc
import threading
import weakref
from contextvars import ContextVar
from typing import Any

import pytest
import torch

from fooocus_core.stages.strand import THREAD_NAME, Suspend, strand, strand_thread_ids
from tests.fooocus_core.stages.watched import in_time, strands_alive

NAME: ContextVar[str] = ContextVar("name", default="nobody")


def counting(suspend: Suspend) -> str:
    """Asks from deep inside a call."""

    def deep(what: str) -> int:
        answer: int = suspend(what)
        return answer

    return f"{deep('one')} {deep('two')}"


@in_time
def test_what_is_handed_over_is_answered_and_the_result_comes_last() -> None:
    run = strand(counting)
    assert next(run) == "one"
    assert run.send(1) == "two"
    with pytest.raises(StopIteration) as ended:
        run.send(2)
    assert ended.value.value == "1 2"
    assert not strands_alive()


@in_time
def test_only_one_thread_is_at_work() -> None:
    order: list[str] = []

    def work(suspend: Suspend) -> None:
        for step in range(3):
            order.append(f"work {step} in {threading.current_thread().name}")
            suspend(None)

    runs = [strand(work), strand(work)]
    for _ in range(3):
        for number, run in enumerate(runs):
            next(run)
            order.append(f"back from {number}")
    for run in runs:
        run.close()
    expected = [f"work {step} in {THREAD_NAME}" for step in range(3)]
    assert order == [line for step in range(3) for number in (0, 1) for line in (expected[step], f"back from {number}")]


@in_time
def test_where_work_hangs_can_be_seen_from_any_thread() -> None:
    run = strand(lambda suspend: suspend(threading.get_ident()))
    thread_id = next(run)
    assert strand_thread_ids() == [thread_id]
    run.close()
    assert strand_thread_ids() == []


@in_time
def test_what_the_work_raises_is_raised_where_it_is_driven_and_holds_on_to_nothing() -> None:
    class Latents:
        pass

    held: list[weakref.ref[Latents]] = []

    def work(suspend: Suspend) -> None:
        latents = Latents()
        held.append(weakref.ref(latents))
        suspend(None)
        raise ValueError("no room")

    run = strand(work)
    next(run)
    gc.disable()
    try:
        with pytest.raises(ValueError, match="no room"):
            next(run)
        assert not strands_alive()
        assert held[0]() is None, "no circle keeps what the work was at"
    finally:
        gc.enable()


@in_time
def test_closing_ends_the_work_where_it_waits() -> None:
    left: list[str] = []

    def work(suspend: Suspend) -> None:
        try:
            suspend("first")
        finally:
            left.append("cleaned up")
            suspend("nobody listens any more")

    run = strand(work)
    next(run)
    run.close()
    assert left == ["cleaned up"]
    assert not strands_alive()


@in_time
def test_work_that_nobody_drives_any_more_ends_with_its_generator() -> None:
    run = strand(counting)
    next(run)
    del run
    gc.collect()
    assert not strands_alive()


def test_what_is_never_driven_never_begins() -> None:
    strand(counting).close()
    assert not strands_alive()


@in_time
def test_the_log_context_follows() -> None:
    token = NAME.set("job 7")
    try:
        assert next(strand(lambda suspend: suspend(NAME.get()))) == "job 7"
    finally:
        NAME.reset(token)


@in_time
def test_gradients_are_not_noted_down() -> None:
    def work(suspend: Suspend) -> Any:
        return suspend(torch.is_grad_enabled())

    assert next(strand(work)) is False
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("own", [1, 2])
@in_time
def test_it_calculates_as_it_is_told_and_all_other_threads_as_before(own: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run = strand(lambda suspend: suspend(torch.get_num_threads()), own)
        assert next(run) == own
        seen: list[int] = []
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert (torch.get_num_threads(), seen) == (3, [3])
        run.close()
    finally:
        torch.set_num_threads(threads)
