"""Pictures are saved beside the engine: in order, few at a time, and all before their job ends.

The engine is at the next job by then.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest

from fooocus_core.errors import UnknownModel
from fooocus_core.events import Event, Failed, Finished, ImageFinished, Progress
from fooocus_core.plan import Plan
from fooocusapi.jobs.caretaker import Caretaker, Pulse
from fooocusapi.jobs.job import Job, JobState
from fooocusapi.jobs.journal import SqlJournal
from fooocusapi.jobs.journal_base import JournalError
from fooocusapi.jobs.queue import JobQueue
from fooocusapi.jobs.reasons import JOURNAL_LOST, PICTURE_LOST
from fooocusapi.jobs.saver import IN_HAND, Saver
from fooocusapi.jobs.worker import Worker
from tests.fooocusapi.fakes import PATIENCE_S, FakeStore, HandEngine, ScriptedEngine, a_plan, an_image
from tests.fooocusapi.served import wait_until


@dataclass
class HeldStore(FakeStore):
    """Begins to save at once, and goes on when it may."""

    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may_go_on: threading.Event = field(default_factory=threading.Event)
    tried: list[int] = field(default_factory=list)

    def save(self, job: Job, event: ImageFinished, note: Callable[[str], object]) -> str:
        self.tried.append(event.index)
        self.begun.release()
        assert self.may_go_on.wait(PATIENCE_S)
        return super().save(job, event, note)


@pytest.fixture
def store() -> HeldStore:
    return HeldStore()


@pytest.fixture
def engine(jobs: JobQueue, store: HeldStore) -> Iterator[HandEngine]:
    """Played by hand, with a worker behind it."""
    engine = HandEngine()
    worker = Worker(jobs, store, lambda: engine)
    worker.start()
    yield engine
    store.may_go_on.set()
    assert worker.stop(0, PATIENCE_S)


def submit(jobs: JobQueue, images: int = 2) -> Job:
    return jobs.submit(a_plan(images=images), "classic", "Text to Image", {})


def end_of(jobs: JobQueue, job: Job) -> Job:
    return asyncio.run(asyncio.wait_for(jobs.wait(job.id), PATIENCE_S))


def begin_saving(engine: HandEngine, store: HeldStore) -> None:
    """The first picture is finished and stuck on its way to the disk."""
    engine.begin()
    engine.play(an_image(0))
    assert store.begun.acquire(timeout=PATIENCE_S)


def test_the_engine_goes_on_while_a_picture_is_saved(jobs: JobQueue, store: HeldStore, engine: HandEngine) -> None:
    job = submit(jobs)
    begin_saving(engine, store)
    engine.play(Progress(0.6, "Step 1/2 in the 2-th Sampling"))
    engine.play(an_image(1))
    seen = jobs.get(job.id)
    assert seen is not None
    assert (seen.text, seen.results) == ("Step 1/2 in the 2-th Sampling", ()), "the first one is not saved yet"
    store.may_go_on.set()
    engine.play(Progress(0.9, "Step 2/2 in the 2-th Sampling"))
    engine.play(Finished())
    done = end_of(jobs, job)
    assert (done.state, [result.index for result in done.results]) == (JobState.SUCCEEDED, [0, 1])
    assert [event.index for event in store.files.values()] == [0, 1]


def test_a_job_ends_only_when_its_pictures_are_saved(jobs: JobQueue, store: HeldStore, engine: HandEngine) -> None:
    job = submit(jobs)
    begin_saving(engine, store)
    engine.play(Finished())
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(jobs.wait(job.id), 0.05))
    store.may_go_on.set()
    assert [result.index for result in end_of(jobs, job).results] == [0]


def test_the_next_job_runs_while_the_last_picture_is_saved(
    jobs: JobQueue, store: HeldStore, engine: HandEngine, ended: list[Job]
) -> None:
    job, behind = submit(jobs), submit(jobs)
    begin_saving(engine, store)
    engine.play(Finished())
    engine.begin()
    engine.play(Progress(0.5, "Step 1/2 in the 1-th Sampling"))
    assert [one.id for one in jobs.unfinished().running] == [job.id, behind.id]
    assert [one.text for one in jobs.unfinished().running][1] == "Step 1/2 in the 1-th Sampling"
    engine.play(Finished())
    assert ended == [], "pictures and endings keep their order"
    store.may_go_on.set()
    wait_until(lambda: len(ended) == 2)
    assert [(one.id, len(one.results)) for one in ended] == [(job.id, 1), (behind.id, 0)]


def test_a_stop_that_comes_while_the_last_picture_is_saved_hits_the_next_job(
    jobs: JobQueue, store: HeldStore, engine: HandEngine
) -> None:
    job, behind = submit(jobs), submit(jobs)
    begin_saving(engine, store)
    engine.play(Finished())
    engine.begin()
    assert jobs.stop_running()
    engine.play(Progress(0.5, "one step more"))
    store.may_go_on.set()
    assert end_of(jobs, job).state is JobState.SUCCEEDED, "there was nothing left to stop"
    assert end_of(jobs, behind).state is JobState.CANCELLED


def test_a_job_waits_for_a_journal_that_broke_while_the_one_before_was_saved(
    jobs: JobQueue, store: HeldStore, engine: HandEngine, journal: SqlJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Semaphore(0)

    def full(job: Job, *_: object, **__: object) -> None:
        tried.release()
        raise JournalError("disk full")

    job, behind = submit(jobs), submit(jobs)
    begin_saving(engine, store)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "save", full)
        engine.play(Finished())
        assert tried.acquire(timeout=PATIENCE_S), "the next one cannot be noted as begun"
        store.may_go_on.set()
        assert end_of(jobs, job).reason == JOURNAL_LOST
    engine.begin()
    engine.play(Finished())
    assert end_of(jobs, behind).state is JobState.SUCCEEDED


def test_a_stopped_job_keeps_the_pictures_that_were_finished(
    jobs: JobQueue, store: HeldStore, engine: HandEngine
) -> None:
    job = submit(jobs, images=3)
    begin_saving(engine, store)
    engine.play(an_image(1))
    jobs.stop_running()
    engine.play(Progress(0.7, "one step more"))
    store.may_go_on.set()
    done = end_of(jobs, job)
    assert (done.state, [result.index for result in done.results]) == (JobState.CANCELLED, [0, 1])


@pytest.mark.parametrize(("error", "reason"), [(OSError("full"), PICTURE_LOST), (JournalError("x"), JOURNAL_LOST)])
@pytest.mark.parametrize("later", [Progress(0.7, "Step"), an_image(1), Finished(), Failed("x"), UnknownModel("a", "b")])
def test_a_picture_that_cannot_be_saved_fails_the_job_whatever_happens_later(
    jobs: JobQueue, store: HeldStore, engine: HandEngine, error: Exception, reason: str, later: Event | Exception
) -> None:
    job = submit(jobs)
    begin_saving(engine, store)
    store.broken = error
    engine.hand_over(later)
    store.may_go_on.set()
    engine.hand_over(Finished())
    done = end_of(jobs, job)
    assert (done.state, done.reason, done.results) == (JobState.FAILED, reason, ())
    assert store.tried == [0], "what comes behind a lost picture is not saved"


def test_a_lost_picture_ends_the_plan(jobs: JobQueue) -> None:
    closed = threading.Event()

    def story(plan: Plan) -> Iterator[Event]:
        try:
            yield an_image(0)
            while True:
                yield Progress(0.5, "Step")
        finally:
            closed.set()

    worker = Worker(jobs, FakeStore(broken=OSError("full")), lambda: ScriptedEngine(story))
    job = submit(jobs)
    worker.start()
    assert end_of(jobs, job).reason == PICTURE_LOST
    assert closed.is_set()
    assert worker.stop(0, PATIENCE_S)


def test_a_shutdown_puts_a_job_back_without_its_pictures(jobs: JobQueue, store: HeldStore, journal: SqlJournal) -> None:
    engine, job = HandEngine(), submit(jobs, images=3)
    worker = Worker(jobs, store, lambda: engine)
    worker.start()
    begin_saving(engine, store)
    engine.play(an_image(1))
    stopping = threading.Thread(target=worker.stop, args=[0, PATIENCE_S])
    stopping.start()
    wait_until(jobs.is_closed)
    engine.play(Progress(0.7, "one step more"))
    engine.hand_over(Progress(0.8, "one step more"))
    store.may_go_on.set()
    stopping.join(PATIENCE_S)
    assert journal.unfinished() == [job]
    assert not store.files


def test_where_a_picture_is_stuck_is_told(jobs: JobQueue, store: HeldStore, caplog: pytest.LogCaptureFixture) -> None:
    engine, job = HandEngine(), submit(jobs)
    worker = Worker(jobs, store, lambda: engine, pulse=Pulse(1e-9))
    worker.start()
    begin_saving(engine, store)
    engine.hand_over(Finished())
    Caretaker(worker).look()
    assert "in save\n" in caplog.text
    store.may_go_on.set()
    assert end_of(jobs, job).state is JobState.SUCCEEDED
    assert worker.stop(0, PATIENCE_S)


def test_few_pictures_are_in_hand_however_fast_the_engine_is(jobs: JobQueue, store: HeldStore) -> None:
    in_hand: list[int] = []

    def story(plan: Plan) -> Iterator[Event]:
        for index in range(3 * IN_HAND):
            in_hand.append(index - len(store.files))
            if index == IN_HAND:
                store.may_go_on.set()
            yield an_image(index)
        yield Finished()

    job = submit(jobs)
    worker = Worker(jobs, store, lambda: ScriptedEngine(story))
    worker.start()
    assert len(end_of(jobs, job).results) == 3 * IN_HAND
    assert max(in_hand) == IN_HAND
    assert worker.stop(0, PATIENCE_S)


def test_an_exit_while_saving_ends_no_thread(jobs: JobQueue) -> None:
    store = FakeStore(broken=SystemExit(3))
    worker = Worker(jobs, store, ScriptedEngine)
    worker.start()
    assert end_of(jobs, submit(jobs)).reason == PICTURE_LOST
    store.broken = None
    assert len(end_of(jobs, submit(jobs)).results) == 2
    assert worker.stop(0, PATIENCE_S)


def test_what_is_handed_over_is_done_in_its_order_whatever_it_raises(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []

    def fail() -> None:
        raise SystemExit(3)

    with Saver() as saver:
        for number in range(2 * IN_HAND):
            saver.hand_over(partial(done.append, number))
            saver.hand_over(fail)
        saver.wait()
        assert done == list(range(2 * IN_HAND))
    assert caplog.messages.count("something could not be saved") == 2 * IN_HAND


def test_nothing_is_left_to_be_done_behind_it() -> None:
    done: list[int] = []
    with Saver() as saver:
        for number in range(IN_HAND):
            saver.hand_over(partial(done.append, number))
    assert done == list(range(IN_HAND))
