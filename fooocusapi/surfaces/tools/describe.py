"""``describe-image``, alike in both generation dialects: a picture in words, within the request.

Contracts: ``fooocus-api.md`` section 14, ``engine-generate.md`` section 14. One sends a form and says in the query what
the picture is, the other sends JSON; either name of the field is read in any of the three places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from fastapi import APIRouter, Depends, Request, Security
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from fooocus_core.describe.describer import Content
from fooocusapi.bodies import LenientRoute
from fooocusapi.dependencies import DescribeLimiter, OpenServices
from fooocusapi.security import api_key_scheme
from fooocusapi.surfaces.classic.forms import read_body, validated
from fooocusapi.surfaces.fields import MAX_NAME_CHARS, read_json_text
from fooocusapi.surfaces.lenient import LenientEnum, LenientModel, asked
from fooocusapi.surfaces.published import EVERYWHERE, INVALID, TOO_LARGE, Responses
from fooocusapi.threads import run_in_threadpool

MAX_TYPES: Final = 16
"""There are two; more are a mistake."""

router = APIRouter(route_class=LenientRoute, dependencies=[Security(api_key_scheme)], responses=EVERYWHERE)


class DescribeImageType(LenientEnum):
    """What a picture is taken for: `Photo` gets a sentence, `Anime` gets tags."""

    PHOTO = "Photo"
    ANIME = "Anime"


CONTENT_OF: Final[Mapping[DescribeImageType, Content]] = {
    DescribeImageType.PHOTO: "photo",
    DescribeImageType.ANIME: "anime",
}


def _read_types(value: Any) -> Any:
    """One or several: a list, JSON text of one, or names with commas between. Empty ones say nothing."""
    value = read_json_text(value)
    entries = value if isinstance(value, list) else [value]
    named = (part for entry in entries for part in _parts(entry))
    return [name for name in named if name is not None and not (isinstance(name, str) and not name.strip())] or None


def _parts(entry: Any) -> list[Any]:
    """A text that is longer than any names is left whole: it is refused, and its parts would fill the memory."""
    return entry.split(",") if isinstance(entry, str) and len(entry) <= MAX_NAME_CHARS else [entry]


class DescribeImageQuery(LenientModel):
    """What the picture is."""

    second_names: ClassVar[Mapping[str, str]] = {"type": "image_type"}
    """The name in the original's guide."""

    image_type: Annotated[
        Annotated[list[DescribeImageType], Field(max_length=MAX_TYPES)] | None,
        BeforeValidator(_read_types, json_schema_input_type=DescribeImageType | list[DescribeImageType]),
    ] = asked(
        "Photo",
        "`Photo` for a sentence, `Anime` for tags; both, as a list or with a comma between, for one behind the other. "
        "Also read as `type`.",
    )


class DescribeImageRequest(DescribeImageQuery):
    """A picture to describe, and what it is."""

    image: Annotated[Any, WithJsonSchema({"type": "string"})] = Field(
        description="The picture: base64 with or without `data:image/...;base64,`, or an address.",
        examples=["http://127.0.0.1:8888/files/2025-02-23/764af3ec-f0f7-45c6-9951-722e24c67134-0.png"],
    )


class DescribeImageForm(DescribeImageRequest):
    """The same as a form."""

    image: Annotated[Any, WithJsonSchema({"type": "string", "format": "binary"})] = Field(
        description="The picture, as a file.", examples=["picture.png"]
    )


class DescribeImageResponse(BaseModel):
    """A picture in words."""

    describe: str = Field(
        description="A sentence without its beginning (`a picture of`), or tags with commas between.",
        examples=["a red apple on a wooden table"],
    )


def _types_in_query(request: Request) -> list[DescribeImageType] | None:
    sent = request.query_params
    return validated(DescribeImageQuery, {name: sent.getlist(name) for name in sent}, "query").image_type


PUBLISHED_BODIES: Final = (DescribeImageForm, DescribeImageRequest)
_CONTENT: Final = {
    "multipart/form-data": {"schema": {"$ref": "#/components/schemas/DescribeImageForm"}},
    "application/json": {"schema": {"$ref": "#/components/schemas/DescribeImageRequest"}},
}
_PARAMETERS: Final = [
    {
        "name": "image_type",
        "in": "query",
        "required": False,
        "schema": {"allOf": [{"$ref": "#/components/schemas/DescribeImageType"}], "default": "Photo"},
        "description": DescribeImageQuery.model_fields["image_type"].description,
    }
]
"""By hand, because the framework knows no default of a field that may stand in the body as well."""
_MISSING: Final[Responses] = {
    503: {
        "description": "A file that describing needs is not on disk, or the server could not start, or it ends.",
        "content": {
            "application/json": {
                "example": {
                    "detail": "clip_vision: no file named 'model_base_caption_capfilt_large.pth', needed for "
                    "describing photographs; it is published at https://huggingface.co/lllyasviel/misc/resolve/main/"
                    "model_base_caption_capfilt_large.pth and fetched by: main.py download "
                    "model_base_caption_capfilt_large.pth"
                }
            }
        },
    }
}


@router.post(
    "/v1/tools/describe-image",
    operation_id="describe_image_v1_tools_describe_image_post",
    summary="Describe Image",
    tags=["GenerateV1"],
    response_model=DescribeImageResponse,
    responses={**INVALID, **TOO_LARGE, **_MISSING},
    openapi_extra={"requestBody": {"required": True, "content": _CONTENT}, "parameters": _PARAMETERS},
)
async def describe_image(
    request: Request,
    types_in_query: Annotated[list[DescribeImageType] | None, Depends(_types_in_query)],
    services: OpenServices,
    limiter: DescribeLimiter,
) -> DescribeImageResponse:
    """Says what a picture shows: a form with the picture as a file, or JSON with it as base64 or as an address.

    The call waits for the words; jobs go on meanwhile. A sentence is not the same every time.
    """
    body = await read_body(request, DescribeImageRequest, DescribeImageForm)
    types = types_in_query or body.image_type or [DescribeImageType.PHOTO]
    async with limiter:
        picture = await services.inputs.read_required(("body", "image"), body.image)
        contents = {CONTENT_OF[kind] for kind in types}
        text = await run_in_threadpool(services.describer.describe, picture, contents)
    return DescribeImageResponse(describe=text)
