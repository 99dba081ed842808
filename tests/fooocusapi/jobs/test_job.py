"""``advance``: every story a job can live, and what holds in all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fooocus_core.events import Cancelled, Failed, Finished, Progress, Started
from fooocusapi.jobs.job import ALMOST_DONE, ImageSaved, Job, JobEvent, JobState, Requeued, ResultImage, Taken, advance
from tests.fooocusapi.fakes import BIRTH_MS, a_plan, a_preview, an_image

WAITING = Job("1", "classic", "Text to Image", a_plan(), queued_ms=BIRTH_MS)
RUNNING = advance(WAITING, Taken(), BIRTH_MS + 1)

fractions = st.floats(allow_nan=True, allow_infinity=True)
events = st.one_of(
    st.just(Taken()),
    st.just(Started(1)),
    st.builds(Progress, fractions, st.text(max_size=5), st.none() | st.just(a_preview())),
    st.just(an_image()),
    st.builds(ImageSaved, st.integers(0, 4), st.integers(0, 2**63), st.text(max_size=5)),
    st.builds(Requeued, st.booleans()),
    st.just(Finished()),
    st.builds(Failed, st.text(max_size=5)),
    st.just(Cancelled()),
)
times = st.integers(0, 2 * BIRTH_MS)


@given(st.lists(st.tuples(events, times), max_size=30))
def test_what_holds_in_every_story(story: list[tuple[JobEvent, int]]) -> None:
    job = WAITING
    for event, now_ms in story:
        before, job = job, advance(job, event, now_ms)
        if before.state.is_terminal:
            assert job is before
        if not isinstance(event, (Taken, Requeued)):
            assert job.fraction >= before.fraction
        assert (job.id, job.plan, job.queued_ms) == (WAITING.id, WAITING.plan, WAITING.queued_ms)
        assert 0 <= job.fraction <= 1
        assert (job.fraction == 1) == (job.state is JobState.SUCCEEDED)
        assert (job.finished_ms > 0) == job.state.is_terminal
        assert not job.finished_ms or job.finished_ms >= max(job.started_ms, job.queued_ms)
        assert not job.reason or job.state is JobState.FAILED
        assert [result.index for result in job.results] == sorted({result.index for result in job.results})
        assert job.attempts >= 0


def test_a_good_story() -> None:
    job = RUNNING
    assert (job.state, job.started_ms, job.attempts) == (JobState.RUNNING, BIRTH_MS + 1, 1)
    job = advance(job, Progress(0.4, "Step 1/2"), BIRTH_MS + 2)
    assert (job.fraction, job.text) == (0.4, "Step 1/2")
    job = advance(job, ImageSaved(0, 7, "a/b.png"), BIRTH_MS + 3)
    job = advance(job, Finished(), BIRTH_MS + 4)
    assert job.state is JobState.SUCCEEDED
    assert (job.fraction, job.text, job.finished_ms) == (1.0, "Finished", BIRTH_MS + 4)
    assert job.results == (ResultImage(0, 7, "a/b.png"),)


def test_progress_never_falls_and_never_says_done() -> None:
    job = advance(advance(RUNNING, Progress(0.5, ""), 0), Progress(0.2, "later"), 0)
    assert (job.fraction, job.text) == (0.5, "later")
    assert advance(job, Progress(1.0, ""), 0).fraction == ALMOST_DONE


def test_failing_keeps_the_last_progress_and_says_why() -> None:
    job = advance(advance(RUNNING, Progress(0.5, "Step 3"), 0), Failed("no room"), BIRTH_MS + 9)
    assert (job.state, job.fraction, job.text, job.reason) == (JobState.FAILED, 0.5, "Step 3", "no room")


def test_stopping_keeps_the_pictures() -> None:
    job = advance(advance(RUNNING, ImageSaved(0, 7, "p"), 0), Cancelled(), 0)
    assert (job.state, job.reason, len(job.results)) == (JobState.CANCELLED, "", 1)


def test_a_waiting_job_can_be_cancelled() -> None:
    job = advance(WAITING, Cancelled(), BIRTH_MS + 5)
    assert (job.state, job.started_ms, job.finished_ms) == (JobState.CANCELLED, 0, BIRTH_MS + 5)


@pytest.mark.parametrize(("orderly", "attempts"), [(True, 0), (False, 1)])
def test_waiting_again_forgets_the_attempt_but_counts_a_crash(orderly: bool, attempts: int) -> None:
    job = advance(advance(RUNNING, ImageSaved(0, 7, "p"), 0), Requeued(orderly), 0)
    assert job == replace(WAITING, attempts=attempts)


def test_a_second_attempt_begins_from_nothing() -> None:
    job = advance(advance(RUNNING, Progress(0.9, "x"), 0), ImageSaved(0, 7, "p"), 0)
    again = advance(job, Taken(), BIRTH_MS + 50)
    assert (again.fraction, again.results, again.attempts) == (0.0, (), 2)


def test_a_clock_set_back_ends_no_job_before_it_began() -> None:
    assert advance(RUNNING, Finished(), 5).finished_ms == BIRTH_MS + 1
