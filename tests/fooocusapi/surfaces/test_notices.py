"""Who is told of an ended job, and what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fooocusapi.images.outputs import OutputStore
from fooocusapi.jobs.job import Job, JobState
from fooocusapi.settings import Settings, TaskWebhook
from fooocusapi.surfaces.notices import composers


@pytest.mark.parametrize(
    ("asked", "default", "told"),
    [
        ("http://own/hook", "http://all/hook", "http://own/hook"),
        (None, "http://all/hook", "http://all/hook"),
        (None, "", None),
    ],
)
def test_whose_address_is_told_of_an_ended_job(
    tmp_path: Path, asked: str | None, default: str, told: str | None
) -> None:
    compose = composers(OutputStore(tmp_path, "http://me"), Settings(webhook_url=default))["classic"]
    job = Job("some-id", "classic", "Text to Image", None, {"webhook_url": asked}, state=JobState.FAILED)
    delivery = compose(job)
    assert (delivery and delivery.url) == told
    if delivery is not None:
        assert delivery.body == {"job_id": "some-id", "job_result": []}


@pytest.mark.parametrize("form", ["string", "object"])
def test_a_task_is_told_as_its_record(tmp_path: Path, form: TaskWebhook) -> None:
    settings = Settings(webhook_url="http://all/hook", task_webhook=form)
    compose = composers(OutputStore(tmp_path, "http://me"), settings)["unified"]
    context = {"webhook_url": "http://own/hook", "params": {"image_seed": 2**63 - 1}}
    job = Job("00000000-0000-4000-8000-000000000001", "unified", "", None, context, JobState.SUCCEEDED, number=4)
    delivery = compose(job)
    assert delivery is not None
    assert delivery.url == "http://own/hook"
    record = json.loads(delivery.body) if isinstance(delivery.body, str) else delivery.body
    assert isinstance(delivery.body, str) is (form == "string")
    assert (record["id"], record["task_id"]) == (4, "00000000000040008000000000000001")
    assert (record["task_status"], record["webhook_url"]) == ("finished", "http://own/hook")
    assert record["req_params"] == {"image_seed": 2**63 - 1}
