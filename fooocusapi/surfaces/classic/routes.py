"""Jobs and models in the classic dialect (contract section 2); pictures are made by ``generation``.

Every path is registered without a final slash; the middleware takes it off. Operation ids are those of the original
program's published document, because generated clients name their methods after them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Query, Security
from fastapi.responses import JSONResponse
from pydantic import Field

from fooocusapi.bodies import LenientRoute
from fooocusapi.dependencies import OpenServices, ServerSettings, UnloadLimiter
from fooocusapi.jobs.job import Job
from fooocusapi.jobs.queue import JobQueue, Snapshot
from fooocusapi.security import api_key_scheme
from fooocusapi.services import Services
from fooocusapi.surfaces.classic import render
from fooocusapi.surfaces.classic.schemas import (
    AllModelNamesResponse,
    AsyncJobResponse,
    DeletedResponse,
    JobHistoryResponse,
    JobQueueInfo,
    MessageResponse,
    QueryJobRequest,
    StopResponse,
)
from fooocusapi.surfaces.lenient import LenientModel, Text
from fooocusapi.surfaces.published import EVERYWHERE, INVALID, Responses
from fooocusapi.threads import run_in_threadpool

MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 20

router = APIRouter(route_class=LenientRoute, dependencies=[Security(api_key_scheme)], responses=EVERYWHERE)


@router.post(
    "/v1/generation/stop", operation_id="stop_v1_generation_stop_post", tags=["Default"], response_model=StopResponse
)
async def stop(services: OpenServices) -> StopResponse:
    """Stops the running job within one step; waiting jobs go on. Nothing happens when no job runs."""
    services.jobs.stop_running()
    return StopResponse(msg="success")


# ------------------------------------------------------------------------------------------------------------- queries

UNKNOWN_JOB: Responses = {404: {"model": AsyncJobResponse, "description": "Nobody knows this job."}}


@router.get(
    "/v1/generation/query-job",
    operation_id="query_job_v1_generation_query_job_get",
    tags=["Query"],
    response_model=AsyncJobResponse,
    responses={**UNKNOWN_JOB, **INVALID},
)
async def query_job(asked: Annotated[QueryJobRequest, Query()], services: OpenServices) -> Any:
    """How a job stands, with its pictures once it has succeeded, and on request with a preview while it runs."""
    return await _query(asked, services)


@router.post(
    "/v1/generation/query-job",
    operation_id="query_job_v1_generation_query_job_post",
    tags=["Query"],
    response_model=AsyncJobResponse,
    responses={**UNKNOWN_JOB, **INVALID},
)
async def query_job_by_post(asked: QueryJobRequest, services: OpenServices) -> Any:
    """The same, for clients that send a body."""
    return await _query(asked, services)


async def _query(asked: QueryJobRequest, services: Services) -> Any:
    job = await _find(services.jobs, asked.job_id)
    if job is None:
        return JSONResponse(render.unknown_job().model_dump(mode="json"), status_code=404)
    preview = services.jobs.latest_preview(job.id) if asked.require_step_preview else None
    if render.is_quick(job, preview):
        return render.job_answer(job, services.outputs)
    return await run_in_threadpool(render.job_answer, job, services.outputs, preview)


async def _find(jobs: JobQueue, job_id: str) -> Job | None:
    """From memory at once; only what is older waits for the disk."""
    return jobs.get_cached(job_id) or await run_in_threadpool(jobs.get, job_id)


@router.get(
    "/v1/generation/job-queue",
    operation_id="job_queue_v1_generation_job_queue_get",
    tags=["Query"],
    response_model=JobQueueInfo,
)
async def job_queue(services: OpenServices) -> JobQueueInfo:
    """The queue in numbers."""
    return render.queue_info(services.jobs.counters())


@router.get(
    "/v1/engines/job-queue",
    operation_id="job_queue_v1_engines_job_queue_get",
    tags=["Query"],
    response_model=JobQueueInfo,
)
async def job_queue_as_documented(services: OpenServices) -> JobQueueInfo:
    """The same, under the path that older guides print."""
    return render.queue_info(services.jobs.counters())


class HistoryQuery(LenientModel):
    """Which part of the history, or which job to delete."""

    job_id: Text | None = Field(default=None, description="Only this job.")
    page: int | None = Field(
        default=None, ge=0, le=10**9, description="Page, from 0. Without `page` and `page_size`: everything in memory."
    )
    page_size: int | None = Field(
        default=None, ge=1, le=MAX_PAGE_SIZE, description=f"Jobs on a page; {DEFAULT_PAGE_SIZE} if not said."
    )
    delete: bool = Field(default=False, description="Delete `job_id` and its pictures instead.")

    @property
    def is_paged(self) -> bool:
        """Whether the caller asked for a page at all."""
        return self.page is not None or self.page_size is not None

    def slice(self) -> slice:
        """The page as a piece of a list."""
        size = self.page_size or DEFAULT_PAGE_SIZE
        start = (self.page or 0) * size
        return slice(start, start + size)


@router.get(
    "/v1/generation/job-history",
    operation_id="get_history_v1_generation_job_history_get",
    tags=["Query"],
    response_model=JobHistoryResponse | DeletedResponse,
    responses=INVALID,
)
async def job_history(asked: Annotated[HistoryQuery, Query()], services: OpenServices, settings: ServerSettings) -> Any:
    """Waiting, running and finished jobs; with `delete`, forgets one of them together with its pictures."""
    if asked.delete and asked.job_id:
        is_known = await run_in_threadpool(services.jobs.delete, asked.job_id)
        return DeletedResponse(message="Deleted" if is_known else "Not found")
    snapshot = _only(services.jobs.snapshot(), asked.job_id)
    queue = render.history_infos(snapshot.queue)
    if settings.persistent:
        return JobHistoryResponse(queue=queue, history=await run_in_threadpool(_recorded, asked, services))
    history = snapshot.history[asked.slice()] if asked.is_paged else snapshot.history
    return JobHistoryResponse(queue=queue, history=render.history_infos(history))


def _only(snapshot: Snapshot, job_id: str | None) -> Snapshot:
    if job_id is None:
        return snapshot
    return Snapshot(
        tuple(job for job in snapshot.queue if job.id == job_id),
        tuple(job for job in snapshot.history if job.id == job_id),
    )


def _recorded(asked: HistoryQuery, services: Services) -> Any:
    jobs = services.jobs.history(
        page=asked.page or 0, page_size=asked.page_size or DEFAULT_PAGE_SIZE, job_id=asked.job_id
    )
    return [render.recorded_job(job, services.outputs) for job in jobs]


# -------------------------------------------------------------------------------------------------------------- models


def _model_names(services: Services) -> AllModelNamesResponse:
    return AllModelNamesResponse(
        model_filenames=list(services.library.checkpoint_names()), lora_filenames=list(services.library.lora_names())
    )


async def all_models(services: OpenServices) -> AllModelNamesResponse:
    """The model files on disk; the folders are looked through on every call."""
    return await run_in_threadpool(_model_names, services)


async def all_styles(services: OpenServices) -> list[str]:
    """The names of all styles, `Fooocus V2` and `Random Style` first."""
    return list(services.style_names)


async def clean_vram(services: OpenServices, limiter: UnloadLimiter) -> MessageResponse:
    """Gives the memory of the models back, once a running job has ended; the next job loads them again."""

    def unload() -> None:
        services.describer.unload()
        services.masks.unload()
        services.engine.unload()

    await anyio.to_thread.run_sync(unload, limiter=limiter)
    return MessageResponse(message="ok")


def _add_engine_route(method: str, name: str, endpoint: Callable[..., Any], title: str, answer: Any) -> None:
    slug = name.replace("-", "_")
    router.add_api_route(
        f"/v1/engines/{name}",
        endpoint,
        methods=[method],
        operation_id=f"{title}_v1_engines_{slug}_{method.lower()}",
        summary=endpoint.__name__.replace("_", " ").title(),
        tags=["Query"],
        response_model=answer,
    )


_add_engine_route("GET", "all-models", all_models, "all_models", AllModelNamesResponse)
_add_engine_route("POST", "refresh-models", all_models, "refresh_models", AllModelNamesResponse)
_add_engine_route("GET", "refresh-models", all_models, "refresh_models", AllModelNamesResponse)
_add_engine_route("GET", "styles", all_styles, "all_styles", list[str])
_add_engine_route("GET", "clean_vram", clean_vram, "clean_vram", MessageResponse)
_add_engine_route("POST", "clean_vram", clean_vram, "clean_vram", MessageResponse)
