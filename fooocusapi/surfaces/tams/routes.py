"""The endpoints of this dialect (contract section 4). ``failures`` gives every refusal its shape."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.responses import FileResponse, JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field
from starlette.routing import Match

from fooocusapi.bodies import LenientRequest
from fooocusapi.dependencies import OpenServices
from fooocusapi.jobs.job import Job
from fooocusapi.security import KEY_HEADER, is_one_of
from fooocusapi.services import Services
from fooocusapi.surfaces.tams.authority import EVERYBODY, Call, is_signed
from fooocusapi.surfaces.tams.credits import price
from fooocusapi.surfaces.tams.failures import Problem, Refusal
from fooocusapi.surfaces.tams.judge import Judge
from fooocusapi.surfaces.tams.ledger import Order
from fooocusapi.surfaces.tams.messages import M, fingerprint, read_message
from fooocusapi.surfaces.tams.parts import StagedParts
from fooocusapi.surfaces.tams.paths import ROOTS
from fooocusapi.surfaces.tams.render import model_card
from fooocusapi.surfaces.tams.resources import (
    LONG_TERM,
    LONGEST_SLOT_S,
    SHORT_TERM,
    SHORTEST_SLOT_S,
    USUAL_SLOT_S,
)
from fooocusapi.surfaces.tams.schemas import CreditsRequest, JobRequest, ResourceRequest
from fooocusapi.surfaces.tams.staged import StagedJob
from fooocusapi.surfaces.tams.stages import judged
from fooocusapi.surfaces.tams.translate import job_type, to_plan
from fooocusapi.threads import run_in_threadpool, run_limited

MAX_KEY_CHARS: Final = 128
PREVIEW_HEADERS: Final = {"Cache-Control": "no-store"}
"""The next look at it is another picture."""
UPLOAD_HEADERS: Final = {"Content-Type": "application/octet-stream"}

_bearer = HTTPBearer(scheme_name="Bearer", description="A key of this dialect, if there are any.", auto_error=False)


class StagedRoute(APIRoute):
    """A route that hands its request on unread, so that a caller without a key costs nothing."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_unread(request: Request) -> Response:
            lenient = LenientRequest(request.scope, request.receive)
            try:
                return await handle(lenient)
            finally:
                await lenient.close()

        return handle_unread


router = APIRouter(route_class=StagedRoute, tags=["Staged jobs"])
keyless = APIRouter(tags=["Staged jobs"])
"""What is reached by addresses that carry their own signature."""


class StatusAnswer(BaseModel):
    """A refusal, as ``google.rpc.Status`` has it."""

    code: int = Field(description="The gRPC code of the status.")
    message: str = Field(description="The documented name of the problem, or what is wrong in words.")
    details: list[dict[str, Any]] = Field(description="One entry for each field, by its path.")


_REFUSED: Final[dict[int | str, dict[str, Any]]] = {
    "default": {"model": StatusAnswer, "description": "Refused; `details` name the fields."}
}


# ------------------------------------------------------------------------------------------------------- who may call


async def _caller(request: Request, services: OpenServices) -> str:
    """The application that calls, once its call was counted."""
    parts = services.staged
    application = EVERYBODY
    if not _has_server_key(request, parts):
        authorization = request.headers.get("authorization", "")
        # Others are let in or turned away before their body is read.
        body = await request.body() if is_signed(authorization) else b""
        call = Call(request.method, _target(request), authorization, body)
        application = await run_in_threadpool(parts.authority.caller, call)
    parts.rate_limit.count(application)
    return application


def _has_server_key(request: Request, parts: StagedParts) -> bool:
    """Whether the caller has sent the key that opens all dialects."""
    return is_one_of(request.headers.get(KEY_HEADER), parts.settings.api_keys)


def _target(request: Request) -> str:
    """Path and query string as they were sent."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    query: bytes = request.scope.get("query_string", b"")
    return (raw + (b"?" + query if query else b"")).decode("latin-1")


Caller = Annotated[str, Depends(_caller)]
Expires = Annotated[str, Query(description="When the address ends, in seconds since the epoch.")]
Signature = Annotated[str, Query(description="What makes the address one of this server's own.")]


def _base_url(request: Request, parts: StagedParts) -> str:
    """Where addresses in answers begin: as configured, else as the client reached the server."""
    return (parts.settings.base_url or str(request.base_url)).rstrip("/")


def _documented(body: type[BaseModel]) -> dict[str, Any]:
    """The body in the published document; it is read by this dialect's own rules."""
    schema = {"$ref": f"#/components/schemas/{body.__name__}"}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": True}}


