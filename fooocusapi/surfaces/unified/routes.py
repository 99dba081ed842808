"""The endpoints of the unified dialect: one that makes pictures, and those that tell of its tasks.

Every path is registered without a final slash; the middleware takes it off.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field

from fooocusapi.bodies import LenientRoute
from fooocusapi.dependencies import OpenServices
from fooocusapi.errors import Location, RefusedField
from fooocusapi.images.formats import KIND_OF_SUFFIX
from fooocusapi.jobs.job import Job
from fooocusapi.jobs.journal_base import TimeRange
from fooocusapi.jobs.queue import JobQueue, QueueFull
from fooocusapi.security import api_key_scheme
from fooocusapi.services import Services
from fooocusapi.surfaces.classic.forms import read_body
from fooocusapi.surfaces.classic.schemas import TaskType
from fooocusapi.surfaces.lenient import LenientModel, Text
from fooocusapi.surfaces.picture_answers import picture_answer, queue_is_full
from fooocusapi.surfaces.published import EVERYWHERE, INVALID, TOO_LARGE, Responses
from fooocusapi.surfaces.unified import render
from fooocusapi.surfaces.unified.records import recorded_request
from fooocusapi.surfaces.unified.schemas import ControlAnswer, CurrentTab, GenerateRequest, TaskLists, TaskRecord
from fooocusapi.surfaces.unified.stream import HEADERS, MEDIA_TYPE, event_stream
from fooocusapi.surfaces.unified.tabs import tab_of
from fooocusapi.surfaces.unified.translate import SURFACE, Presets, to_plan
from fooocusapi.threads import run_in_threadpool

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    Pictures = Mapping[Location, NDArray[np.uint8]]

MAX_PAGE_SIZE: Final = 1000
ACTIONS: Final = {"stop": "task stoped", "skip": "task skiped"}
"""What may be done to the running task, and the original program's words for that it was."""
ONE_PICTURE_TYPE: Final = re.compile(r"image/([\w.+*-]+)(?:\s*;.*)?", re.ASCII | re.IGNORECASE)
"""One kind of picture, ``image/*`` included; not a list of kinds."""

KIND_OF_JOB: Final = {
    CurrentTab.UOV: TaskType.UPSCALE_OR_VARY,
    CurrentTab.INPAINT: TaskType.INPAINT_OR_OUTPAINT,
    CurrentTab.IP: TaskType.IMAGE_PROMPT,
    CurrentTab.ENHANCE: TaskType.IMAGE_ENHANCEMENT,
}

router = APIRouter(
    route_class=LenientRoute, dependencies=[Security(api_key_scheme)], responses=EVERYWHERE, tags=["Engine"]
)


# ---------------------------------------------------------------------------------------------------------- generation

