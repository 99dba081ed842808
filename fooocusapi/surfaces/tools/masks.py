"""``generate_mask``, alike in both generation dialects: what stands out in a picture, within the request.

Contracts: ``fooocus-api.md`` sections 5 and 14, ``engine-generate.md`` section 14.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from fastapi import APIRouter, Security
from pydantic import Field

from fooocus_core.errors import InvalidRequest
from fooocus_core.masks.options import MAX_DETECTIONS, MAX_GROWTH_PX, MaskOptions
from fooocusapi.bodies import LenientRoute
from fooocusapi.dependencies import MaskLimiter, OpenServices
from fooocusapi.errors import RefusedField
from fooocusapi.security import api_key_scheme
from fooocusapi.surfaces.fields import MAX_DETECTION_PROMPT_CHARS, ClothCategory, MaskModel, PictureText, SamModel
from fooocusapi.surfaces.lenient import LenientModel, Text
from fooocusapi.surfaces.published import EVERYWHERE, INVALID, TOO_LARGE, Responses
from fooocusapi.threads import run_in_threadpool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

router = APIRouter(route_class=LenientRoute, dependencies=[Security(api_key_scheme)], responses=EVERYWHERE)


class GenerateMaskRequest(LenientModel):
    """A picture, and what of it shall be masked."""

    misspellings: ClassVar[Mapping[str, str]] = {"input_image": "image", "model": "mask_model"}

    image: PictureText = Field(
        description="The picture: base64 with or without `data:image/...;base64,`, or an address.",
        examples=["http://127.0.0.1:8888/files/2025-02-23/764af3ec-f0f7-45c6-9951-722e24c67134-0.png"],
    )
    mask_model: MaskModel = Field(
        default=MaskModel.ISNET_GENERAL_USE,
        description="The network. `sam` finds what `dino_prompt_text` names, all others what stands out. `u2netp` "
        "needs no file, all others the one of their name.",
        examples=["u2netp"],
    )
    cloth_category: ClothCategory = Field(
        default=ClothCategory.FULL, description="Which clothes `u2net_cloth_seg` finds.", examples=["upper"]
    )
    dino_prompt_text: Text = Field(
        default="",
        description="For `sam`: what to look for, several things with full stops between.",
        examples=["face"],
        max_length=MAX_DETECTION_PROMPT_CHARS,
    )
    sam_model: SamModel = Field(
        default=SamModel.VIT_B, description="For `sam`: size of the network that cuts out.", examples=["vit_b"]
    )
    box_threshold: float = Field(
        default=0.3, ge=0, le=1, description="For `sam`: how sure a place must be, 0 to 1.", examples=[0.3]
    )
    text_threshold: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="For `sam`: from where a word counts as found, 0 to 1; does not change the mask.",
        examples=[0.25],
    )
    sam_max_detections: int = Field(
        default=0, ge=0, le=MAX_DETECTIONS, description="For `sam`: how many places count; 0: all.", examples=[1]
    )
    dino_erode_or_dilate: float = Field(
        default=0,
        ge=-MAX_GROWTH_PX,
        le=MAX_GROWTH_PX,
        description="For `sam`: pixels by which the found boxes grow, or shrink where negative, -64 to 64.",
        examples=[0],
    )
    dino_debug: bool = Field(
        default=False, description="For `sam`: the boxes themselves in place of what is in them.", examples=[False]
    )

    def to_options(self) -> MaskOptions:
        """What is asked of the core. Raises ``RefusedField``."""
        try:
            return MaskOptions(
                model=self.mask_model.value,
                cloth_category=self.cloth_category.value,
                detection_prompt=self.dino_prompt_text,
                sam_model=self.sam_model.value,
                box_threshold=self.box_threshold,
                text_threshold=self.text_threshold,
                max_detections=self.sam_max_detections,
                dino_erode_or_dilate=self.dino_erode_or_dilate,
                dino_debug=self.dino_debug,
            )
        except InvalidRequest as error:  # all other fields are checked by now
            raise RefusedField(("body", "dino_prompt_text"), error.reason, value=self.dino_prompt_text) from error


_MISSING: Final[Responses] = {
    503: {
        "description": "A file of the network is not on disk, or the server could not start, or it ends.",
        "content": {
            "application/json": {
                "example": {
                    "detail": "inpaint: no file named 'silueta.onnx', needed for masks by silueta (u2netp needs no "
                    "file); it is published at https://github.com/danielgatis/rembg/releases/download/v0.0.0/"
                    "silueta.onnx and fetched by: main.py download silueta.onnx"
                }
            }
        },
    }
}


@router.post(
    "/v1/tools/generate_mask",
    operation_id="generate_mask_v1_tools_generate_mask_post",
    summary="Generate Mask",
    tags=["GenerateV1"],
    response_model=str,
    response_description="The mask as base64 of a PNG of the picture's size: white is what was found.",
    responses={**INVALID, **TOO_LARGE, **_MISSING},
)
async def generate_mask(body: GenerateMaskRequest, services: OpenServices, limiter: MaskLimiter) -> str:
    """Masks what stands out in a picture, what is worn in it, or what a text names.

    The call waits for the mask; jobs go on meanwhile.
    """
    options = body.to_options()
    async with limiter:
        picture = await services.inputs.read_required(("body", "image"), body.image)
        return await run_in_threadpool(lambda: _as_text(services.masks.make(picture, options)))


def _as_text(mask: NDArray[np.uint8]) -> str:
    """``[h, w]`` or ``[h, w, 3]`` as base64 of a PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
