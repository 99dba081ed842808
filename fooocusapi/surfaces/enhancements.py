"""Enhancing, as all dialects ask for it: what is found in a picture and painted anew (specification 07, section 1).

Contracts: ``fooocus-api.md`` sections 5 and 7.6, ``engine-generate.md`` sections 3 and 16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from pydantic import Field

from fooocus_core.request import AskedDetail, AskedPass
from fooocusapi.errors import Location
from fooocusapi.surfaces import meanings
from fooocusapi.surfaces.fields import (
    MAX_DETECTION_PROMPT_CHARS,
    MAX_NAME_CHARS,
    ClothCategory,
    FinerControls,
    MaskModel,
    SamModel,
    UpscaleOrVaryMethod,
)
from fooocusapi.surfaces.lenient import LenientEnum, LenientModel, Text, asked, default_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_CONTROLLERS: Final = 3
"""Controllers of an enhancement that count."""
DETECTION_PROMPT: Final = "enhance_mask_dino_prompt"

_FIELD_OF: Mapping[str, str] = {
    "detection_prompt": DETECTION_PROMPT,
    "prompt": "enhance_prompt",
    "negative_prompt": "enhance_negative_prompt",
    "strength": "enhance_inpaint_strength",
}
"""Where the core may refuse what the schema took, by the core's names."""


class ProcessingOrder(LenientEnum):
    """When an enhancement varies or enlarges."""

    BEFORE = "Before First Enhancement"
    AFTER = "After Last Enhancement"


class PromptType(LenientEnum):
    """Which prompts a variation or an upscale after the last controller has."""

    ORIGINAL = "Original Prompts"
    LAST_FILLED = "Last Filled Enhancement Prompts"


class EnhanceCtrlNets(LenientModel):
    """One step of an enhancement: what is found, and how it is repainted."""

    keeps_empty: ClassVar[frozenset[str]] = frozenset({DETECTION_PROMPT})

    enhance_enabled: bool = Field(default=False, description="Whether it takes part.", examples=[True])
    enhance_mask_dino_prompt: Text = Field(
        default="",
        description="What `sam` looks for, several things with full stops between; it needs a word.",
        examples=["face"],
        max_length=MAX_DETECTION_PROMPT_CHARS,
    )
    enhance_prompt: Text = Field(
        default="", description="What is painted there; empty: the request's prompt.", examples=["a smiling face"]
    )
    enhance_negative_prompt: Text = Field(
        default="", description="What is not; empty: the request's.", examples=["blurry"]
    )
    enhance_mask_model: MaskModel = Field(
        default=MaskModel.SAM,
        description="The network that finds it: `sam` what is named, all others what stands out. `u2netp` needs no "
        "file, all others the one of their name.",
        examples=["u2netp"],
    )
    enhance_mask_cloth_category: ClothCategory = Field(
        default=ClothCategory.FULL, description="Which clothes `u2net_cloth_seg` finds.", examples=["upper"]
    )
    enhance_mask_sam_model: SamModel = Field(
        default=SamModel.VIT_B, description="Size of the segmenting network.", examples=["vit_b"]
    )
    enhance_mask_text_threshold: float = Field(
        default=0.25, description="How sure the detector is of a word, 0 to 1.", examples=[0.25], ge=0, le=1
    )
    enhance_mask_box_threshold: float = Field(
        default=0.3, description="How sure the detector is of a place, 0 to 1.", examples=[0.3], ge=0, le=1
    )
    enhance_mask_sam_max_detections: int = Field(
        default=0, description="How many places count, up to 10; 0: all.", examples=[1], ge=0, le=10
    )
    enhance_inpaint_disable_initial_latent: bool = Field(
        default=False, description="Start from nothing but noise.", examples=[False]
    )
    enhance_inpaint_engine: Text | None = asked(
        "v2.6", "Inpainting patch: None, v1, v2.5 or v2.6; anything else means v2.6.", max_length=MAX_NAME_CHARS
    )
    enhance_inpaint_strength: float = Field(
        default=1.0, description="How much may change, 0 to 1.", examples=[0.5], ge=0, le=1
    )
    enhance_inpaint_respective_field: float = Field(
        default=0.618, description="How much around it is seen, 0 to 1.", examples=[0.0], ge=0, le=1
    )
    enhance_inpaint_erode_or_dilate: float = Field(
        default=0, description="Pixels by which the mask grows, or shrinks below 0.", examples=[0], ge=-64, le=64
    )
    enhance_mask_invert: bool = Field(default=False, description="Swap black and white of the mask.", examples=[False])


