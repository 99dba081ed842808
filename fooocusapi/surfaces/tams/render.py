"""From a job to this dialect's answer (contract sections 6 and 9): 64-bit numbers as text, nothing that is not set."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from fooocus_core.errors import OUT_OF_MEMORY
from fooocusapi.images.outputs import OutputStore
from fooocusapi.jobs.job import Job, JobState, ResultImage
from fooocusapi.jobs.queue import LOST_AGAIN, OTHER_RELEASE, Unfinished
from fooocusapi.jobs.worker import ENGINE_LOST, JOURNAL_LOST, PICTURE_LOST, TOOK_TOO_LONG
from fooocusapi.surfaces.tams.ledger import Ledger, picture_id
from fooocusapi.surfaces.tams.model_table import ModelEntry
from fooocusapi.surfaces.tams.resources import Signer

LINK_VALID_S: Final = 3600
TRANSITORY: Final = frozenset(
    {OUT_OF_MEMORY, LOST_AGAIN, OTHER_RELEASE, ENGINE_LOST, JOURNAL_LOST, PICTURE_LOST, TOOK_TOO_LONG}
)
"""Reasons for which the same request may succeed another time."""

_PNG_SIZE: Final = struct.Struct(">II")
_PNG_SIZE_AT: Final = 16


class Renderer(NamedTuple):
    """What answers are made of beside the job itself."""

    outputs: OutputStore
    signer: Signer
    ledger: Ledger
    unfinished: Callable[[], Unfinished]
    now_ms: Callable[[], int]

    def job(self, job: Job, base_url: str) -> dict[str, Any]:
        """The job as it stands; its pictures' addresses begin with ``base_url``. Looks at the disk."""
        return {"job": {**self._state(job), **self._info(job, base_url)}}

    def created(self, job: Job) -> dict[str, Any]:
        """The first answer, which is the same whatever waits before the job."""
        return {"job": {"id": job.context["number"], "status": "CREATED", "credits": job.context["credits"]}}

    def _state(self, job: Job) -> dict[str, Any]:
        status = self._status(job)
        credits = 0 if status in ("FAILED", "CANCELED") else job.context["credits"]
        return {"id": job.context["number"], "status": status, "credits": credits}

    def _status(self, job: Job) -> str:
        if job.state is JobState.CANCELLED or self.ledger.is_cancelled(job):
            return "CANCELED"
        if job.state is JobState.WAITING:
            return "WAITING" if self._is_behind_others(job) else "CREATED"
        return {JobState.RUNNING: "RUNNING", JobState.SUCCEEDED: "SUCCESS"}.get(job.state, "FAILED")

    def _is_behind_others(self, job: Job) -> bool:
        unfinished = self.unfinished()
        first = unfinished.waiting[0].id if unfinished.waiting else job.id
        return unfinished.running is not None or first != job.id

    def _info(self, job: Job, base_url: str) -> dict[str, Any]:
        match self._status(job):
            case "WAITING":
                return {"waitingInfo": self._waiting(job)}
            case "RUNNING":
                return {"runningInfo": {"processingImages": _processing(job)}}
            case "FAILED":
                code = "TRANSITORY_ERROR" if job.reason in TRANSITORY else "FATAL_ERROR"
                return {"failedInfo": {"reason": job.reason or "the job failed", "code": code}}
            case "SUCCESS":
                return {"successInfo": self._success(job, base_url)}
            case _:
                return {}

    def _waiting(self, job: Job) -> dict[str, str]:
        waiting = [other.id for other in self.unfinished().waiting]
        rank = waiting.index(job.id) + 1 if job.id in waiting else 1
        return {"queueRank": str(rank), "queueLen": str(max(len(waiting), rank))}

    def _success(self, job: Job, base_url: str) -> dict[str, Any]:
        found = [(result, self.outputs.find(result.path)) for result in job.results]
        pictures = [self._picture(job, result, path, base_url) for result, path in found if path is not None]
        return {
            "images": [picture.resource for picture in pictures],
            "imageExifMetaMap": {picture.resource["id"]: {"meta": picture.notes} for picture in pictures},
            "runtime": str(round((job.finished_ms - job.started_ms) / 1000)),
        }

    def _picture(self, job: Job, result: ResultImage, path: Path, base_url: str) -> _Picture:
        name = picture_id(job, result.index)
        query = self.signer.query("GET", name, self.now_ms() + LINK_VALID_S * 1000)
        width_px, height_px = _png_size(path)
        return _Picture(
            {
                "id": name,
                "url": f"{base_url}/v1/resource/image/{name}?{query}",
                "expiredIn": str(LINK_VALID_S),
                "meta": {"image": {"format": "png", "width": width_px, "height": height_px}},
            },
            {
                "FileSize": f"{round(path.stat().st_size / 1000)} kB",
                "ImageSize": f"{width_px}x{height_px}",
                "MIMEType": "image/png",
                "Seed": str(result.seed),
            },
        )


class _Picture(NamedTuple):
    resource: dict[str, Any]
    notes: Mapping[str, str]


def model_card(model: ModelEntry) -> dict[str, Any]:
    """A model of the table (section 11); typed clients want every field but the last."""
    card = {
        "id": model.id,
        "name": model.name,
        "description": model.description,
        "projectName": model.project_name,
        "baseModel": model.base_model,
        "modelType": model.type,
        "showcaseImageUrls": list(model.showcase_image_urls),
    }
    return {"model": {**card, "triggerWords": model.trigger_words} if model.trigger_words else card}


def _processing(job: Job) -> list[dict[str, Any]]:
    """One entry for each picture; they are told alike, because the share is that of all stages together."""
    images = 1 if job.plan is None else job.plan.main.image_number
    return [{"progress": round(job.fraction * 100, 2)} for _ in range(images)]


def _png_size(path: Path) -> tuple[int, int]:
    """Width and height, as the header of a PNG has them."""
    with path.open("rb") as file:
        header = file.read(_PNG_SIZE_AT + _PNG_SIZE.size)
    width_px, height_px = _PNG_SIZE.unpack_from(header, _PNG_SIZE_AT)
    return width_px, height_px
