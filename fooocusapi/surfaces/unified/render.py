"""From a job to the records of the unified dialect (contract sections 7, 8, 10 and 17)."""

from __future__ import annotations

import base64
import json
import uuid
from typing import TYPE_CHECKING, Any

from fooocusapi.images.outputs import OutputStore
from fooocusapi.images.previews import preview_png
from fooocusapi.jobs.job import BEGUN, Job, JobState

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NUMBER_OF_UNWRITTEN = -1
"""What stands for a number and for times that a record has not got."""


def task_id(job: Job) -> str:
    """The job's identifier as this dialect writes it: without dashes."""
    return job.id.replace("-", "")


def job_id(task: str) -> str | None:
    """The job that a task's identifier means; ``None`` for a text that is none."""
    try:
        return str(uuid.UUID(task))
    except ValueError:
        return None


def acknowledgement(job: Job) -> dict[str, Any]:
    """What a caller gets who does not wait; the same whatever was asked, but for the identifier."""
    return {
        "id": NUMBER_OF_UNWRITTEN,
        "task_id": task_id(job),
        "req_params": {},
        "in_queue_mills": NUMBER_OF_UNWRITTEN,
        "start_mills": NUMBER_OF_UNWRITTEN,
        "finish_mills": NUMBER_OF_UNWRITTEN,
        "task_status": "pending",
        "progress": NUMBER_OF_UNWRITTEN,
        "preview": "",
        "webhook_url": "",
        "result": [],
    }


def record(job: Job, outputs: OutputStore, preview: NDArray[np.uint8] | None = None) -> dict[str, Any]:
    """The task's record by its state. Encodes a picture where there is a preview: call it from a thread."""
    if job.state is JobState.WAITING:
        return _record(job)
    if job.state is JobState.RUNNING:
        return _running(job, preview)
    return _record(
        job,
        start_mills=job.started_ms,
        finish_mills=job.finished_ms,
        task_status="stop" if job.state is JobState.CANCELLED else "finished",
        progress=100,
        result=picture_urls(job, outputs),
    )


def picture_urls(job: Job, outputs: OutputStore) -> list[str]:
    """The addresses of the job's pictures, in the order of their seeds."""
    return [outputs.url(result.path, "outputs") for result in job.results]


def preview_text(preview: NDArray[np.uint8], job: Job) -> str:
    """The picture as it stands, as base64 of a PNG without a prefix."""
    return base64.b64encode(preview_png(preview, job.plan)).decode("ascii")


def percent(job: Job) -> int:
    """Whole per cent, rounded down; a job tells 1 only when it has succeeded."""
    return int(job.fraction * 100)


def webhook_body(job: Job, outputs: OutputStore, *, as_text: bool) -> dict[str, Any] | str:
    """The record of an ended task: itself, or as JSON text, which the sender packs into JSON once more."""
    told = record(job, outputs)
    return json.dumps(told) if as_text else told


def _running(job: Job, preview: NDArray[np.uint8] | None) -> dict[str, Any]:
    """Before it tells anything of its own, its preview is an empty text; later null where there is none."""
    nothing = "" if job.text == BEGUN else None
    return _record(
        job,
        id=NUMBER_OF_UNWRITTEN,
        start_mills=job.started_ms,
        finish_mills=NUMBER_OF_UNWRITTEN,
        task_status="running",
        progress=percent(job),
        preview=nothing if preview is None else preview_text(preview, job),
        webhook_url="",
        result=[],
    )


def _record(job: Job, **known: Any) -> dict[str, Any]:
    """The record of a waiting task with what is ``known`` beyond that; only a running one has a preview."""
    fields = {
        "id": job.number,
        "task_id": task_id(job),
        "req_params": job.context.get("params") or {},
        "in_queue_mills": job.queued_ms,
        "start_mills": None,
        "finish_mills": None,
        "task_status": None,
        "progress": None,
        "preview": None,
        "webhook_url": job.context.get("webhook_url") or "",
        "result": None,
        **known,
    }
    return fields if "preview" in known else {name: value for name, value in fields.items() if name != "preview"}
