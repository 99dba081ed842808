"""Standstills are told and idle networks forgotten; nobody waits for a clock here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from fooocus_core.events import Finished, Progress
from fooocusapi.jobs.caretaker import Caretaker, Pulse
from fooocusapi.jobs.queue import JobQueue
from fooocusapi.jobs.worker import Worker
from tests.fooocusapi.fakes import PATIENCE_S, FakeStore, a_plan, an_image
from tests.fooocusapi.served import HeldEngine, UnloadableEngine, wait_until


@dataclass
class Watch:
    """A clock in seconds that stands still until told otherwise."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Watched:
    """A worker without a thread."""

    pulse: Pulse
    unloaded: int = 0
    thread_ids: Sequence[int] = field(default_factory=lambda: [threading.get_ident()])

    def unload_if_idle(self, for_s: float) -> bool:
        is_idle = self.pulse.idle_s >= for_s
        self.unloaded += is_idle
        return is_idle


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_a_job_stands_still_when_it_gives_no_sign_of_life(watch: Watch) -> None:
    pulse = Pulse(10, watch)
    watch.now_s += 100
    assert pulse.standstill is None, "without a job nothing stands still"
    pulse.begin("some-id")
    pulse.beat("Step 3/30")
    watch.now_s += 9
    assert pulse.standstill is None
    watch.now_s += 1
    assert pulse.standstill is not None
    assert pulse.standstill.reason == "the running job has made no progress for 10 s; its last step: Step 3/30"
    pulse.beat()
    assert pulse.standstill is None, "a question of the engine is a sign of life"


def test_without_a_limit_nothing_stands_still(watch: Watch) -> None:
    pulse = Pulse(0, watch)
    pulse.begin("some-id")
    watch.now_s += 1e6
    assert pulse.standstill is None


def test_a_standstill_is_told_once_with_its_place_and_so_is_its_end(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    pulse = Pulse(10, watch)
    caretaker = Caretaker(Watched(pulse))
    pulse.begin("some-id")
    watch.now_s += 10
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            caretaker.look()
        pulse.beat()
        for _ in range(3):
            caretaker.look()
    told, over = caplog.messages
    assert told.startswith("job some-id: the running job has made no progress for 10 s")
    assert "in test_a_standstill_is_told_once" in told, "the stack of the thread that hangs"
    assert over == "job some-id goes on or has ended"


def test_idle_networks_are_forgotten_again_and_again_but_never_during_a_job(watch: Watch) -> None:
    others: list[float] = []
    watched = Watched(Pulse(0, watch))
    caretaker = Caretaker(watched, unload_after_s=60, unload_others=[lambda: others.append(watch.now_s)])
    watched.pulse.beat()
    for _ in range(130):
        watch.now_s += 1
        caretaker.look()
    assert (watched.unloaded, others) == (2, [1060, 1120])
    watched.pulse.begin("some-id")
    watch.now_s += 1000
    caretaker.look()
    watched.pulse.end("some-id")
    watch.now_s += 59
    caretaker.look()
    assert watched.unloaded == 2
    watch.now_s += 1
    caretaker.look()
    assert watched.unloaded == 3


def test_nothing_is_forgotten_unless_it_is_asked_for(watch: Watch) -> None:
    watched = Watched(Pulse(0, watch))
    watch.now_s += 1e6
    Caretaker(watched).look()
    assert watched.unloaded == 0


def test_a_look_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch, watch: Watch) -> None:
    monkeypatch.setattr("fooocusapi.jobs.caretaker.LOOKS_EVERY_S", 0.001)
    looked = threading.Semaphore(0)

    def broken() -> None:
        looked.release()
        raise RuntimeError

    pulse = Pulse(0, watch)
    caretaker = Caretaker(Watched(pulse), unload_after_s=1, unload_others=[broken])
    watch.now_s += 2
    caretaker.start()
    for _ in range(2):
        assert looked.acquire(timeout=PATIENCE_S)
        watch.now_s += 2
    caretaker.stop()


def test_the_worker_tells_of_a_standstill_until_the_job_goes_on(jobs: JobQueue, store: FakeStore, watch: Watch) -> None:
    engine = HeldEngine()
    worker = Worker(jobs, store, lambda: engine, pulse=Pulse(10, watch))
    worker.start()
    jobs.submit(a_plan(), "classic", "Text to Image", {})
    engine.begin()
    engine.play(Progress(0.1, "Step 1/3"))
    assert worker.status().state == "ready"
    watch.now_s += 11
    status = worker.status()
    assert status.state == "unhealthy"
    assert status.reason.endswith("Step 1/3")
    assert not worker.unload_if_idle(0), "a job is running"
    engine.play(an_image())
    assert worker.status().state == "ready"
    engine.play(Finished())
    assert worker.stop(0, PATIENCE_S)


def test_an_idle_worker_gives_its_memory_back(jobs: JobQueue, store: FakeStore, watch: Watch) -> None:
    engine = UnloadableEngine()
    worker = Worker(jobs, store, lambda: engine, pulse=Pulse(0, watch))
    worker.start()
    wait_until(lambda: worker.status().state == "ready")
    watch.now_s += 5
    assert not worker.unload_if_idle(6)
    wait_until(lambda: worker.unload_if_idle(5))
    assert engine.unloaded == 1
    assert worker.stop(0, PATIENCE_S)
    assert worker.status().reason == "the worker has ended"
