"""Whether the server lives and whether it can work, and the two pages that old clients use to ask."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from fooocusapi.dependencies import OpeningServices
from fooocusapi.services import Opening

router = APIRouter(tags=["Query"])

HOME = '<!doctype html><title>fooocusapi</title><p>The server runs. <a href="/docs">Every endpoint and field</a>.</p>'


class Health(BaseModel):
    """How the server is."""

    status: Literal["starting", "ready", "busy", "unhealthy"] = Field(
        description="`busy` is ready with jobs waiting or running.", examples=["ready"]
    )
    reason: str | None = Field(default=None, description="Why it is unhealthy.")


UNAVAILABLE: dict[int | str, dict[str, Any]] = {503: {"model": Health, "description": "Not now."}}


@router.get("/ping", operation_id="ping_ping_get", response_model=str)
async def ping() -> str:
    """Answers `"pong"` from the first moment on, also while models load."""
    return "pong"


@router.get("/", operation_id="home__get", response_class=HTMLResponse)
async def home() -> str:
    """A line with a link to the documentation."""
    return HOME


@router.get("/healthz", operation_id="healthz_get", response_model=Health, responses=UNAVAILABLE)
async def healthz(opening: OpeningServices, response: Response) -> Health:
    """Whether the process should be left alone: 503 only when it is unhealthy."""
    health = health_of(opening)
    if health.status == "unhealthy":
        response.status_code = 503
    return health


@router.get("/readyz", operation_id="readyz_get", response_model=Health, responses=UNAVAILABLE)
async def readyz(opening: OpeningServices, response: Response) -> Health:
    """Whether a job sent now would be worked on: 503 while starting or ending, and when unhealthy.

    Here, a journal that cannot be written is unhealthy too; that is no reason to start the server anew.
    """
    health = health_of(opening)
    if health.status in ("ready", "busy") and (why := _why_no_job_is_taken(opening)):
        health = Health(status="unhealthy", reason=why)
    if health.status in ("starting", "unhealthy"):
        response.status_code = 503
    return health


def health_of(opening: Opening) -> Health:
    """The state in one word; answered from memory."""
    if opening.has_failed:
        return Health(status="unhealthy", reason="the server could not start, see its log")
    services = opening.opened
    if services is None:
        return Health(status="starting")
    engine = services.engine.status()
    if engine.state != "ready":
        return Health(status=engine.state, reason=engine.reason or None)
    return Health(status="busy" if services.jobs.counters().unfinished else "ready")


def _why_no_job_is_taken(opening: Opening) -> str:
    """Empty if jobs are taken; answered from memory."""
    services = opening.opened
    if services is None or services.jobs.is_closed():
        return "the server is shutting down"
    return "the journal of jobs cannot be written" if services.jobs.owes_the_journal() else ""
