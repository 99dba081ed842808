"""Jobs in the words of the classic dialect, without a server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fooocusapi.images.outputs import OutputStore
from fooocusapi.jobs.job import Job, JobState, ResultImage
from fooocusapi.surfaces.classic import render
from fooocusapi.surfaces.classic.schemas import GenerationFinishReason
from tests.fooocusapi.fakes import a_plan

OUTPUTS = OutputStore(Path("nowhere"), "http://host:8888")
JOB = Job("some-id", "classic", "Text to Image", a_plan(), {"require_base64": True})
TWO = (ResultImage(0, 3283449865282320931, "2025-02-23/a-0.png"), ResultImage(1, 5, "2025-02-23/a-1.png"))


def job_in(state: JobState, *, results: tuple[ResultImage, ...] = (), fraction: float = 0.5) -> Job:
    return replace(JOB, state=state, results=results, fraction=fraction, text="Step 1/2", reason="no room")


@pytest.mark.parametrize(
    ("job", "stage", "status", "pictures"),
    [
        (job_in(JobState.WAITING, fraction=0), "WAITING", None, None),
        (job_in(JobState.RUNNING), "RUNNING", "Step 1/2", None),
        (job_in(JobState.RUNNING, results=TWO), "RUNNING", "Step 1/2", None),
        (job_in(JobState.FAILED, results=TWO), "ERROR", "no room", None),
        (job_in(JobState.CANCELLED), "ERROR", render.STOPPED, None),
        (job_in(JobState.CANCELLED, results=TWO), "SUCCESS", "Finished", 2),
    ],
)
def test_stages(job: Job, stage: str, status: str | None, pictures: int | None) -> None:
    answer = render.job_answer(job, OUTPUTS)
    assert (answer.job_stage, answer.job_status) == (stage, status)
    assert (None if answer.job_result is None else len(answer.job_result)) == pictures
    assert (answer.job_progress == 100) == (stage == "SUCCESS")


@given(st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted))
def test_progress_is_whole_never_falls_and_never_says_done(fractions: list[float]) -> None:
    before, after = (render.job_answer(job_in(JobState.RUNNING, fraction=fraction), OUTPUTS) for fraction in fractions)
    assert 0 <= before.job_progress <= after.job_progress <= 99


@pytest.mark.parametrize(
    ("state", "reason"),
    [(JobState.FAILED, "ERROR"), (JobState.CANCELLED, "USER_CANCEL"), (JobState.SUCCEEDED, "ERROR")],
)
def test_a_waiting_caller_always_has_a_first_element(state: JobState, reason: str) -> None:
    (element,) = render.sync_answer(job_in(state), OUTPUTS)
    assert (element.url, element.base64, element.seed, element.finish_reason) == (None, None, "", reason)


def test_base64_of_a_file_that_is_gone_is_null() -> None:
    answer = render.sync_answer(job_in(JobState.SUCCEEDED, results=TWO), OUTPUTS)
    assert [picture.base64 for picture in answer] == [None, None]
    assert all(picture.finish_reason is GenerationFinishReason.SUCCESS for picture in answer)


def test_what_pollers_ask_all_the_time_needs_no_thread() -> None:
    """An answer of a few texts would wait longer for a thread than it takes."""
    with_files = job_in(JobState.SUCCEEDED, results=TWO)
    assert render.is_quick(job_in(JobState.RUNNING), None)
    assert render.is_quick(replace(with_files, context={}), None)
    assert not render.is_quick(job_in(JobState.RUNNING), np.zeros((8, 8, 3), np.uint8))
    assert not render.is_quick(with_files, None)


def test_what_webhooks_are_told() -> None:
    assert render.webhook_body(job_in(JobState.SUCCEEDED, results=TWO), OUTPUTS) == {
        "job_id": "some-id",
        "job_result": [
            {"url": "http://host:8888/files/2025-02-23/a-0.png", "seed": "3283449865282320931"},
            {"url": "http://host:8888/files/2025-02-23/a-1.png", "seed": "5"},
        ],
    }
    assert render.webhook_body(job_in(JobState.FAILED, results=TWO), OUTPUTS) == {"job_id": "some-id", "job_result": []}
    assert render.webhook_body(job_in(JobState.CANCELLED), OUTPUTS) == {"job_id": "some-id", "job_result": []}


@pytest.mark.parametrize(
    ("state", "reason"),
    [(JobState.SUCCEEDED, "SUCCESS"), (JobState.CANCELLED, "USER_CANCEL"), (JobState.FAILED, "ERROR")],
)
def test_the_durable_history_says_how_it_ended(state: JobState, reason: str) -> None:
    recorded = render.recorded_job(replace(job_in(state), context={}), OUTPUTS)
    assert recorded.params == {}
    assert recorded.task_info["finish_reason"] == reason
