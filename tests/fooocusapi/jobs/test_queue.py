"""The queue without a worker: the test takes the jobs and tells their events."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from fooocus_core.events import Cancelled, Failed, Finished, Progress
from fooocusapi.jobs.bridge import QueueClosed
from fooocusapi.jobs.job import Job, JobState, Taken
from fooocusapi.jobs.journal import SqlJournal
from fooocusapi.jobs.journal_base import JournalError
from fooocusapi.jobs.queue import Counters, JobQueue, Limits, QueueFull, UnknownJob, random_id
from tests.fooocusapi.fakes import PATIENCE_S, FakeClock, FakeStore, a_plan, a_preview, an_image

MakeQueue = Callable[..., JobQueue]


def submit(jobs: JobQueue, save_name: str = "") -> Job:
    return jobs.submit(a_plan(save_name=save_name), "classic", "Text to Image", {"require_base64": False})


def begin(jobs: JobQueue) -> Job:
    (assignment,) = jobs.take()
    return jobs.apply(assignment.job.id, Taken())


def finish(jobs: JobQueue, store: FakeStore, images: int = 1) -> Job:
    """Let the oldest waiting job succeed."""
    job = begin(jobs)
    for index in range(images):
        jobs.apply_image(job.id, index, 7 + index, lambda note, index=index: store.save(job, an_image(index), note))
    return jobs.apply(job.id, Finished())


# ------------------------------------------------------------------------------------------------------ submitting


def test_a_job_is_in_the_journal_before_submit_returns(jobs: JobQueue, journal: SqlJournal, clock: FakeClock) -> None:
    job = submit(jobs)
    assert journal.get(job.id) == job == jobs.get(job.id)
    assert (job.state, job.queued_ms, job.attempts) == (JobState.WAITING, clock.now_ms, 0)


def test_what_has_not_ended_is_told_apart(jobs: JobQueue) -> None:
    assert (jobs.unfinished().running, jobs.unfinished().waiting) == ((), ())
    first, second, third = (submit(jobs) for _ in range(3))
    assert [job.number for job in (first, second, third)] == [1, 2, 3]
    assert jobs.unfinished().waiting == (first, second, third)
    assert (begin(jobs),) == jobs.unfinished().running
    assert jobs.unfinished().waiting == (second, third)


def test_a_full_queue_refuses_and_leaves_no_job(make_queue: MakeQueue, journal: SqlJournal, store: FakeStore) -> None:
    jobs = make_queue(Limits(queue_size=2))
    submit(jobs)
    submit(jobs)
    begin(jobs)
    with pytest.raises(QueueFull, match="2 jobs"):
        submit(jobs)
    assert len(journal.unfinished()) == 2
    jobs.apply(jobs.snapshot().queue[0].id, Finished())
    submit(jobs)


def test_a_journal_that_fails_leaves_no_job(make_queue: MakeQueue) -> None:
    class Broken:
        def add(self, job: Job) -> None:
            raise JournalError("disk full")

    jobs = make_queue(journal=Broken())
    with pytest.raises(JournalError):
        submit(jobs)
    assert jobs.counters() == Counters(0, 0, None)


def test_many_threads_submit_at_once(make_queue: MakeQueue, journal: SqlJournal) -> None:
    jobs = make_queue(Limits(queue_size=60), new_id=random_id)
    accepted, refused = [], []
    barrier = threading.Barrier(8)

    def client() -> None:
        barrier.wait(PATIENCE_S)
        for _ in range(10):
            try:
                accepted.append(submit(jobs).id)
            except QueueFull:
                refused.append(1)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert (len(accepted), len(refused)) == (60, 20)
    assert len(set(accepted)) == 60
    in_queue = [summary.id for summary in jobs.snapshot().queue]
    assert in_queue == [job.id for job in journal.unfinished()], "the journal's order is the queue's"
    assert set(in_queue) == set(accepted)


# -------------------------------------------------------------------------------------------------------- looking


def test_an_idle_fresh_queue_answers(jobs: JobQueue) -> None:
    assert jobs.counters() == Counters(0, 0, None)
    assert jobs.snapshot().queue == jobs.snapshot().history == ()
    assert jobs.get("nobody") is None
    assert jobs.latest_preview("nobody") is None
    assert jobs.history() == []


def test_counters_and_lists_follow_the_jobs(jobs: JobQueue, store: FakeStore) -> None:
    first, second, third = (submit(jobs) for _ in range(3))
    finish(jobs, store)
    begin(jobs)
    assert jobs.counters() == Counters(2, 1, third.id)
    snapshot = jobs.snapshot()
    assert [job.id for job in snapshot.queue] == [second.id, third.id]
    assert [(job.id, job.state) for job in snapshot.history] == [(first.id, JobState.SUCCEEDED)]


def test_progress_and_previews_stay_in_memory(jobs: JobQueue, journal: SqlJournal) -> None:
    job = submit(jobs)
    begin(jobs)
    jobs.apply(job.id, Progress(0.5, "Step 1/2", a_preview(3)))
    seen = jobs.get(job.id)
    assert seen is not None
    assert (seen.fraction, seen.text) == (0.5, "Step 1/2")
    preview = jobs.latest_preview(job.id)
    assert preview is not None
    assert preview[0, 0, 0] == 3
    jobs.apply(job.id, Progress(0.6, "Saving"))
    assert jobs.latest_preview(job.id) is preview
    written = journal.get(job.id)
    assert written is not None
    assert written.fraction == 0
    jobs.apply(job.id, Finished())
    assert jobs.latest_preview(job.id) is None


def test_old_finished_jobs_are_answered_from_the_journal(make_queue: MakeQueue, store: FakeStore) -> None:
    jobs = make_queue(Limits(recent=1, listed=2))
    ids = [submit(jobs).id for _ in range(3)]
    done = [finish(jobs, store) for _ in ids]
    assert [jobs.get(job_id) for job_id in ids] == done
    assert [jobs.get_cached(job_id) for job_id in ids] == [None, None, done[2]]
    assert [job.id for job in jobs.snapshot().history] == ids[1:]


# ------------------------------------------------------------------------------------------------- waiting for jobs


def test_everybody_who_waits_is_told(jobs: JobQueue) -> None:
    async def story() -> None:
        job = submit(jobs)
        waiters = [asyncio.create_task(jobs.wait(job.id)) for _ in range(20)]
        await asyncio.sleep(0)
        begin(jobs)
        ended = await asyncio.to_thread(jobs.apply, job.id, Finished())
        assert await asyncio.gather(*waiters) == [ended] * 20
        assert await jobs.wait(job.id) == ended, "and whoever comes late as well"
        assert not jobs._watchers._by_job

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_subscriber_sees_the_newest_state_and_the_end(jobs: JobQueue) -> None:
    async def story() -> None:
        job = submit(jobs)
        seen = jobs.subscribe(job.id)
        assert (await anext(seen)).state is JobState.WAITING
        begin(jobs)
        for step in range(1, 10):
            jobs.apply(job.id, Progress(step / 10, f"Step {step}"))
        assert (await anext(seen)).text == "Step 9", "what came in between is not kept for slow readers"
        jobs.apply(job.id, Finished())
        assert [job.state async for job in seen] == [JobState.SUCCEEDED]

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_nobody_waits_for_an_unknown_job(jobs: JobQueue) -> None:
    with pytest.raises(UnknownJob):
        asyncio.run(jobs.wait("nobody"))


def test_closing_lets_everybody_go(jobs: JobQueue) -> None:
    async def story() -> None:
        job = submit(jobs)
        waiter = asyncio.create_task(jobs.wait(job.id))
        await asyncio.sleep(0)
        jobs.release_waiters()
        with pytest.raises(QueueClosed):
            await waiter
        with pytest.raises(QueueClosed):
            await jobs.wait(job.id)

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_an_ending_is_heard_even_if_the_queue_closes_right_after(jobs: JobQueue) -> None:
    async def story() -> None:
        job = submit(jobs)
        waiter = asyncio.create_task(jobs.wait(job.id))
        await asyncio.sleep(0)
        begin(jobs)
        jobs.apply(job.id, Finished())
        jobs.release_waiters()
        assert (await waiter).state is JobState.SUCCEEDED

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_client_that_went_away_with_its_loop_harms_nobody(jobs: JobQueue) -> None:
    job = submit(jobs)
    waiting = jobs.wait(job.id)

    async def give_up() -> None:
        task = asyncio.ensure_future(waiting)
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(give_up())
    begin(jobs)
    assert jobs.apply(job.id, Finished()).state is JobState.SUCCEEDED


# --------------------------------------------------------------------------------------------------- several at once


def test_jobs_that_fit_are_taken_together_in_their_order(jobs: JobQueue) -> None:
    asked: list[list[str]] = []

    def fits(some: Sequence[Job]) -> bool:
        asked.append([job.id for job in some])
        return len(some) <= 3

    ids = [submit(jobs).id for _ in range(4)]
    assert [assignment.job.id for assignment in jobs.take(fits)] == ids[:3]
    assert asked == [ids[:2], ids[:3], ids]
    assert [job.id for job in jobs.unfinished().running] == ids[:3]
    assert [assignment.job.id for assignment in jobs.take(fits)] == ids[3:]


def test_no_job_overtakes_one_that_does_not_fit(jobs: JobQueue) -> None:
    first, unfit, third = (submit(jobs, name) for name in ("a", "b", "a"))

    def fits(some: Sequence[Job]) -> bool:
        return len({job.plan.output.save_name for job in some if job.plan}) == 1

    assert [[one.job.id for one in jobs.take(fits)] for _ in range(3)] == [[first.id], [unfit.id], [third.id]]


def test_one_that_is_withdrawn_while_it_is_judged_is_not_taken(jobs: JobQueue) -> None:
    first, withdrawn, third = (submit(jobs) for _ in range(3))

    def fits(some: Sequence[Job]) -> bool:
        if some[-1].id == withdrawn.id:
            assert jobs.cancel(withdrawn.id)
        return True

    assert [assignment.job.id for assignment in jobs.take(fits)] == [first.id, third.id]


def test_running_jobs_are_told_apart(jobs: JobQueue) -> None:
    for _ in range(3):
        submit(jobs)
    first, second, third = jobs.take(lambda some: True)
    for number, assignment in enumerate((first, second, third)):
        jobs.apply(assignment.job.id, Taken())
        jobs.apply(assignment.job.id, Progress(0.5, "Step 1", a_preview(number)))
    assert jobs.cancel(second.job.id)
    assert [one.cancel() for one in (first, second, third)] == [False, True, False]
    jobs.apply(second.job.id, Cancelled())
    shown = [jobs.latest_preview(one.job.id) for one in (first, second, third)]
    assert [None if one is None else int(one[0, 0, 0]) for one in shown] == [0, None, 2]
    assert jobs.skip_running()
    assert [one.skip() for one in (first, third)] == [True, True]
    assert [one.skip() for one in (first, third)] == [False, False], "each wish is told once"
    assert jobs.delete(first.job.id)
    for one in (first, third):
        jobs.apply(one.job.id, Finished())
    assert (jobs.get(first.job.id), jobs.counters().finished) == (None, 2)


def test_jobs_that_were_taken_together_are_put_back_in_their_order(jobs: JobQueue, make_queue: MakeQueue) -> None:
    ids = [submit(jobs).id for _ in range(4)]
    for assignment in jobs.take(lambda some: len(some) <= 3):
        jobs.apply(assignment.job.id, Taken())
    jobs.put_back(ids[1])
    jobs.put_back_running()
    assert [job.id for job in jobs.unfinished().waiting] == ids
    again = make_queue()
    again.restore()
    assert [job.id for job in again.unfinished().waiting] == ids


# ------------------------------------------------------------------------------------------------------- stopping


def test_a_stop_while_idle_never_hits_the_next_job(jobs: JobQueue) -> None:
    assert not jobs.stop_running()
    submit(jobs)
    assert not jobs.stop_running(), "a waiting job is not the running one"
    (assignment,) = jobs.take()
    assert not assignment.cancel()


def test_a_stop_hits_the_running_job_only(jobs: JobQueue) -> None:
    submit(jobs)
    submit(jobs)
    (first,) = jobs.take()
    assert jobs.stop_running()
    assert first.cancel()
    jobs.apply(first.job.id, Cancelled())
    (second,) = jobs.take()
    assert not second.cancel()
    assert first.cancel(), "the token of an old job stays its own"


def test_cancelling_one_job(jobs: JobQueue, journal: SqlJournal, ended: list[Job]) -> None:
    running, waiting, other = (submit(jobs) for _ in range(3))
    (assignment,) = jobs.take()
    assert jobs.cancel(waiting.id)
    assert not jobs.cancel(waiting.id)
    assert not jobs.cancel("nobody")
    assert not assignment.cancel()
    assert jobs.cancel(running.id)
    assert assignment.cancel()
    written = journal.get(waiting.id)
    assert written is not None
    assert written.state is JobState.CANCELLED
    assert [job.id for job in ended] == [waiting.id]
    assert [job.id for job in jobs.snapshot().queue] == [running.id, other.id]


def test_a_closed_queue_takes_and_gives_nothing(jobs: JobQueue, journal: SqlJournal) -> None:
    submit(jobs)
    jobs.close()
    with pytest.raises(QueueClosed):
        submit(jobs)
    assert not jobs.take()
    assert len(journal.unfinished()) == 1


def test_putting_back_keeps_the_order_and_the_attempts(jobs: JobQueue, make_queue: MakeQueue) -> None:
    first, second = submit(jobs), submit(jobs)
    begin(jobs)
    jobs.apply(first.id, Progress(0.5, "Step 1", a_preview()))
    jobs.put_back(first.id)
    assert jobs.get(first.id) == first
    assert jobs.latest_preview(first.id) is None
    again = make_queue()
    again.restore()
    assert [job.id for job in again.snapshot().queue] == [first.id, second.id]


# ------------------------------------------------------------------------------------------------ history and files


def test_a_job_whose_worker_cannot_be_waited_for_keeps_its_attempts(jobs: JobQueue, journal: SqlJournal) -> None:
    jobs.put_back_running()  # Nothing runs, nothing happens.
    submit(jobs)
    job = begin(jobs)
    jobs.put_back_running()
    (waiting,) = journal.unfinished()
    assert (waiting.id, waiting.state, waiting.attempts) == (job.id, JobState.WAITING, 0)
    jobs.apply(job.id, Progress(0.5, "one step more"))
    assert jobs.apply(job.id, Finished()).state is JobState.SUCCEEDED, "the worker may still bring it to its end"
    assert jobs.unfinished().waiting == ()
    assert journal.unfinished() == []


def test_a_stopped_job_whose_worker_cannot_be_waited_for_does_not_come_back(
    jobs: JobQueue, journal: SqlJournal
) -> None:
    submit(jobs)
    begin(jobs)
    jobs.stop_running()
    jobs.put_back_running()
    assert journal.unfinished() == []
    assert journal.history()[0].state is JobState.CANCELLED


def test_trimming_drops_the_oldest_with_its_files(make_queue: MakeQueue, store: FakeStore) -> None:
    jobs = make_queue(Limits(history=2))
    ids = []
    for _ in range(4):
        ids.append(submit(jobs).id)
        finish(jobs, store, images=2)
    assert [jobs.get(job_id) is not None for job_id in ids] == [False, False, True, True]
    assert [job.id for job in jobs.snapshot().history] == ids[2:]
    assert {path.rpartition("/")[2] for path in store.files} == {f"{job}-{i}.png" for job in ids[2:] for i in (0, 1)}


def test_trimming_reaches_jobs_of_an_earlier_run(jobs: JobQueue, make_queue: MakeQueue, store: FakeStore) -> None:
    for _ in range(3):
        submit(jobs)
        finish(jobs, store)
    make_queue(Limits(history=1)).restore()
    assert len(jobs.history()) == len(store.files) == 1


def test_a_file_that_another_job_owns_now_stays(jobs: JobQueue, store: FakeStore) -> None:
    old, new = submit(jobs, "apple"), submit(jobs, "apple")
    finish(jobs, store)
    finish(jobs, store)
    assert jobs.delete(old.id)
    assert list(store.files) == ["2026-01-01/apple-0.png"]
    assert jobs.delete(new.id)
    assert not store.files


def test_deleting_waits_for_a_picture_that_is_being_written(jobs: JobQueue, store: FakeStore) -> None:
    old, new = submit(jobs, "apple"), submit(jobs, "apple")
    finish(jobs, store)
    job = begin(jobs)
    writing, deleting = threading.Event(), threading.Thread(target=jobs.delete, args=[old.id])

    def save(note: Callable[[str], None]) -> str:
        path = store.save(job, an_image(), note)
        writing.set()
        deleting.start()
        deleting.join(0.05)
        assert deleting.is_alive(), "between the rename and the record nothing is deleted"
        return path

    jobs.apply_image(new.id, 0, 7, save)
    deleting.join(PATIENCE_S)
    assert list(store.files) == ["2026-01-01/apple-0.png"]


def test_progress_that_is_told_while_a_picture_is_saved_is_kept(jobs: JobQueue, store: FakeStore) -> None:
    submit(jobs)
    job = begin(jobs)

    def save(note: Callable[[str], None]) -> str:
        path = store.save(job, an_image(), note)
        jobs.apply(job.id, Progress(0.6, "Step 3/5"))
        return path

    done = jobs.apply_image(job.id, 0, 7, save)
    assert (done.text, done.fraction, len(done.results)) == ("Step 3/5", 0.6, 1)
    assert jobs.get(job.id) == done


def test_a_job_that_was_put_back_gets_no_picture_any_more(
    jobs: JobQueue, store: FakeStore, journal: SqlJournal
) -> None:
    submit(jobs)
    job = begin(jobs)
    jobs.put_back_running()
    jobs.apply_image(job.id, 0, 7, lambda note: store.save(job, an_image(), note))
    assert not store.files
    assert journal.unfinished()[0].results == ()


def test_deleting_by_state(jobs: JobQueue, store: FakeStore, journal: SqlJournal) -> None:
    done, running, waiting = (submit(jobs) for _ in range(3))
    finish(jobs, store)
    assert not jobs.delete("nobody")
    assert jobs.delete(done.id)
    assert not jobs.delete(done.id)
    assert jobs.delete(waiting.id)
    (assignment,) = jobs.take()
    assert jobs.delete(running.id)
    assert assignment.cancel(), "a running job is asked to stop"
    assert jobs.get(running.id) is not None
    jobs.apply(running.id, Cancelled())
    assert jobs.get(running.id) is None
    assert journal.history() == journal.unfinished() == []
    assert jobs.counters() == Counters(0, 0, waiting.id)


def test_an_ending_is_told_although_the_journal_fails_and_is_written_later(
    make_queue: MakeQueue, journal: SqlJournal, store: FakeStore, ended: list[Job]
) -> None:
    class Moody(SqlJournal):
        """The real journal, on a disk that may be full."""

        full = False

        def __init__(self) -> None:
            self._engine = journal._engine

        def save(self, job: Job) -> None:
            if self.full:
                raise JournalError("disk full")
            super().save(job)

    moody = Moody()
    jobs = make_queue(Limits(recent=0), journal=moody)
    first, second = submit(jobs), submit(jobs)
    begin(jobs)
    moody.full = True
    jobs.apply(first.id, Failed("no room"))
    seen = jobs.get(first.id)
    assert seen is not None
    assert seen.state is JobState.FAILED, "memory knows, though the journal does not"
    assert [job.id for job in ended] == [first.id]
    moody.full = False
    finish(jobs, store)
    assert [job.id for job in journal.history(newest_first=False)] == [first.id, second.id]
    assert not jobs._unsaved


def test_what_the_history_has_no_room_for_is_told(journal: SqlJournal, clock: FakeClock, store: FakeStore) -> None:
    """A job that somebody deletes is not."""
    trimmed: list[str] = []
    jobs = JobQueue(
        journal,
        clock=clock,
        limits=Limits(history=1),
        delete_files=store.delete,
        on_trimmed=[lambda job: trimmed.append(job.id)],
    )
    first, second = submit(jobs), submit(jobs)
    finish(jobs, store)
    assert trimmed == []
    finish(jobs, store)
    assert trimmed == [first.id]
    jobs.delete(second.id)
    assert trimmed == [first.id]


def test_listeners_that_raise_harm_nobody(journal: SqlJournal, clock: FakeClock, store: FakeStore) -> None:
    def raising(job: Job) -> None:
        raise RuntimeError

    jobs = JobQueue(journal, clock=clock, delete_files=store.delete, on_ended=[raising])
    submit(jobs)
    assert finish(jobs, store).state is JobState.SUCCEEDED


# -------------------------------------------------------------------------------------------------------- restarts


def test_after_a_crash_the_running_job_starts_once_more_then_fails(
    jobs: JobQueue, make_queue: MakeQueue, ended: list[Job]
) -> None:
    first, second = submit(jobs), submit(jobs)
    begin(jobs)

    again = make_queue()
    again.restore()
    assert [(job.id, job.state) for job in again.snapshot().queue] == [
        (first.id, JobState.WAITING),
        (second.id, JobState.WAITING),
    ]
    assert again.counters().last_job_id == second.id
    assert begin(again).attempts == 2

    third_run = make_queue()
    third_run.restore()
    assert [job.id for job in third_run.snapshot().queue] == [second.id]
    failed = third_run.get(first.id)
    assert failed is not None
    assert failed.state is JobState.FAILED
    assert "server stopped" in failed.reason
    assert [job.id for job in ended] == [first.id]


@pytest.mark.parametrize("is_orderly", [True, False])
def test_pictures_of_a_job_that_starts_again_are_deleted(
    jobs: JobQueue, make_queue: MakeQueue, store: FakeStore, is_orderly: bool
) -> None:
    """But for those whose name another job has used since."""
    submit(jobs, save_name="apple")
    finish(jobs, store)
    submit(jobs, save_name="apple")
    job = begin(jobs)
    for index in range(2):
        jobs.apply_image(job.id, index, 7, lambda note, index=index: store.save(job, an_image(index), note))
    if is_orderly:
        jobs.put_back(job.id)
    again = make_queue()
    again.restore()
    assert list(store.files) == ["2026-01-01/apple-0.png"]


def test_finished_jobs_are_known_after_a_restart_but_not_listed(
    jobs: JobQueue, make_queue: MakeQueue, store: FakeStore
) -> None:
    submit(jobs)
    done = finish(jobs, store)
    again = make_queue()
    again.restore()
    assert again.get(done.id) == done
    assert again.counters() == Counters(0, 0, None)
    assert asyncio.run(again.wait(done.id)) == done


def test_a_waiting_job_of_another_release_fails_and_the_rest_runs(
    jobs: JobQueue, make_queue: MakeQueue, journal: SqlJournal
) -> None:
    first, second = submit(jobs), submit(jobs)
    with journal._writing() as connection:
        connection.exec_driver_sql(
            "UPDATE fooocusapi_job SET plan = json_set(plan, '$.version', 99) WHERE id = ?", (first.id,)
        )
    again = make_queue()
    again.restore()
    failed = again.get(first.id)
    assert failed is not None
    assert failed.state is JobState.FAILED
    assert "another release" in failed.reason
    assert [job.id for job in again.snapshot().queue] == [second.id]
