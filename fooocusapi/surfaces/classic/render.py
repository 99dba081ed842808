"""From a job to the answers of the classic dialect (contract sections 10, 11 and 13)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, assert_never

from fooocusapi.images.outputs import OutputStore
from fooocusapi.images.previews import preview_png
from fooocusapi.jobs.job import Job, JobState, ResultImage
from fooocusapi.jobs.queue import Counters, JobSummary
from fooocusapi.surfaces.classic.schemas import (
    AsyncJobResponse,
    AsyncJobStage,
    GeneratedImageResult,
    GenerationFinishReason,
    JobHistoryInfo,
    JobQueueInfo,
    RecordedJob,
    TaskType,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STOPPED = "Stopped by the user"
ALMOST_DONE_PERCENT = 99


def is_quick(job: Job, preview: NDArray[np.uint8] | None) -> bool:
    """Whether the answer is made without reading files and packing pictures: that is what pollers ask all the time."""
    return preview is None and not (job.results and job.context.get("require_base64"))


def job_answer(job: Job, outputs: OutputStore, preview: NDArray[np.uint8] | None = None) -> AsyncJobResponse:
    """The job object. Call it from a thread, unless it ``is_quick``."""
    stage = _stage(job)
    return AsyncJobResponse(
        job_id=job.id,
        job_type=TaskType(job.job_type),
        job_stage=stage,
        job_progress=100 if stage is AsyncJobStage.SUCCESS else _percent(job.fraction),
        job_status=_status(job),
        job_step_preview=None if preview is None else _as_text(preview_png(preview, job.plan)),
        job_result=pictures(job, outputs) if stage is AsyncJobStage.SUCCESS else None,
    )


def sync_answer(job: Job, outputs: OutputStore) -> list[GeneratedImageResult]:
    """The array of an ended job; never empty, because clients read its first element."""
    if job.state is JobState.FAILED:
        return [_no_picture(GenerationFinishReason.ERROR)]
    return pictures(job, outputs) or [_no_picture(_reason_of_nothing(job))]


def pictures(job: Job, outputs: OutputStore) -> list[GeneratedImageResult]:
    """One element for each finished picture, in the order of their seeds."""
    wants_base64 = bool(job.context.get("require_base64"))
    return [
        GeneratedImageResult(
            base64=outputs.as_base64(result.path) if wants_base64 else None,
            url=outputs.url(result.path),
            seed=str(result.seed),
            finish_reason=GenerationFinishReason.SUCCESS,
        )
        for result in job.results
    ]


def refused_sync() -> list[GeneratedImageResult]:
    """A full queue, to a caller who wanted to wait."""
    return [_no_picture(GenerationFinishReason.QUEUE_IS_FULL)]


def refused_async(job_type: TaskType) -> AsyncJobResponse:
    """A full queue, to a caller who wanted a job; the only error that carries an array."""
    return AsyncJobResponse(
        job_id="",
        job_type=job_type,
        job_stage=AsyncJobStage.ERROR,
        job_progress=0,
        job_result=refused_sync(),
    )


def unknown_job() -> AsyncJobResponse:
    """A query for a job that nobody knows."""
    return AsyncJobResponse(
        job_id="",
        job_type=TaskType.NOT_FOUND,
        job_stage=AsyncJobStage.ERROR,
        job_progress=0,
        job_status="Job not found",
    )


def queue_info(counters: Counters) -> JobQueueInfo:
    """The queue in numbers."""
    return JobQueueInfo(
        running_size=counters.unfinished, finished_size=counters.finished, last_job_id=counters.last_job_id
    )


def history_infos(summaries: Sequence[JobSummary]) -> list[JobHistoryInfo]:
    """Jobs as the lists show them."""
    return [
        JobHistoryInfo(
            job_id=job.id,
            in_queue_mills=job.queued_ms,
            start_mills=job.started_ms,
            finish_mills=job.finished_ms,
            is_finished=job.state.is_terminal,
        )
        for job in summaries
    ]


def recorded_job(job: Job, outputs: OutputStore) -> RecordedJob:
    """A job of the durable history."""
    ended = datetime.fromtimestamp(job.finished_ms / 1000)
    return RecordedJob(
        params=dict(job.context.get("params") or {}),
        task_info={
            "task_id": job.id,
            "task_type": job.job_type,
            "task_in_queue_mills": job.queued_ms,
            "task_start_mills": job.started_ms,
            "task_finish_mills": job.finished_ms,
            "result_url": ",".join(outputs.url(result.path) for result in job.results),
            "finish_reason": _finish_reason(job).value,
            "date_time": f"{ended:%Y-%m-%d %H:%M:%S}",
        },
    )


def webhook_body(job: Job, outputs: OutputStore) -> dict[str, Any]:
    """What is told of an ended job; nothing but its pictures."""
    results = () if job.state is JobState.FAILED else job.results
    return {"job_id": job.id, "job_result": [_told_picture(result, outputs) for result in results]}


def _as_text(data: bytes) -> str:
    """Bare base64, without a data prefix."""
    return base64.b64encode(data).decode("ascii")


def _told_picture(result: ResultImage, outputs: OutputStore) -> dict[str, str]:
    return {"url": outputs.url(result.path), "seed": str(result.seed)}


def _no_picture(reason: GenerationFinishReason) -> GeneratedImageResult:
    return GeneratedImageResult(base64=None, url=None, seed="", finish_reason=reason)


def _reason_of_nothing(job: Job) -> GenerationFinishReason:
    is_stopped = job.state is JobState.CANCELLED
    return GenerationFinishReason.USER_CANCEL if is_stopped else GenerationFinishReason.ERROR


def _stage(job: Job) -> AsyncJobStage:
    match job.state:
        case JobState.WAITING:
            return AsyncJobStage.WAITING
        case JobState.RUNNING:
            return AsyncJobStage.RUNNING
        case JobState.SUCCEEDED:
            return AsyncJobStage.SUCCESS
        case JobState.FAILED:
            return AsyncJobStage.ERROR
        case JobState.CANCELLED:
            return AsyncJobStage.SUCCESS if job.results else AsyncJobStage.ERROR
        case _:
            assert_never(job.state)


def _status(job: Job) -> str | None:
    match job.state:
        case JobState.WAITING:
            return None
        case JobState.FAILED:
            return job.reason
        case JobState.CANCELLED:
            return "Finished" if job.results else STOPPED
        case _:
            return job.text


def _finish_reason(job: Job) -> GenerationFinishReason:
    match job.state:
        case JobState.SUCCEEDED:
            return GenerationFinishReason.SUCCESS
        case JobState.CANCELLED:
            return GenerationFinishReason.USER_CANCEL
        case _:
            return GenerationFinishReason.ERROR


def _percent(fraction: float) -> int:
    """Whole per cent, rounded down, and 100 for nobody who has not succeeded."""
    return min(int(fraction * 100), ALMOST_DONE_PERCENT)