async def _read(kind: type[M], request: Request) -> M:
    """The body as a message; nothing at all is ``{}``. Raises ``Refusal``."""
    if not (await request.body()).strip():
        return read_message(kind, {})
    try:
        values = await request.json()
    except ValueError as error:
        raise Refusal(400, f"the body is no JSON: {error}") from None
    return read_message(kind, values)


# --------------------------------------------------------------------------------------------------------------- jobs


@router.post(
    "/v1/jobs",
    operation_id="staged_create_job",
    dependencies=[Security(_bearer)],
    openapi_extra=_documented(JobRequest),
    responses=_REFUSED,
)
async def create_job(request: Request, application: Caller, services: OpenServices) -> JSONResponse:
    """A job of stages. The same `requestId` and body again give the same job."""
    body = await _read(JobRequest, request)
    base_url = _base_url(request, services.staged)
    return JSONResponse(await run_in_threadpool(_created, body, application, base_url, services))


def _created(body: JobRequest, application: str, base_url: str, services: Services) -> dict[str, Any]:
    parts = services.staged
    made_of = fingerprint(body)
    if body.request_id:
        earlier = parts.ledger.repeated(application, body.request_id, made_of)
        if earlier is not None:
            return parts.renderer.job(earlier, base_url)
    judge = Judge()
    request_id = _checked_key(body.request_id, judge)
    if body.notify_url:
        parts.check_notify_url(body.notify_url, judge)
    job = judged(body.stages, parts.means(application), judge)
    judge.end()
    order = Order(
        application=application,
        request_id=request_id,
        fingerprint=made_of,
        plan=to_plan(job, black_out_nsfw=parts.black_out_nsfw),
        job_type=job_type(job),
        credits=price(job),
        notify_url=body.notify_url or "",
        base_url=base_url,
    )
    return parts.renderer.created(parts.ledger.submit(order))


def _checked_key(request_id: str | None, judge: Judge) -> str:
    if not request_id:
        judge.refuse("requestId", "is needed")
    elif len(request_id) > MAX_KEY_CHARS:
        judge.refuse("requestId", f"at most {MAX_KEY_CHARS} characters are allowed")
    return request_id or ""


@router.post(
    "/v1/jobs/credits",
    operation_id="staged_credits",
    dependencies=[Security(_bearer)],
    openapi_extra=_documented(CreditsRequest),
    responses=_REFUSED,
)
async def estimate(request: Request, application: Caller, services: OpenServices) -> JSONResponse:
    """What a list of stages would cost. Nobody is charged by this server."""
    body = await _read(CreditsRequest, request)
    return JSONResponse({"credits": price(await run_in_threadpool(_judged, body, application, services))})


def _judged(body: CreditsRequest, application: str, services: Services) -> StagedJob:
    judge = Judge()
    job = judged(body.stages, services.staged.means(application), judge)
    judge.end()
    return job


@router.get("/v1/jobs/{job_id}", operation_id="staged_job", dependencies=[Security(_bearer)], responses=_REFUSED)
async def show_job(job_id: str, request: Request, application: Caller, services: OpenServices) -> JSONResponse:
    """How a job stands, with addresses of its pictures once it has ended; they are valid for an hour."""
    base_url = _base_url(request, services.staged)

    def shown() -> dict[str, Any]:
        return services.staged.renderer.job(services.staged.ledger.find(application, job_id), base_url)

    return JSONResponse(await run_in_threadpool(shown))


@router.delete("/v1/jobs/{job_id}", operation_id="staged_cancel", dependencies=[Security(_bearer)], responses=_REFUSED)
async def cancel_job(job_id: str, application: Caller, services: OpenServices) -> JSONResponse:
    """Stops a job; one that has ended stays as it is."""

    def cancelled() -> Job:
        job = services.staged.ledger.find(application, job_id)
        services.staged.ledger.cancel(job)
        return job

    job = await run_in_threadpool(cancelled)
    return JSONResponse({"jobId": job.context["number"]})


router.add_api_route("/v1/jobs/{job_id}/cancel", cancel_job, methods=["POST"], include_in_schema=False)


# ---------------------------------------------------------------------------------------------------------- resources


