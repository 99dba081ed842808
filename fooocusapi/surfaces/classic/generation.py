"""The endpoints that make pictures (contract sections 2, 7 and 10): from a prompt, and from pictures that are sent.

Those under ``/v1/`` are meant for forms, those under ``/v2/`` for JSON; each takes both. A form under ``/v1/`` has
fields and defaults of its own, everything else is read as under ``/v2/``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response, Security

from fooocusapi.bodies import LenientRoute
from fooocusapi.dependencies import OpenServices
from fooocusapi.errors import Location, RefusedField
from fooocusapi.jobs.job import Job
from fooocusapi.jobs.queue import QueueFull
from fooocusapi.security import api_key_scheme
from fooocusapi.services import Services
from fooocusapi.surfaces.classic import render
from fooocusapi.surfaces.classic.enhance_bodies import (
    ImageEnhanceFlatRequest,
    ImageEnhanceForm,
    ImageEnhanceRequestJson,
)
from fooocusapi.surfaces.classic.forms import read_body
from fooocusapi.surfaces.classic.picture_bodies import (
    ImgInpaintOrOutpaintForm,
    ImgInpaintOrOutpaintRequestJson,
    ImgPromptFlatRequest,
    ImgPromptForm,
    ImgPromptRequestJson,
    ImgUpscaleOrVaryForm,
    ImgUpscaleOrVaryRequestJson,
    PictureBody,
    Text2ImgRequestWithPrompt,
)
from fooocusapi.surfaces.classic.published import GENERATED
from fooocusapi.surfaces.classic.schemas import AsyncJobResponse, CommonRequest, GeneratedImageResult, TaskType
from fooocusapi.surfaces.classic.translate import SURFACE, to_context, to_given, to_plan
from fooocusapi.surfaces.picture_answers import failed, picture_answer, queue_is_full
from fooocusapi.surfaces.published import EVERYWHERE, INVALID, TOO_LARGE
from fooocusapi.threads import run_in_threadpool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ONE_PICTURE_TYPE = re.compile(r"image/[\w.+-]+", re.ASCII | re.IGNORECASE)
"""A kind of picture by its name; neither ``image/*`` nor a list nor a preference."""

router = APIRouter(route_class=LenientRoute, dependencies=[Security(api_key_scheme)], responses=EVERYWHERE)


# ------------------------------------------------------------------------------------------------------- from a prompt


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


# ------------------------------------------------------------------------------------------ from pictures that are sent


@dataclass(frozen=True)
class PictureEndpoint:
    """One path of this dialect to which pictures are sent."""

    version: Literal["v1", "v2"]
    name: str
    """The last part of the path."""
    operation: str
    """What the operation id begins with."""
    task: TaskType
    published: type[PictureBody]
    from_json: type[PictureBody]
    from_form: type[PictureBody]
    description: str

    @property
    def path(self) -> str:
        """Where it is reached."""
        return f"/{self.version}/generation/{self.name}"

    @property
    def media_type(self) -> str:
        """How its body is meant to be sent."""
        return "multipart/form-data" if self.version == "v1" else "application/json"

    def endpoint(self) -> Callable[..., Coroutine[Any, Any, Any]]:
        """What the framework calls."""

        async def generate(request: Request, services: OpenServices, wants_picture: WantsPicture) -> Any:
            body = await read_body(request, self.from_json, self.from_form)
            return await _generated_from_pictures(body, services, self.task, wants_picture)

        return generate


A_FORM: Final = "A form with the pictures as files, or JSON as under `/v2/`."
JSON: Final = "JSON with the pictures as base64 or as addresses, or a form."

UPSCALE_OR_VARY: Final = """Makes variations of a picture, or enlarges it. {}

A fast upscale, and one whose result is too large to be painted over, gives one picture without a prompt."""
INPAINT_OR_OUTPAINT: Final = """Paints a part of a picture anew, or lets it grow at its sides. {}

What the mask leaves black stays as it is, to the last bit."""
IMAGE_PROMPT: Final = """Paints what up to four pictures steer: by content, a face, edges or structure. {}

With an input picture it is repainted, as image-inpaint-outpaint does; both at once are possible."""
TEXT_WITH_PROMPTS: Final = """Paints pictures from a prompt and from up to four pictures that steer. {}"""
ENHANCE: Final = """Finds parts of a picture and paints them anew, varies or enlarges it before or after. {}

A controller that finds nothing is left out; of all steps the last one's picture is answered."""
FORMER_NAME: Final = "\n\nThe same, under the path of releases up to 0.3.29."


def _inpaint_or_outpaint(version: Literal["v1", "v2"], name: str, more: str = "") -> PictureEndpoint:
    is_form = version == "v1"
    from_form = ImgInpaintOrOutpaintForm if is_form else ImgInpaintOrOutpaintRequestJson
    return PictureEndpoint(
        version=version,
        name=name,
        operation="img_inpaint_or_outpaint",
        task=TaskType.INPAINT_OR_OUTPAINT,
        published=from_form,
        from_json=ImgInpaintOrOutpaintRequestJson,
        from_form=from_form,
        description=INPAINT_OR_OUTPAINT.format(A_FORM if is_form else JSON) + more,
    )


PICTURE_ENDPOINTS: Final = (
    PictureEndpoint(
        version="v2",
        name="text-to-image-with-ip",
        operation="text_to_img_with_ip",
        task=TaskType.TEXT_TO_IMAGE,
        published=Text2ImgRequestWithPrompt,
        from_json=Text2ImgRequestWithPrompt,
        from_form=Text2ImgRequestWithPrompt,
        description=TEXT_WITH_PROMPTS.format(JSON),
    ),
    PictureEndpoint(
        version="v1",
        name="image-upscale-vary",
        operation="img_upscale_or_vary",
        task=TaskType.UPSCALE_OR_VARY,
        published=ImgUpscaleOrVaryForm,
        from_json=ImgUpscaleOrVaryRequestJson,
        from_form=ImgUpscaleOrVaryForm,
        description=UPSCALE_OR_VARY.format(A_FORM),
    ),
    PictureEndpoint(
        version="v2",
        name="image-upscale-vary",
        operation="img_upscale_or_vary",
        task=TaskType.UPSCALE_OR_VARY,
        published=ImgUpscaleOrVaryRequestJson,
        from_json=ImgUpscaleOrVaryRequestJson,
        from_form=ImgUpscaleOrVaryRequestJson,
        description=UPSCALE_OR_VARY.format(JSON),
    ),
    _inpaint_or_outpaint("v1", "image-inpaint-outpaint"),
    _inpaint_or_outpaint("v2", "image-inpaint-outpaint"),
    _inpaint_or_outpaint("v1", "image-inpait-outpaint", FORMER_NAME),
    _inpaint_or_outpaint("v2", "image-inpait-outpaint", FORMER_NAME),
    PictureEndpoint(
        version="v1",
        name="image-prompt",
        operation="img_prompt",
        task=TaskType.IMAGE_PROMPT,
        published=ImgPromptForm,
        from_json=ImgPromptFlatRequest,
        from_form=ImgPromptForm,
        description=IMAGE_PROMPT.format(A_FORM),
    ),
    PictureEndpoint(
        version="v2",
        name="image-prompt",
        operation="img_prompt",
        task=TaskType.IMAGE_PROMPT,
        published=ImgPromptRequestJson,
        from_json=ImgPromptFlatRequest,
        from_form=ImgPromptFlatRequest,
        description=IMAGE_PROMPT.format(JSON),
    ),
    PictureEndpoint(
        version="v1",
        name="image-enhance",
        operation="img_enhance",
        task=TaskType.IMAGE_ENHANCEMENT,
        published=ImageEnhanceForm,
        from_json=ImageEnhanceFlatRequest,
        from_form=ImageEnhanceForm,
        description=ENHANCE.format(A_FORM),
    ),
    PictureEndpoint(
        version="v2",
        name="image-enhance",
        operation="img_enhance",
        task=TaskType.IMAGE_ENHANCEMENT,
        published=ImageEnhanceRequestJson,
        from_json=ImageEnhanceFlatRequest,
        from_form=ImageEnhanceFlatRequest,
        description=ENHANCE.format(JSON),
    ),
)

for _endpoint in PICTURE_ENDPOINTS:
    _reference = {"$ref": f"#/components/schemas/{_endpoint.published.__name__}"}
    router.add_api_route(
        _endpoint.path,
        _endpoint.endpoint(),
        methods=["POST"],
        operation_id=f"{_endpoint.operation}_{_endpoint.path.strip('/').replace('/', '_').replace('-', '_')}_post",
        summary=_endpoint.operation.replace("_", " ").title(),
        description=_endpoint.description,
        tags=[f"Generate{_endpoint.version.upper()}"],
        response_model=list[GeneratedImageResult] | AsyncJobResponse,
        responses={**GENERATED, **INVALID, **TOO_LARGE},
        openapi_extra={"requestBody": {"required": True, "content": {_endpoint.media_type: {"schema": _reference}}}},
    )


async def _generated_from_pictures(body: PictureBody, services: Services, kind: TaskType, wants_picture: bool) -> Any:
    pictures = await _read_pictures(body, services)

    def submit() -> Job:
        with services.kept.held() as held:
            given = to_given(body, pictures, held.keep)
            plan = to_plan(body, services.resolve, one_image=wants_picture, given=given)
            job = services.jobs.submit(plan, SURFACE, kind.value, to_context(body, plan))
            held.hand_over(plan.pictures)
        pictures.clear()  # They are kept for the job; this caller may wait for long, and is not alone.
        return job

    return await _generated(body, services, kind, wants_picture, submit)


async def _read_pictures(body: PictureBody, services: Services) -> dict[Location, NDArray[np.uint8]]:
    """The pictures by their places. Raises ``RefusedField`` with the body, for the answer."""
    try:
        return await services.inputs.read_all(body.pictures())
    except RefusedField as error:
        error.body = body.model_dump(exclude_unset=True)
        raise


# ------------------------------------------------------------------------------------------------------------- answers


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
        return queue_is_full()
    return render.refused_async(kind) if is_async else render.refused_sync()


def _picture(job: Job, services: Services) -> Response:
    """The first picture as PNG without metadata, or why there is none."""
    return picture_answer(job, services.outputs, "png", "image/png") or failed()
