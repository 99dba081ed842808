"""What dialects tell of ended jobs, and to which address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fooocusapi.images.outputs import OutputStore
from fooocusapi.jobs.job import Job
from fooocusapi.jobs.webhooks import Composer, Delivery
from fooocusapi.settings import Settings
from fooocusapi.surfaces.classic import render as classic
from fooocusapi.surfaces.classic.translate import SURFACE as CLASSIC
from fooocusapi.surfaces.unified import render as unified
from fooocusapi.surfaces.unified.translate import SURFACE as UNIFIED


def composers(outputs: OutputStore, settings: Settings) -> dict[str, Composer]:
    """For each dialect but the staged, what it tells of an ended job: to its own address, else to the settings'."""

    def to_its_address(job: Job, body: Mapping[str, Any] | str) -> Delivery | None:
        asked = job.context.get("webhook_url")
        url = asked or settings.webhook_url
        return Delivery(job.id, url, body, is_trusted=not asked) if url else None

    def of_task(job: Job) -> Mapping[str, Any] | str:
        return unified.webhook_body(job, outputs, as_text=settings.task_webhook == "string")

    return {
        CLASSIC: lambda job: to_its_address(job, classic.webhook_body(job, outputs)),
        UNIFIED: lambda job: to_its_address(job, of_task(job)),
    }