@router.post(
    "/v1/resource/image",
    operation_id="staged_reserve",
    dependencies=[Security(_bearer)],
    openapi_extra=_documented(ResourceRequest),
    responses=_REFUSED,
)
async def reserve(request: Request, application: Caller, services: OpenServices) -> JSONResponse:
    """A slot for a picture: its identifier, and where the bytes are to be put."""
    body = await _read(ResourceRequest, request)
    if body.term not in (None, 0, SHORT_TERM, LONG_TERM):
        raise Refusal.of([Problem("term", f"{SHORT_TERM} or {LONG_TERM} is needed")])
    open_for_s = min(max(body.expire_sec or USUAL_SLOT_S, SHORTEST_SLOT_S), LONGEST_SLOT_S)
    resources = services.staged.resources
    slot = await run_in_threadpool(resources.reserve, application, open_for_s, body.term or SHORT_TERM)
    query = await run_in_threadpool(resources.signer.query, "PUT", slot.id, slot.closes_ms)
    base_url = _base_url(request, services.staged)
    return JSONResponse(
        {
            "resourceId": slot.id,
            "putUrl": f"{base_url}/v1/resource/image/{slot.id}?{query}",
            "headers": UPLOAD_HEADERS,
        }
    )


@keyless.put("/v1/resource/image/{resource_id}", operation_id="staged_upload", responses=_REFUSED)
async def upload(
    resource_id: str,
    request: Request,
    services: OpenServices,
    expires: Expires = "",
    signature: Signature = "",
) -> JSONResponse:
    """The bytes of a picture, whatever their content type says. The address is its own key."""
    resources = services.staged.resources
    now_ms = services.jobs.now_ms()
    await run_in_threadpool(resources.signer.check, "PUT", resource_id, expires, signature, now_ms)
    data = await _limited_body(request, resources.max_bytes)
    await run_limited(services.staged.decoding, resources.put, resource_id, data)
    return JSONResponse({})


async def _limited_body(request: Request, max_bytes: int) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > max_bytes:
            raise Refusal(413, f"the picture has more than {max_bytes} bytes")
    return bytes(data)


@keyless.get(
    "/v1/resource/image/{resource_id}",
    operation_id="staged_picture",
    response_class=Response,
    responses={200: {"description": "The picture.", "content": {"image/png": {}}}, **_REFUSED},
)
async def picture(
    resource_id: str,
    services: OpenServices,
    expires: Expires = "",
    signature: Signature = "",
) -> Response:
    """A finished picture, or how one stands that is being painted, by the address in a job's answer."""
    now_ms = services.jobs.now_ms()
    await run_in_threadpool(services.staged.resources.signer.check, "GET", resource_id, expires, signature, now_ms)
    path = await run_in_threadpool(services.staged.finished_file, resource_id)
    if path is None:
        preview = await run_in_threadpool(services.staged.renderer.preview_file, resource_id)
        if preview is None:
            raise Refusal(404, "the picture is not there any more")
        return Response(preview, media_type="image/png", headers=PREVIEW_HEADERS)
    return FileResponse(path, media_type="image/png", headers={"X-Content-Type-Options": "nosniff"})


# ------------------------------------------------------------------------------------------------------------- models


@router.get("/v1/models/{model_id}", operation_id="staged_model", dependencies=[Security(_bearer)], responses=_REFUSED)
async def model(model_id: str, application: Caller, services: OpenServices) -> JSONResponse:
    """The card of a model in the table of models."""
    table = await run_in_threadpool(services.staged.table.current)
    found = table.models.get(model_id)
    if found is None:
        raise Refusal(404, "there is no such model")
    return JSONResponse(model_card(found))


# -------------------------------------------------------------------------------------------------------- not offered


async def not_offered(application: Caller) -> JSONResponse:
    """Node graphs, stored templates and upload forms, which this server does not offer: always 501."""
    raise Refusal(501, "this server runs staged jobs; this call is not offered")


for _method, _path in (
    ("POST", "/v1/resource/image/sts"),
    ("POST", "/v1/jobs/workflow"),
    ("POST", "/v1/jobs/workflow/params/check"),
    ("POST", "/v1/jobs/workflow/template"),
    ("GET", "/v1/workflows/{template_id}"),
    ("POST", "/v1/workflows/template/check"),
):
    router.add_api_route(_path, not_offered, methods=[_method], include_in_schema=False)


async def unknown(request: Request) -> JSONResponse:
    """Every other path below the dialect's own: 405 where it is known with another method, else 404."""
    routes = (*router.routes, *keyless.routes)
    if any(route.matches(request.scope)[0] is Match.PARTIAL for route in routes):
        raise Refusal(405, "this path is known, with another method")
    raise Refusal(404, "there is no such call")


ANY_METHOD: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
last = APIRouter()
"""What comes behind all others."""
for _root in ROOTS:
    for _rest in ("", "/{rest:path}"):
        last.add_api_route(f"{_root}{_rest}", unknown, methods=ANY_METHOD, include_in_schema=False)