GENERATED: Responses = {
    200: {
        "model": TaskRecord,
        "description": "The record of the finished task; with `async_process` one that only names it; with "
        "`stream_output` a stream of events; with `Accept: image/...` the first picture itself.",
        "content": {
            MEDIA_TYPE: {
                "schema": {"type": "string"},
                "example": 'data: {"progress": 100, "preview": null, "message": "Finished", '
                '"images": ["http://127.0.0.1:8888/outputs/2025-02-23/2025-02-23_14-05-09_1234.png"]}\r\n'
                "data: \r\n\r\n",
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    204: {"description": "Only with `Accept: image/...`: there is no picture."},
    400: {"description": "Only with `Accept: image/...`: the task was stopped (`USER_CANCEL`)."},
    409: {"description": "Only with `Accept: image/...`: the queue is full (`QUEUE_IS_FULL`)."},
    429: {"description": "The queue is full; there is no task."},
    500: {"description": "Only with `Accept: image/...`: the task failed (`ERROR`)."},
}


@dataclass(frozen=True)
class WantedPicture:
    """The kind of picture that a caller wants instead of JSON."""

    media_type: str
    suffix: str


def wanted_picture(accept: str | None) -> WantedPicture | None:
    """What a header that names one kind of picture wants; PNG where that is a kind that is not made here."""
    named = ONE_PICTURE_TYPE.fullmatch((accept or "").strip())
    if named is None:
        return None
    suffix = named[1].lower()
    return WantedPicture(f"image/{suffix}", suffix) if suffix in KIND_OF_SUFFIX else WantedPicture("image/png", "png")


@router.post(
    "/v1/engine/generate",
    operation_id="generate_v1_engine_generate_post",
    response_model=None,
    responses={**GENERATED, **INVALID, **TOO_LARGE},
)
async def generate(
    body: GenerateRequest,
    services: OpenServices,
    accept: Annotated[
        str | None, Header(description="One kind of picture for the picture itself; any list of types means JSON.")
    ] = None,
) -> Response:
    """Paints, varies, enlarges, repaints and enhances: what is done follows from the pictures in the body.

    The first of these that applies is the answer: the picture itself (`Accept`), a stream of events (`stream_output`),
    a task to ask for later (`async_process`), else the finished record, however long that takes. A caller who goes away
    does not stop the task.
    """
    wanted = wanted_picture(accept)
    try:
        job = await _submitted(body, services, one_image=wanted is not None)
    except QueueFull:
        if wanted is None:
            raise
        return queue_is_full()
    if wanted is not None:
        return await run_in_threadpool(_picture, await services.jobs.wait(job.id), wanted, services)
    if body.stream_output:
        stream = event_stream(services.jobs, services.outputs, job.id)
        return StreamingResponse(stream, media_type=MEDIA_TYPE, headers=HEADERS)
    if body.async_process:
        return JSONResponse(render.acknowledgement(job))
    return JSONResponse(render.record(await services.jobs.wait(job.id), services.outputs))


async def _submitted(body: GenerateRequest, services: Services, *, one_image: bool) -> Job:
    """The job, with everything it needs written down; the pictures leave memory before anybody waits for it."""
    pictures = await _read_pictures(body, services)
    return await run_in_threadpool(_submit, body, pictures, services, one_image=one_image)


async def _read_pictures(body: GenerateRequest, services: Services) -> Pictures:
    """The pictures by their places. Raises ``RefusedField`` with the body, for the answer."""
    try:
        return await services.inputs.read_all(body.pictures())
    except RefusedField as error:
        error.body = body.model_dump(exclude_unset=True)
        raise


def _submit(body: GenerateRequest, pictures: Pictures, services: Services, *, one_image: bool) -> Job:
    """On one thread, so that a caller who goes away cannot part the pictures from their job."""
    presets = Presets(services.preset, services.presets.chosen(body.preset))
    with services.shown.recording(), services.kept.held() as held:
        plan = to_plan(body, pictures, held.keep, services.resolve, presets, one_image=one_image)
        links = {loc: services.shown.show(pixels) for loc, pixels in pictures.items()}
        kind = KIND_OF_JOB[tab_of(body, pictures)] if pictures else TaskType.TEXT_TO_IMAGE
        context = {
            "webhook_url": body.webhook_url or "",
            "params": recorded_request(body, plan, presets, links),
        }
        job = services.jobs.submit(plan, SURFACE, kind.value, context)
        held.hand_over(plan.pictures)
        return job


def _picture(job: Job, wanted: WantedPicture, services: Services) -> Response:
    """The first picture as the kind that is wanted, or why there is none."""
    kind = KIND_OF_SUFFIX[wanted.suffix]
    return picture_answer(job, services.outputs, kind, wanted.media_type) or Response(status_code=204)


# ------------------------------------------------------------------------------------------------------------- control


class ControlRequest(LenientModel):
    """A word to the running task, for clients that send it as a body."""

    action: Text = Field(description="`stop` or `skip`.", examples=["stop"])


@router.post(
    "/v1/engine/control",
    operation_id="control_v1_engine_control_post",
    response_model=ControlAnswer,
    responses=INVALID,
)
async def control(
    request: Request,
    services: OpenServices,
    action: Annotated[
        str | None,
        Query(description="`stop` ends the running task; `skip` leaves out the picture it is at. Also read as a body."),
    ] = None,
) -> ControlAnswer:
    """Stops the running task within one step, or leaves out its picture in work; tasks that wait go on.

    The running job is meant, whichever dialect asked for it. Finished pictures stay.
    """
    wanted = (await _asked_action(request) if action is None else action).strip().lower()
    if wanted not in ACTIONS:
        return ControlAnswer(message="Invalid control action")
    is_running = services.jobs.stop_running() if wanted == "stop" else services.jobs.skip_running()
    return ControlAnswer(message=ACTIONS[wanted] if is_running else "No task running")


async def _asked_action(request: Request) -> str:
    """The action of the body, a form or JSON. Raises ``RequestValidationError`` where there is none."""
    if not await request.body():
        missing = {"type": "missing", "loc": ("query", "action"), "msg": "Field required", "input": None}
        raise RequestValidationError([missing])
    return (await read_body(request, ControlRequest, ControlRequest)).action


# --------------------------------------------------------------------------------------------------------------- tasks

_SECONDS: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", re.ASCII)


class TasksQuery(LenientModel):
    """Which tasks are listed, or deleted."""

    query: Text = Field(
        default="all", description="`all`, `history`, `current` or `pending`: the lists that are filled."
    )
    page: int = Field(default=0, ge=0, le=10**9, description="Page of the history and of what waits, from 0.")
    page_size: int = Field(default=10, ge=1, le=MAX_PAGE_SIZE, description="Tasks on a page.")
    start_at: Text | None = Field(
        default=None,
        description="`YYYY-MM-DDTHH:MM:SS` in the server's own time: the history from then on, oldest first, unpaged.",
    )
    end_at: Text | None = Field(default=None, description="Until then; now if not said.")
    action: Text | None = Field(
        default=None, description="`delete`: forget the history of that time together with its pictures."
    )

    def time_range(self, now_ms: int) -> TimeRange | None:
        """When the wanted tasks were submitted; ``None`` for no such time, and for one that makes no sense."""
        first_ms = _to_ms(self.start_at)
        last_ms = now_ms if self.end_at is None else _to_ms(self.end_at)
        if first_ms is None or last_ms is None or first_ms >= last_ms:
            return None
        return TimeRange(first_ms, last_ms)

    def slice(self) -> slice:
        """The page as a piece of a list."""
        return slice(self.page * self.page_size, (self.page + 1) * self.page_size)

    @property
    def deletes(self) -> bool:
        """Whether tasks are to be forgotten."""
        return self.action is not None and self.action.strip().lower() == "delete"


def _to_ms(text: str | None) -> int | None:
    """Local time to the second; what stands behind it does not count."""
    found = _SECONDS.match((text or "").strip())
    try:
        return None if found is None else int(datetime.fromisoformat(found[0]).timestamp()) * 1000
    except (ValueError, OverflowError, OSError):
        return None


@router.get(
    "/tasks",
    operation_id="tasks_tasks_get",
    response_model=None,
    responses={200: {"model": TaskLists, "description": "The lists; `null` after deleting."}, **INVALID},
)
async def tasks(asked: Annotated[TasksQuery, Query()], services: OpenServices) -> Response:
    """Tasks that ended, the one that runs and those that wait; with `action=delete`, forgets those of a time."""
    if asked.deletes:
        await run_in_threadpool(_delete, asked, services.jobs)
        return JSONResponse(None)
    return JSONResponse(await run_in_threadpool(_lists, asked, services))


def _delete(asked: TasksQuery, jobs: JobQueue) -> None:
    within = asked.time_range(jobs.now_ms())
    if within is not None:
        for job in jobs.history(surface=SURFACE, queued_ms=within):
            jobs.delete(job.id)


def _lists(asked: TasksQuery, services: Services) -> dict[str, list[dict[str, Any]]]:
    wanted = asked.query.strip().lower()
    current, pending = _unfinished(services.jobs)
    lists: dict[str, list[Job]] = {
        "history": _history(asked, services.jobs) if wanted in ("all", "history") else [],
        "current": current if wanted in ("all", "current") else [],
        "pending": pending[asked.slice()] if wanted in ("all", "pending") else [],
    }
    return {name: [_record(job, services) for job in jobs] for name, jobs in lists.items()}


def _unfinished(jobs: JobQueue) -> tuple[list[Job], list[Job]]:
    """This dialect's running jobs and its waiting ones."""
    unfinished = jobs.unfinished()
    return _own(unfinished.running), _own(unfinished.waiting)


def _own(jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if job.surface == SURFACE]


def _history(asked: TasksQuery, jobs: JobQueue) -> list[Job]:
    within = asked.time_range(jobs.now_ms())
    if within is not None:
        return jobs.history(surface=SURFACE, queued_ms=within, newest_first=False)
    return jobs.history(surface=SURFACE, page=asked.page, page_size=asked.page_size)


NoRecord = Annotated[list[TaskRecord], Field(max_length=0)]


@router.get(
    "/tasks/{task_id}",
    operation_id="task_tasks__task_id__get",
    response_model=None,
    responses={
        200: {"model": TaskRecord | NoRecord, "description": "The record; an empty list where there is no such task."},
        "4XX": {"description": "403: the key is missing or wrong."},
    },
)
async def task(task_id: str, services: OpenServices) -> Response:
    """How a task stands, with a preview while it runs and its pictures when it has ended."""
    job_id = render.job_id(task_id)
    job = None if job_id is None else await _find(services.jobs, job_id)
    if job is None or job.surface != SURFACE:
        return JSONResponse([])
    return JSONResponse(await run_in_threadpool(_record, job, services))


async def _find(jobs: JobQueue, job_id: str) -> Job | None:
    """From memory at once; only what is older waits for the disk."""
    return jobs.get_cached(job_id) or await run_in_threadpool(jobs.get, job_id)


def _record(job: Job, services: Services) -> dict[str, Any]:
    return render.record(job, services.outputs, services.jobs.latest_preview(job.id))
