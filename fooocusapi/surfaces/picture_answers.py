"""Answers that are a picture instead of JSON, and what stands in for one: the same in every dialect (decision 17).

Only here a status tells what became of a job.
"""

from __future__ import annotations

from fastapi.responses import PlainTextResponse, Response

from fooocusapi.images.formats import Kind
from fooocusapi.images.outputs import OutputStore
from fooocusapi.jobs.job import Job, JobState


def queue_is_full() -> Response:
    """There is no job."""
    return PlainTextResponse("QUEUE_IS_FULL", status_code=409)


def failed() -> Response:
    """The job has no picture, and should have."""
    return PlainTextResponse("ERROR", status_code=500)


def picture_answer(job: Job, outputs: OutputStore, kind: Kind, media_type: str) -> Response | None:
    """The first picture of an ended job as ``kind``, without metadata, or why there is none.

    ``None`` where a job that succeeded has none. Reads and converts a file: call it from a thread.
    """
    if job.state is JobState.FAILED:
        return failed()
    data = outputs.as_kind(job.results[0].path, kind) if job.results else None
    if data is not None:
        return Response(data, media_type=media_type)
    return PlainTextResponse("USER_CANCEL", status_code=400) if job.state is JobState.CANCELLED else None
