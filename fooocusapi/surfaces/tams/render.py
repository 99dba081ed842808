"""From a job to this dialect's answer (contract sections 6 and 9): 64-bit numbers as text, nothing that is not set."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fooocus_core.errors import OUT_OF_MEMORY
from fooocus_core.presets.sizes import Size
from fooocusapi.images.outputs import OutputStore
from fooocusapi.images.previews import preview_png, preview_size
from fooocusapi.jobs.job import Job, JobState, ResultImage
from fooocusapi.jobs.queue import Unfinished
from fooocusapi.jobs.reasons import (
    ENGINE_LOST,
    JOURNAL_LOST,
    LOST_AGAIN,
    OTHER_RELEASE,
    PICTURE_LOST,
    TOOK_TOO_LONG,
)
from fooocusapi.surfaces.tams.ledger import SURFACE, Ledger, picture_id
from fooocusapi.surfaces.tams.model_table import ModelEntry
from fooocusapi.surfaces.tams.resources import Signer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
    preview: Callable[[str], NDArray[np.uint8] | None]
    """The picture of a running job as it stands, by the job's identifier."""
    now_ms: Callable[[], int]

    def job(self, job: Job, base_url: str) -> dict[str, Any]:
        """The job as it stands; its pictures' addresses begin with ``base_url``. Looks at the disk."""
        unfinished = self.unfinished()
        status = self._status(job, unfinished)
        return {"job": {**_state(job, status), **self._info(job, status, unfinished, base_url)}}

    def created(self, job: Job) -> dict[str, Any]:
        """The first answer, which is the same whatever waits before the job."""
        return {"job": _state(job, "CREATED")}

    def _status(self, job: Job, unfinished: Unfinished) -> str:
        if job.state is JobState.CANCELLED or self.ledger.is_cancelled(job):
            return "CANCELED"
        if job.state is JobState.WAITING:
            return _waiting_status(job, unfinished)
        return {JobState.RUNNING: "RUNNING", JobState.SUCCEEDED: "SUCCESS"}.get(job.state, "FAILED")

    def _info(self, job: Job, status: str, unfinished: Unfinished, base_url: str) -> dict[str, Any]:
        match status:
            case "WAITING":
                return {"waitingInfo": _waiting_info(job, unfinished)}
            case "RUNNING":
                return {"runningInfo": {"processingImages": self._processing(job, base_url)}}
            case "FAILED":
                code = "TRANSITORY_ERROR" if job.reason in TRANSITORY else "FATAL_ERROR"
                return {"failedInfo": {"reason": job.reason or "the job failed", "code": code}}
            case "SUCCESS":
                return {"successInfo": self._success(job, base_url)}
            case _:
                return {}

    def _processing(self, job: Job, base_url: str) -> list[dict[str, Any]]:
        """One entry for each picture; they are told alike, because the share is that of all stages together.

        Pictures that are done are shown, and how the one that is painted stands.
        """
        entry = {"progress": round(job.fraction * 100, 2)}
        shown = {result.index: picture.resource for result, picture in self._pictures(job, base_url)}
        preview, place = self.preview(job.id), painted_place(job)
        if preview is not None:
            shown.setdefault(place, self._resource(picture_id(job, place), preview_size(preview, job.plan), base_url))
        return [
            {"resourceImage": shown[index], **entry} if index in shown else entry for index in range(_image_number(job))
        ]

    def preview_file(self, name: str) -> bytes | None:
        """The PNG of a picture that is being painted, by its identifier; ``None`` for everything else."""
        for job in self.unfinished().running:
            if job.surface == SURFACE and picture_id(job, painted_place(job)) == name:
                preview = self.preview(job.id)
                return None if preview is None else preview_png(preview, job.plan)
        return None

    def _success(self, job: Job, base_url: str) -> dict[str, Any]:
        pictures = [picture for _, picture in self._pictures(job, base_url)]
        return {
            "images": [picture.resource for picture in pictures],
            "imageExifMetaMap": {picture.resource["id"]: {"meta": picture.notes} for picture in pictures},
            "runtime": str(round((job.finished_ms - job.started_ms) / 1000)),
        }

    def _pictures(self, job: Job, base_url: str) -> Iterator[tuple[ResultImage, _Picture]]:
        """Those that are done, as far as they are still on the disk."""
        for result in job.results:
            path = self.outputs.find(result.path)
            if path is not None:
                yield result, self._picture(job, result, path, base_url)

    def _picture(self, job: Job, result: ResultImage, path: Path, base_url: str) -> _Picture:
        size = _png_size(path)
        return _Picture(
            self._resource(picture_id(job, result.index), size, base_url),
            {
                "FileSize": f"{round(path.stat().st_size / 1000)} kB",
                "ImageSize": f"{size.width_px}x{size.height_px}",
                "MIMEType": "image/png",
                "Seed": str(result.seed),
            },
        )

    def _resource(self, name: str, size: Size, base_url: str) -> dict[str, Any]:
        """A picture by its identifier, with an address that is good for an hour."""
        query = self.signer.query("GET", name, self.now_ms() + LINK_VALID_S * 1000)
        return {
            "id": name,
            "url": f"{base_url}/v1/resource/image/{name}?{query}",
            "expiredIn": str(LINK_VALID_S),
            "meta": {"image": {"format": "png", "width": size.width_px, "height": size.height_px}},
        }


def _state(job: Job, status: str) -> dict[str, Any]:
    credits = 0 if status in ("FAILED", "CANCELED") else job.context["credits"]
    return {"id": job.context["number"], "status": status, "credits": credits}


def _waiting_status(job: Job, unfinished: Unfinished) -> str:
    """Of a job that waited when it was looked up. The worker may have taken it since: it is then behind no other."""
    if job.id not in [other.id for other in unfinished.waiting]:
        return "RUNNING"
    is_next = not unfinished.running and unfinished.waiting[0].id == job.id
    return "CREATED" if is_next else "WAITING"


def _waiting_info(job: Job, unfinished: Unfinished) -> dict[str, str]:
    waiting = [other.id for other in unfinished.waiting]
    return {"queueRank": str(waiting.index(job.id) + 1), "queueLen": str(len(waiting))}


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


def painted_place(job: Job) -> int:
    """Which picture of a running job is worked on, from 0: each stage works on one after the other."""
    if job.plan is None:
        return 0
    share_of_stage = job.fraction * len(job.plan.stages) % 1
    return int(share_of_stage * _image_number(job))


def _image_number(job: Job) -> int:
    return 1 if job.plan is None else job.plan.main.image_number


def _png_size(path: Path) -> Size:
    """As the header of a PNG has it."""
    with path.open("rb") as file:
        header = file.read(_PNG_SIZE_AT + _PNG_SIZE.size)
    return Size(*_PNG_SIZE.unpack_from(header, _PNG_SIZE_AT))
