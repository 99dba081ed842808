"""The endpoints of the classic dialect, on text to image, jobs and models (contract section 2).

Every path is registered without a final slash; the middleware takes it off. Operation ids are those of the original
program's published document, because generated clients name their methods after them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Header, Query, Request, Response, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import Field

from fooocusapi.bodies import LenientRoute
from fooocusapi.dependencies import OpenServices, ServerSettings, UnloadLimiter
from fooocusapi.jobs.job import Job, JobState
from fooocusapi.jobs.queue import JobQueue, QueueFull, Snapshot
from fooocusapi.security import api_key_scheme
from fooocusapi.services import Services
from fooocusapi.surfaces.classic import render
from fooocusapi.surfaces.classic.forms import read_body
from fooocusapi.surfaces.classic.schemas import (
    AllModelNamesResponse,
    AsyncJobResponse,
    CommonRequest,
    DeletedResponse,
    GeneratedImageResult,
    ImgUpscaleOrVaryForm,
    ImgUpscaleOrVaryRequestJson,
    JobHistoryResponse,
    JobQueueInfo,
    MessageResponse,
    QueryJobRequest,
    StopResponse,
    TaskType,
    ValidationAnswer,
)
from fooocusapi.surfaces.classic.translate import SURFACE, to_context, to_plan, to_start
from fooocusapi.surfaces.lenient import LenientModel, Text

MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 20
ONE_PICTURE_TYPE = re.compile(r"image/[\w.+-]+", re.ASCII | re.IGNORECASE)
"""A kind of picture by its name; neither ``image/*`` nor a list nor a preference."""

Responses = dict[int | str, dict[str, Any]]

EVERYWHERE: Responses = {
    403: {
        "description": "The key in `X-API-KEY` is missing or wrong.",
        "content": {"application/json": {"example": {"detail": "Forbidden"}}},
    },
    503: {
        "description": "The server could not start, or it ends; a job that waits runs after the restart.",
        "content": {"application/json": {"example": {"detail": "the server could not start, see its log"}}},
    },
}
TOO_LARGE: Responses = {413: {"description": "The body is longer than the server takes."}}
INVALID: Responses = {422: {"model": ValidationAnswer, "description": "A field that cannot be taken; it is named."}}
GENERATED: Responses = {
    200: {
        "description": "An array of pictures; with `async_process` a job object; with `Accept: image/png` the first "
        "picture itself.",
        "content": {
            "application/json": {
                "examples": {
                    "pictures": {
                        "summary": "The answer to a call that waits",
                        "value": [
                            {
                                "base64": None,
                                "url": "http://127.0.0.1:8888/files/2025-02-23/abc-0.png",
                                "seed": "6023511366105519179",
                                "finish_reason": "SUCCESS",
                            }
                        ],
                    },
                    "job": {
                        "summary": "The answer with async_process",
                        "value": {
                            "job_id": "764af3ec-f0f7-45c6-9951-722e24c67134",
                            "job_type": "Text to Image",
                            "job_stage": "WAITING",
                            "job_progress": 0,
                            "job_status": None,
                            "job_step_preview": None,
                            "job_result": None,
                        },
                    },
                }
            },
            "image/png": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    400: {"description": "Only with `Accept: image/png`: the job was stopped (`USER_CANCEL`)."},
    409: {"description": "Only with `Accept: image/png`: the queue is full (`QUEUE_IS_FULL`)."},
    500: {"description": "Only with `Accept: image/png`: the job failed (`ERROR`)."},
}

router = APIRouter(route_class=LenientRoute, dependencies=[Security(api_key_scheme)], responses=EVERYWHERE)


# ---------------------------------------------------------------------------------------------------------- generation


def _wants_picture(
    accept: Annotated[
        str | None,
        Query(description="Stands above the header: `image/png` for the picture itself.", examples=["image/png"]),
    ] = None,
    accept_header: Annotated[
        str | None,
        Header(alias="accept", description="`image/png` alone for the picture itself; any list of types means JSON."),
    ] = None,
) -> bool:
    return ONE_PICTURE_TYPE.fullmatch((accept or accept_header or "").strip()) is not None


WantsPicture = Annotated[bool, Depends(_wants_picture)]
"""Whether the caller named exactly one kind of picture instead of JSON; it gets a PNG."""


@router.post(
    "/v1/generation/text-to-image",
    operation_id="text2img_generation_v1_generation_text_to_image_post",
    tags=["GenerateV1"],
    response_model=list[GeneratedImageResult] | AsyncJobResponse,
    responses={**GENERATED, **INVALID, **TOO_LARGE},
)
async def text_to_image(body: CommonRequest, services: OpenServices, wants_picture: WantsPicture) -> Any:
    """Paints pictures from a prompt.

    Without `async_process` the call waits for the pictures, however long they take; a caller who goes away does not
    stop the job. A full queue, a failed or a stopped job answer 200 in the JSON forms, with `finish_reason` set.
    """

    def submit() -> Job:
        plan = to_plan(body, services.resolve, one_image=wants_picture)
        return services.jobs.submit(plan, SURFACE, TaskType.TEXT_TO_IMAGE.value, to_context(body, plan))

    return await _generated(body, services, TaskType.TEXT_TO_IMAGE, wants_picture, submit)


async def upscale_or_vary_form(request: Request, services: OpenServices, wants_picture: WantsPicture) -> Any:
    """Makes variations of a picture, or enlarges it; a form with the picture as a file, or JSON.

    A fast upscale, and one whose result is too large to be painted over, gives one picture without a prompt.
    """
    return await _upscaled_or_varied(request, services, wants_picture)


async def upscale_or_vary(request: Request, services: OpenServices, wants_picture: WantsPicture) -> Any:
    """Makes variations of a picture, or enlarges it; JSON with the picture as base64 or an address, or a form.

    A fast upscale, and one whose result is too large to be painted over, gives one picture without a prompt.
    """
    return await _upscaled_or_varied(request, services, wants_picture)


async def _upscaled_or_varied(request: Request, services: Services, wants_picture: bool) -> Any:
    body = await read_body(request, ImgUpscaleOrVaryRequestJson, ImgUpscaleOrVaryForm)
    pixels = await services.inputs.read_required(("body", "input_image"), body.input_image)

    def submit() -> Job:
        """On one thread, so that a caller who goes away cannot part the picture from its job."""
        picture = services.kept.keep(pixels)
        is_needed = False
        try:
            start = to_start(body, picture, pixels.shape[1], pixels.shape[0])
            plan = to_plan(body, services.resolve, one_image=wants_picture, start=start)
            job = services.jobs.submit(plan, SURFACE, TaskType.UPSCALE_OR_VARY.value, to_context(body, plan))
            is_needed = start is not None
            return job
        finally:
            if not is_needed:
                services.kept.let_go([picture])

    return await _generated(body, services, TaskType.UPSCALE_OR_VARY, wants_picture, submit)


def _add_picture_route(
    version: str, endpoint: Callable[..., Any], media_type: str, schema: type[CommonRequest]
) -> None:
    reference = {"$ref": f"#/components/schemas/{schema.__name__}"}
    router.add_api_route(
        f"/{version}/generation/image-upscale-vary",
        endpoint,
        methods=["POST"],
        operation_id=f"img_upscale_or_vary_{version}_generation_image_upscale_vary_post",
        summary="Img Upscale Or Vary",
        tags=[f"Generate{version.upper()}"],
        response_model=list[GeneratedImageResult] | AsyncJobResponse,
        responses={**GENERATED, **INVALID},
        openapi_extra={"requestBody": {"required": True, "content": {media_type: {"schema": reference}}}},
    )


_add_picture_route("v1", upscale_or_vary_form, "multipart/form-data", ImgUpscaleOrVaryForm)
_add_picture_route("v2", upscale_or_vary, "application/json", ImgUpscaleOrVaryRequestJson)


async def _generated(
    body: CommonRequest, services: Services, kind: TaskType, wants_picture: bool, submit: Callable[[], Job]
) -> Any:
    """The answer to a generation, in the form that was asked for. ``submit`` may block."""
    try:
        job = await run_in_threadpool(submit)
    except QueueFull:
        return _refusal(kind, wants_picture, body.async_process)
    if body.async_process:
        return render.job_answer(job, services.outputs)
    job = await services.jobs.wait(job.id)
    if wants_picture:
        return await run_in_threadpool(_picture, job, services)
    return await run_in_threadpool(render.sync_answer, job, services.outputs)


def _refusal(kind: TaskType, wants_picture: bool, is_async: bool) -> Any:
    """A full queue, in the form of the answer that was asked for."""
    if wants_picture:
        return PlainTextResponse("QUEUE_IS_FULL", status_code=409)
    return render.refused_async(kind) if is_async else render.refused_sync()


def _picture(job: Job, services: Services) -> Response:
    """The first picture as PNG without metadata, or why there is none."""
    data = services.outputs.as_png(job.results[0].path) if job.results else None
    if data is not None and job.state is not JobState.FAILED:
        return Response(data, media_type="image/png")
    if job.state is JobState.CANCELLED:
        return PlainTextResponse("USER_CANCEL", status_code=400)
    return PlainTextResponse("ERROR", status_code=500)


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
    await anyio.to_thread.run_sync(services.engine.unload, limiter=limiter)
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
