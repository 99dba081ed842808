"""What the published document says of the answers of all dialects, beside their own."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from fooocusapi.surfaces.fields import FieldError


class ValidationAnswer(BaseModel):
    """What a request with wrong fields is answered with."""

    detail: list[FieldError] = Field(description="Every field that was not taken.")
    body: Any = Field(default=None, description="The request as it was understood; long texts are shortened.")


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
