"""Pictures over HTTP: stored bytes, or converted to the one kind of picture that ``Accept`` names.

``/files/`` is the classic dialect's prefix, ``/outputs/`` the unified one's; both show the same folder. ``/inputs/``
shows what came with requests of the unified dialect.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from fooocusapi.dependencies import OpenServices
from fooocusapi.images.formats import KIND_OF_SUFFIX, MEDIA_TYPES, Kind, converted
from fooocusapi.threads import run_in_threadpool

router = APIRouter(tags=["Files"])

CONVERTS_TO: dict[str, Kind] = {
    "image/png": "png",
    "image/jpg": "jpeg",
    "image/jpeg": "jpeg",
    "image/webp": "webp",
}

HEADERS = {"Cache-Control": "no-cache", "Vary": "Accept", "X-Content-Type-Options": "nosniff"}
"""``no-cache``: a ``save_name`` that comes again changes the picture under its address; the ETag spares the bytes."""


Find = Callable[[str], Path | None]
"""The existing file of a name, safe against names that lead elsewhere."""


@dataclass(frozen=True)
class StoredPicture:
    """A picture that was there when it was looked for."""

    path: Path
    status: os.stat_result

    @property
    def kind(self) -> Kind:
        return KIND_OF_SUFFIX[self.path.suffix[1:].lower()]

    def etag(self, kind: Kind) -> str:
        """Changes with the file and with what it is converted to."""
        return f'"{self.status.st_mtime_ns:x}-{self.status.st_size:x}-{kind}"'


async def picture_file(path: str, request: Request, services: OpenServices) -> Response:
    """A finished picture; `Accept` with exactly one of PNG, JPEG and WebP converts it. No key is needed."""
    return await _answer(services.outputs.find, path, request)


async def input_file(path: str, request: Request, services: OpenServices) -> Response:
    """A picture that came with a task, as `req_params` names it; converted like a finished one. No key is needed."""
    return await _answer(services.shown.find, path, request)


async def _answer(find: Find, path: str, request: Request) -> Response:
    stored = await run_in_threadpool(_look_up, find, path)
    if stored is None:
        return Response(status_code=404)
    kind = CONVERTS_TO.get(request.headers.get("accept", "").strip().lower(), stored.kind)
    headers = {**HEADERS, "ETag": stored.etag(kind)}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if kind == stored.kind:
        return FileResponse(stored.path, headers=headers, media_type=MEDIA_TYPES[kind], stat_result=stored.status)
    return await run_in_threadpool(_converted_response, stored.path, kind, headers)


def _look_up(find: Find, name: str) -> StoredPicture | None:
    path = find(name)
    try:
        return StoredPicture(path, path.stat()) if path else None
    except OSError:
        return None


def _converted_response(path: Path, kind: Kind, headers: dict[str, str]) -> Response:
    """The other form, made anew; 404 for a file that is gone or no picture."""
    try:
        return Response(converted(path.read_bytes(), kind), media_type=MEDIA_TYPES[kind], headers=headers)
    except OSError:
        return Response(status_code=404)


for _prefix, _endpoint in (("files", picture_file), ("outputs", picture_file), ("inputs", input_file)):
    router.add_api_route(
        f"/{_prefix}/{{path:path}}",
        _endpoint,
        methods=["GET"],
        operation_id=f"get_{_prefix}__path__get",
        response_class=Response,
        responses={
            200: {"description": "The picture.", "content": {media_type: {} for media_type in MEDIA_TYPES.values()}},
            "4XX": {"description": "404: no such picture."},
        },
    )
    router.add_api_route(f"/{_prefix}/{{path:path}}", _endpoint, methods=["HEAD"], include_in_schema=False)