@dataclass(frozen=True)
class Controller:
    """A step of an enhancement that takes part. ``place``: where its field of a name stands below the body."""

    step: EnhanceCtrlNets
    place: Callable[[str], Location]


class Enhancement(Protocol):
    """What the bodies of all dialects have."""

    @property
    def enhance_uov_method(self) -> UpscaleOrVaryMethod:
        """A variation or an upscale beside the controllers."""
        ...

    @property
    def enhance_uov_processing_order(self) -> ProcessingOrder:
        """When that is done."""
        ...

    @property
    def enhance_uov_prompt_type(self) -> PromptType:
        """Whose prompts it has."""
        ...

    def controllers(self) -> Sequence[Controller]:
        """The steps that take part, at most ``MAX_CONTROLLERS``."""
        ...


def enhances_something(body: Enhancement) -> bool:
    """Whether there is anything to be done with a picture."""
    return bool(body.controllers()) or body.enhance_uov_method is not UpscaleOrVaryMethod.DISABLED


def detailed(body: Enhancement, controls: FinerControls, *, only_last: bool) -> AskedDetail:
    """The enhancement with what the finer controls say about it, of the pictures that the request makes."""
    is_varied = body.enhance_uov_method is not UpscaleOrVaryMethod.DISABLED
    return AskedDetail(
        passes=tuple(_pass(controller.step) for controller in body.controllers()),
        method=body.enhance_uov_method.value if is_varied else None,
        comes_last=body.enhance_uov_processing_order is ProcessingOrder.AFTER,
        uses_last_prompts=body.enhance_uov_prompt_type is PromptType.LAST_FILLED,
        show_boxes=controls.debugging_dino,
        grow_boxes_px=controls.dino_erode_or_dilate or 0,
        show_masks=controls.debugging_enhance_masks_checkbox,
        only_last=only_last,
    )


def of_picture(detail: AskedDetail, pixels: NDArray[np.uint8], name: str) -> AskedDetail:
    """``detail`` of a picture that was sent and is kept under ``name``."""
    height_px, width_px = pixels.shape[:2]
    return replace(detail, picture=name, width_px=width_px, height_px=height_px)


def told(step: EnhanceCtrlNets) -> dict[str, Any]:
    """A step in JSON values, complete: what was said, else what is published as the default."""
    said = step.model_dump(mode="json")
    return {
        name: default_of(field) if said[name] is None else said[name] for name, field in type(step).model_fields.items()
    }


def place_of(field: str, body: Enhancement) -> Location | None:
    """Where a field stands that the core names ``detail.passes.<i>.<name>``; ``None`` for all others."""
    match field.split("."):
        case ["detail", "passes", index, name]:
            return body.controllers()[int(index)].place(_FIELD_OF.get(name, name))
        case _:
            return None


def _pass(step: EnhanceCtrlNets) -> AskedPass:
    return AskedPass(
        prompt=step.enhance_prompt,
        negative_prompt=step.enhance_negative_prompt,
        mask_model=step.enhance_mask_model.value,
        cloth_category=step.enhance_mask_cloth_category.value,
        detection_prompt=step.enhance_mask_dino_prompt,
        sam_model=step.enhance_mask_sam_model.value,
        text_threshold=step.enhance_mask_text_threshold,
        box_threshold=step.enhance_mask_box_threshold,
        max_detections=step.enhance_mask_sam_max_detections,
        erode_or_dilate=step.enhance_inpaint_erode_or_dilate,
        invert=step.enhance_mask_invert,
        strength=step.enhance_inpaint_strength,
        respective_field=step.enhance_inpaint_respective_field,
        engine=meanings.inpaint_engine(step.enhance_inpaint_engine),
        use_initial_latent=not step.enhance_inpaint_disable_initial_latent,
    )
