"""Jobs that are played together: each has its own events, its own tokens and its own end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from fooocus_core.events import Cancelled, Event, Failed, Finished, ImageFinished, PlanRun, Progress, Started
from fooocus_core.plan import Plan
from fooocusapi.jobs.job import Job, JobState, Taken
from fooocusapi.jobs.journal import SqlJournal
from fooocusapi.jobs.journal_base import JournalError
from fooocusapi.jobs.queue import JobQueue
from fooocusapi.jobs.reasons import JOURNAL_LOST, PICTURE_LOST, TOOK_TOO_LONG, UNFORESEEN
from fooocusapi.jobs.worker import Worker
from tests.fooocusapi.fakes import PATIENCE_S, FakeStore, Story, a_plan, an_image, good_story
from tests.fooocusapi.served import wait_until


class ChoirEngine:
    """Plays the stories of plans with prompts of one length in turns, event by event, from when ``go`` is set."""

    def __init__(self, story: Story = good_story) -> None:
        self._story = story
        self.go = threading.Event()
        self.groups: list[list[str]] = []
        self.thread_ids: list[int] = []

    def takes_together(self, plans: Sequence[Plan]) -> bool:
        return len({len(plan.main.prompts.prompt) for plan in plans}) == 1

    def run_together(self, runs: Sequence[PlanRun]) -> Iterator[tuple[int, Event]]:
        self.groups.append([run.plan.main.prompts.prompt for run in runs])
        assert self.go.wait(PATIENCE_S)
        stories = {number: iter(self._story(run.plan)) for number, run in enumerate(runs)}
        while stories:
            for number, story in list(stories.items()):
                event = Cancelled() if runs[number].cancel() else next(story, None)
                if isinstance(event, Exception):
                    raise event
                if event is None or isinstance(event, Cancelled):
                    del stories[number]
                if event is not None and not (isinstance(event, ImageFinished) and runs[number].skip()):
                    yield number, event

    def unload(self) -> None: ...


@pytest.fixture
def engine() -> ChoirEngine:
    return ChoirEngine()


@contextmanager
def working(jobs: JobQueue, store: FakeStore, engine: Any, **more: Any) -> Iterator[Worker]:
    """A worker that has taken a first job, so that all that is submitted inside waits for the next turn."""
    worker = Worker(jobs, store, lambda: engine, **more)
    worker.start()
    submit(jobs, "the first one")
    wait_until(lambda: len(engine.groups) == 1)
    try:
        yield worker
    finally:
        engine.go.set()
        assert worker.stop(0, PATIENCE_S)


def submit(jobs: JobQueue, prompt: str, images: int = 1) -> Job:
    return jobs.submit(a_plan(prompt, images=images), "classic", "Text to Image", {})


def end_of(jobs: JobQueue, job: Job) -> Job:
    return asyncio.run(asyncio.wait_for(jobs.wait(job.id), PATIENCE_S))


def test_waiting_jobs_that_fit_are_played_together(
    jobs: JobQueue, store: FakeStore, engine: ChoirEngine, journal: SqlJournal
) -> None:
    with working(jobs, store, engine):
        several = [submit(jobs, prompt, images) for prompt, images in (("a", 1), ("b", 3), ("cc", 1), ("d", 2))]
        engine.go.set()
        done = [end_of(jobs, job) for job in several]
    assert engine.groups[1:] == [["a", "b"], ["cc"], ["d"]]
    assert [job.state for job in done] == [JobState.SUCCEEDED] * 4
    assert [[result.index for result in job.results] for job in done] == [[0], [0, 1, 2], [0], [0, 1]]
    assert all(job.id in result.path for job in done for result in job.results)
    assert [journal.get(job.id) for job in done] == done


def test_the_engines_own_threads_are_known(jobs: JobQueue, store: FakeStore, engine: ChoirEngine) -> None:
    with working(jobs, store, engine) as worker:
        before = len(worker.thread_ids)
        engine.thread_ids = [threading.get_ident()]
        assert worker.thread_ids[before:] == engine.thread_ids


def test_nothing_is_taken_together_before_there_is_an_engine(jobs: JobQueue, store: FakeStore) -> None:
    def fail() -> Any:
        raise ImportError("libcuda")

    worker = Worker(jobs, store, fail)
    several = [submit(jobs, "a"), submit(jobs, "b")]
    worker.start()
    assert [end_of(jobs, job).state for job in several] == [JobState.FAILED] * 2
    assert worker.stop(0, PATIENCE_S)


def test_an_engine_that_cannot_tell_what_fits_plays_one_by_one(
    jobs: JobQueue, store: FakeStore, engine: ChoirEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(plans: Sequence[Plan]) -> bool:
        raise RuntimeError("what?")

    monkeypatch.setattr(engine, "takes_together", broken)
    with working(jobs, store, engine):
        several = [submit(jobs, "a"), submit(jobs, "b")]
        engine.go.set()
        assert [end_of(jobs, job).state for job in several] == [JobState.SUCCEEDED] * 2
    assert engine.groups[1:] == [["a"], ["b"]]


@pytest.mark.parametrize("by", ["cancel", "delete"])
def test_one_that_is_stopped_leaves_the_others_alone(
    jobs: JobQueue, store: FakeStore, engine: ChoirEngine, by: str
) -> None:
    def story(plan: Plan) -> Iterator[Event]:
        if plan.main.prompts.prompt == "b":
            stop: Callable[[str], bool] = getattr(jobs, by)
            assert stop(several[1].id)
        yield from good_story(plan)

    engine = ChoirEngine(story)
    with working(jobs, store, engine):
        several = [submit(jobs, prompt) for prompt in "abc"]
        engine.go.set()
        states = [end_of(jobs, several[number]).state for number in (0, 2)]
        wait_until(lambda: not jobs.is_running())
        stopped = jobs.get(several[1].id)
    assert states == [JobState.SUCCEEDED] * 2
    assert (stopped and stopped.state) == (JobState.CANCELLED if by == "cancel" else None)


def endless(plan: Plan) -> Iterator[Event]:
    """A picture and then steps without end, but for the job that comes before all others."""
    if len(plan.main.prompts.prompt) > 1:
        yield from good_story(plan)
        return
    yield an_image()
    while True:
        yield Progress(0.5, "Step")


def test_a_stop_of_what_runs_stops_them_all_and_no_job_behind(jobs: JobQueue, store: FakeStore) -> None:
    engine = ChoirEngine(endless)
    with working(jobs, store, engine):
        several, behind = [submit(jobs, prompt) for prompt in "ab"], submit(jobs, "behind")
        engine.go.set()
        wait_until(lambda: [len(job.results) for job in jobs.unfinished().running] == [1, 1])
        assert jobs.stop_running()
        assert [end_of(jobs, job).state for job in several] == [JobState.CANCELLED] * 2
        assert end_of(jobs, behind).state is JobState.SUCCEEDED


def test_a_wish_to_leave_out_reaches_all_that_are_painted(jobs: JobQueue, store: FakeStore) -> None:
    def story(plan: Plan) -> Iterator[Event]:
        for event in good_story(plan):
            if isinstance(event, ImageFinished) and event.index == 0 and plan.main.prompts.prompt == "a":
                jobs.skip_running()
            yield event

    engine = ChoirEngine(story)
    with working(jobs, store, engine):
        several = [submit(jobs, prompt, images=2) for prompt in "ab"]
        engine.go.set()
        done = [end_of(jobs, job) for job in several]
    assert [[result.index for result in job.results] for job in done] == [[1], [1]]


@pytest.mark.parametrize(("error", "reason"), [(OSError("full"), PICTURE_LOST), (JournalError("x"), JOURNAL_LOST)])
def test_a_picture_that_cannot_be_saved_fails_its_job_alone(
    jobs: JobQueue, store: FakeStore, engine: ChoirEngine, error: Exception, reason: str
) -> None:
    with working(jobs, store, engine):
        lost, good = submit(jobs, "a", images=3), submit(jobs, "b", images=3)
        save = store.save

        def save_but(job: Job, event: ImageFinished, note: Callable[[str], object]) -> str:
            if job.id == lost.id:
                raise error
            return save(job, event, note)

        store.save = save_but  # type: ignore[method-assign]
        engine.go.set()
        failed, done = end_of(jobs, lost), end_of(jobs, good)
    assert (failed.state, failed.reason, failed.results) == (JobState.FAILED, reason, ())
    assert (done.state, len(done.results)) == (JobState.SUCCEEDED, 3)


def test_an_engine_that_raises_fails_those_that_have_not_ended(jobs: JobQueue, store: FakeStore) -> None:
    def story(plan: Plan) -> Iterator[Event | Exception]:
        if plan.main.prompts.prompt == "b":
            yield Started(1)
            yield Progress(0.1, "Step 1")
            yield Progress(0.2, "Step 2")
            yield RuntimeError("secret /path")
        yield Finished()

    engine = ChoirEngine(story)
    with working(jobs, store, engine):
        several = [submit(jobs, prompt) for prompt in "abc"]
        engine.go.set()
        done = [end_of(jobs, job) for job in several]
        behind = end_of(jobs, submit(jobs, "behind"))
    assert [job.reason for job in done] == ["", UNFORESEEN, ""]
    assert behind.state is JobState.SUCCEEDED


def test_a_failure_and_a_story_without_an_ending_are_their_own(jobs: JobQueue, store: FakeStore) -> None:
    def story(plan: Plan) -> Iterator[Event]:
        match plan.main.prompts.prompt:
            case "a":
                yield Failed("no room")
            case "b":
                yield Started(1)
            case _:
                yield from good_story(plan)

    engine = ChoirEngine(story)
    with working(jobs, store, engine):
        several = [submit(jobs, prompt) for prompt in "abc"]
        engine.go.set()
        done = [end_of(jobs, job) for job in several]
    assert [job.reason for job in done] == ["no room", UNFORESEEN, ""]


def test_one_whose_time_is_up_fails_alone(jobs: JobQueue, store: FakeStore, engine: ChoirEngine) -> None:
    def limit_s(job: Job) -> float:
        return 0.0 if job.job_type == "short" else 3600.0

    with working(jobs, store, engine, time_limit_s=limit_s):
        short = jobs.submit(a_plan("a"), "classic", "short", {})
        long = submit(jobs, "b")
        engine.go.set()
        assert end_of(jobs, short).reason == TOOK_TOO_LONG
        assert end_of(jobs, long).state is JobState.SUCCEEDED
    assert engine.groups[1:] == [["a", "b"]]


def lose(jobs: JobQueue, images: int = 1) -> list[Job]:
    """Two jobs that were running, and one that waited, when the process was lost."""
    several = [submit(jobs, prompt, images) for prompt in "abc"]
    for assignment in jobs.take(lambda some: len(some) <= 2):
        jobs.apply(assignment.job.id, Taken())
    return several


def test_jobs_with_which_the_process_was_lost_are_played_alone(
    make_queue: Callable[..., JobQueue], store: FakeStore, engine: ChoirEngine
) -> None:
    several, restarted = lose(make_queue()), make_queue()
    restarted.restore()
    engine.go.set()
    worker = Worker(restarted, store, lambda: engine)
    worker.start()
    assert [end_of(restarted, job).state for job in several] == [JobState.SUCCEEDED] * 3
    assert engine.groups == [["a"], ["b"], ["c"]]
    assert worker.stop(0, PATIENCE_S)


def test_a_job_with_which_the_process_was_lost_begins_when_the_one_before_is_saved(
    make_queue: Callable[..., JobQueue], store: FakeStore, journal: SqlJournal
) -> None:
    begun_behind: list[list[JobState]] = []

    def story(plan: Plan) -> Iterator[Event]:
        states = [journal.get(job.id) for job in several]
        begun_behind.append([job.state for job in states if job])
        yield from good_story(plan)

    several, restarted = lose(make_queue(), images=3), make_queue()
    restarted.restore()
    engine = ChoirEngine(story)
    engine.go.set()
    worker = Worker(restarted, store, lambda: engine)
    worker.start()
    end_of(restarted, several[2])
    assert begun_behind[1] == [JobState.SUCCEEDED, JobState.RUNNING, JobState.WAITING]
    assert worker.stop(0, PATIENCE_S)


def test_a_shutdown_puts_them_all_back(jobs: JobQueue, store: FakeStore, journal: SqlJournal) -> None:
    engine = ChoirEngine(endless)
    with working(jobs, store, engine) as worker:
        several = [submit(jobs, prompt) for prompt in "abc"]
        engine.go.set()
        wait_until(lambda: [len(job.results) for job in jobs.unfinished().running] == [1, 1, 1])
        assert worker.stop(0, PATIENCE_S)
    assert journal.unfinished() == several
    assert len(store.files) == 1, "the pictures of the first job are left"
