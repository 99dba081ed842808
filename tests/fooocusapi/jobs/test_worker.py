"""The worker thread over a fake engine: whatever happens to a job, the next one runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fooocus_core.errors import UnknownModel
from fooocus_core.events import CancelToken, Event, Failed, Finished, Progress, SkipToken, Started
from fooocus_core.plan import Plan
from fooocusapi.jobs.job import Job, JobState
from fooocusapi.jobs.journal import SqlJournal
from fooocusapi.jobs.journal_base import JournalError
from fooocusapi.jobs.queue import JobQueue
from fooocusapi.jobs.reasons import ENGINE_LOST, JOURNAL_LOST, PICTURE_LOST, UNFORESEEN
from fooocusapi.jobs.worker import Worker
from tests.fooocusapi.fakes import (
    PATIENCE_S,
    FakeStore,
    HandEngine,
    OneByOne,
    ScriptedEngine,
    a_plan,
    a_preview,
    an_image,
    good_story,
)
from tests.fooocusapi.served import wait_until


def submit(jobs: JobQueue, prompt: str = "x", images: int = 1) -> Job:
    return jobs.submit(a_plan(prompt, images=images), "classic", "Text to Image", {})


def end_of(jobs: JobQueue, job: Job) -> Job:
    """The job once it has ended."""
    return asyncio.run(asyncio.wait_for(jobs.wait(job.id), PATIENCE_S))


@contextmanager
def working(worker: Worker) -> Iterator[Worker]:
    worker.start()
    try:
        yield worker
    finally:
        assert worker.stop(0, PATIENCE_S)


@pytest.fixture
def run(jobs: JobQueue, store: FakeStore) -> Iterator[Callable[[Any], Worker]]:
    """Starts a worker over the queue with this engine; it is stopped after the test."""
    workers: list[Worker] = []

    def start(engine: Any) -> Worker:
        worker = Worker(jobs, store, lambda: engine)
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        assert worker.stop(0, PATIENCE_S)


def test_jobs_run_in_order_and_their_pictures_are_saved(
    jobs: JobQueue, run: Callable[[Any], Worker], store: FakeStore, ended: list[Job]
) -> None:
    engine = ScriptedEngine()
    submitted = [submit(jobs, prompt, images=2) for prompt in "abc"]
    run(engine)
    done = [end_of(jobs, job) for job in submitted]
    assert [plan.stages[0].prompts.prompt for plan in engine.plans] == ["a", "b", "c"]
    assert all(job.state is JobState.SUCCEEDED for job in done)
    assert [(result.index, result.seed) for result in done[0].results] == [(0, 7), (1, 8)]
    assert all(result.path in store.files for job in done for result in job.results)
    assert [job.id for job in ended][:2] == [job.id for job in submitted][:2], "each before the next one is taken"


def test_a_running_job_shows_its_progress_and_preview(jobs: JobQueue, run: Callable[[Any], Worker]) -> None:
    engine = HandEngine()
    job = submit(jobs)
    run(engine)
    engine.begin()
    engine.play(Started(1))
    engine.play(Progress(0.3, "Step 1/3", a_preview(9)))
    seen = jobs.get(job.id)
    assert seen is not None
    assert (seen.state, seen.fraction, seen.text) == (JobState.RUNNING, 0.3, "Step 1/3")
    assert jobs.latest_preview(job.id) is not None
    engine.play(an_image())
    wait_until(lambda: [len(one.results) for one in jobs.unfinished().running] == [1])
    engine.play(Finished())
    assert end_of(jobs, job).state is JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("secret /path"), UNFORESEEN),
        (MemoryError(), UNFORESEEN),
        (UnknownModel("loras", "x"), "loras: no file named 'x'"),
    ],
)
def test_an_engine_that_raises_fails_its_job_and_no_other(
    jobs: JobQueue, run: Callable[[Any], Worker], error: Exception, reason: str
) -> None:
    def story(plan: Plan) -> Iterator[Event | Exception]:
        if plan.stages[0].prompts.prompt == "bad":
            yield Started(1)
            yield error
        yield from good_story(plan)

    bad, good = submit(jobs, "bad"), submit(jobs, "good")
    run(ScriptedEngine(story))
    assert end_of(jobs, good).state is JobState.SUCCEEDED
    failed = end_of(jobs, bad)
    assert (failed.state, failed.reason) == (JobState.FAILED, reason)


def test_an_exit_in_the_engine_is_no_exit_of_the_worker(jobs: JobQueue, run: Callable[[Any], Worker]) -> None:
    class Exiting(OneByOne):
        def run(self, plan: Plan, cancel: CancelToken, skip: SkipToken) -> Iterator[Event]:
            raise SystemExit(3)

    jobs_of = [submit(jobs), submit(jobs)]
    run(Exiting())
    assert [end_of(jobs, job).reason for job in jobs_of] == [UNFORESEEN] * 2


def test_a_picture_that_is_wished_away_is_missing_and_the_job_goes_on(
    jobs: JobQueue, run: Callable[[Any], Worker]
) -> None:
    engine = HandEngine()
    job, next_job = submit(jobs, images=3), submit(jobs)
    run(engine)
    engine.begin()
    engine.play(an_image(0))
    assert jobs.skip_running()
    assert jobs.skip_running()
    engine.play(an_image(1))
    engine.play(an_image(2))
    assert jobs.skip_running()
    engine.play(Finished())
    done = end_of(jobs, job)
    assert (done.state, [result.index for result in done.results]) == (JobState.SUCCEEDED, [0, 2])
    engine.begin()
    engine.play(an_image(0))
    engine.play(Finished())
    assert len(end_of(jobs, next_job).results) == 1, "a wish that came too late is nobody's"
    assert not jobs.skip_running()


def test_a_story_without_an_ending_fails(jobs: JobQueue, run: Callable[[Any], Worker]) -> None:
    job = submit(jobs)
    run(ScriptedEngine(lambda plan: [Started(1)]))
    assert end_of(jobs, job).reason == UNFORESEEN


def test_a_failure_told_by_the_engine_keeps_its_reason(jobs: JobQueue, run: Callable[[Any], Worker]) -> None:
    job = submit(jobs)
    run(ScriptedEngine(lambda plan: [Started(1), Failed("no room")]))
    assert end_of(jobs, job).reason == "no room"


def test_a_store_that_fails_fails_the_job(jobs: JobQueue, run: Callable[[Any], Worker], store: FakeStore) -> None:
    store.broken = OSError("No space left on device: /outputs/x")
    job = submit(jobs)
    run(ScriptedEngine())
    assert end_of(jobs, job).reason == PICTURE_LOST
    store.broken = None
    assert end_of(jobs, submit(jobs)).state is JobState.SUCCEEDED


def test_a_journal_that_fails_fails_the_job(
    jobs: JobQueue, run: Callable[[Any], Worker], journal: SqlJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(job: Job) -> None:
        raise JournalError("disk full")

    job = submit(jobs)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "save", full)
        run(ScriptedEngine())
        assert end_of(jobs, job).reason == JOURNAL_LOST
    assert end_of(jobs, submit(jobs)).state is JobState.SUCCEEDED
    assert len(journal.history()) == 2


def test_waiting_jobs_wait_for_a_journal_that_cannot_be_written(
    jobs: JobQueue, run: Callable[[Any], Worker], journal: SqlJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Semaphore(0)

    def full(job: Job) -> None:
        tried.release()
        raise JournalError("disk full")

    first, second = submit(jobs), submit(jobs)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "save", full)
        run(ScriptedEngine())
        for _ in range(4):
            assert tried.acquire(timeout=PATIENCE_S)
        assert end_of(jobs, first).reason == JOURNAL_LOST
        waiting = jobs.get(second.id)
        assert waiting is not None
        assert waiting.state is JobState.WAITING
    assert end_of(jobs, second).state is JobState.SUCCEEDED
    assert [job.state for job in journal.history()] == [JobState.SUCCEEDED, JobState.FAILED]


def test_jobs_do_not_wait_for_the_journal_for_ever(
    jobs: JobQueue, run: Callable[[Any], Worker], journal: SqlJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(job: Job) -> None:
        raise JournalError("disk full")

    first, second = submit(jobs), submit(jobs)
    monkeypatch.setattr(journal, "save", full)
    monkeypatch.setattr("fooocusapi.jobs.worker.JOURNAL_AWAITED_S", 0.2)
    run(ScriptedEngine())
    assert [end_of(jobs, job).reason for job in (first, second)] == [JOURNAL_LOST] * 2


def test_a_stop_ends_the_running_job_within_one_step(jobs: JobQueue, run: Callable[[Any], Worker]) -> None:
    engine = HandEngine()
    first, second = submit(jobs, images=2), submit(jobs)
    run(engine)
    engine.begin()
    engine.play(an_image())
    assert jobs.stop_running()
    engine.play(Progress(0.9, "one step more"))
    stopped = end_of(jobs, first)
    assert (stopped.state, len(stopped.results)) == (JobState.CANCELLED, 1)
    engine.begin()
    engine.play(Finished())
    assert end_of(jobs, second).state is JobState.SUCCEEDED


def test_the_engine_is_made_on_the_thread_of_the_worker(jobs: JobQueue, store: FakeStore) -> None:
    made_on: list[str] = []
    may_be_made = threading.Event()

    def make() -> ScriptedEngine:
        may_be_made.wait(PATIENCE_S)
        made_on.append(threading.current_thread().name)
        return ScriptedEngine()

    with working(Worker(jobs, store, make)) as worker:
        assert worker.status().state == "starting"
        job = submit(jobs)
        may_be_made.set()
        end_of(jobs, job)
        assert worker.status().state == "ready"
    assert made_on == ["worker"]


def test_an_engine_that_cannot_be_made_is_tried_again_with_the_next_job(jobs: JobQueue, store: FakeStore) -> None:
    attempts: list[int] = []

    def make() -> ScriptedEngine:
        attempts.append(1)
        if len(attempts) < 3:
            raise ImportError("/usr/lib/libcuda.so")
        return ScriptedEngine()

    with working(Worker(jobs, store, make)) as worker:
        failed = end_of(jobs, submit(jobs))
        assert (failed.state, failed.reason) == (JobState.FAILED, ENGINE_LOST)
        assert (worker.status().state, worker.status().reason) == ("unhealthy", ENGINE_LOST)
        assert end_of(jobs, submit(jobs)).state is JobState.SUCCEEDED
        assert worker.status().state == "ready"


def test_stopping_puts_an_unfinished_job_back(jobs: JobQueue, store: FakeStore, journal: SqlJournal) -> None:
    engine = HandEngine()
    job = submit(jobs)
    worker = Worker(jobs, store, lambda: engine)
    worker.start()
    engine.begin()
    stopping = threading.Thread(target=worker.stop, args=[0, PATIENCE_S])
    stopping.start()
    while not worker._letting_go.wait(PATIENCE_S):
        pass
    engine.play(Progress(0.5, "one step more"))
    stopping.join(PATIENCE_S)
    (waiting,) = journal.unfinished()
    assert waiting == job


def test_stopping_lets_a_job_finish_in_time(jobs: JobQueue, store: FakeStore) -> None:
    engine = HandEngine()
    job = submit(jobs)
    later = submit(jobs)
    worker = Worker(jobs, store, lambda: engine)
    worker.start()
    engine.begin()
    stopping = threading.Thread(target=worker.stop, args=[PATIENCE_S, 0])
    stopping.start()
    engine.play(an_image())
    engine.play(Finished())
    stopping.join(PATIENCE_S)
    states = [jobs.get(one.id) for one in (job, later)]
    assert [one.state for one in states if one] == [JobState.SUCCEEDED, JobState.WAITING]


def test_unloading_waits_for_the_running_job(jobs: JobQueue, store: FakeStore) -> None:
    class Unloadable(HandEngine):
        unloaded = 0

        def unload(self) -> None:
            self.unloaded += 1

    engine = Unloadable()
    with working(Worker(jobs, store, lambda: engine)) as worker:
        job = submit(jobs)
        engine.begin()
        unloading = threading.Thread(target=worker.unload)
        unloading.start()
        assert engine.unloaded == 0
        engine.play(Finished())
        end_of(jobs, job)
        unloading.join(PATIENCE_S)
        assert engine.unloaded == 1
