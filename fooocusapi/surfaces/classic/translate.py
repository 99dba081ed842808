"""From the classic dialect to the common request, and from the core's refusals back to the dialect's fields.

No default is decided here: what was not said stays ``None`` until ``fooocus_core.resolve`` fills it in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from fooocus_core.errors import InvalidRequest
from fooocus_core.plan import Diffuse, Plan
from fooocus_core.request import (
    AskedDetail,
    AskedGuide,
    AskedGuides,
    AskedRepaint,
    AskedStart,
    GenerationRequest,
)
from fooocus_core.resolve import MAX_GUIDES
from fooocusapi.errors import Location, RefusedField
from fooocusapi.images.names import check_save_name
from fooocusapi.images.repaints import SentRepaint, to_repaint
from fooocusapi.services import Resolver
from fooocusapi.surfaces import enhancements, meanings
from fooocusapi.surfaces.classic.enhance_bodies import ENHANCE_IMAGE, ImageEnhanceRequestJson
from fooocusapi.surfaces.classic.picture_bodies import (
    INPUT_IMAGE,
    INPUT_MASK,
    ImgInpaintOrOutpaintBody,
    ImgUpscaleOrVaryBody,
    PictureBody,
    Slot,
    distance_field,
)
from fooocusapi.surfaces.classic.schemas import AdvancedParams, CommonRequest
from fooocusapi.surfaces.fields import OutpaintExpansion, UpscaleOrVaryMethod
from fooocusapi.surfaces.lenient import default_of
from fooocusapi.surfaces.recorded import recorded_controls

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Keep = Callable[[NDArray[np.uint8]], str]

SURFACE = "classic"

WHOLE_PICTURE: Final = 1.0
"""The respective field of this dialect where a request says nothing."""

FIELD_OF: Mapping[str, Location] = {
    **{
        field: ("advanced_params", name) if name in AdvancedParams.model_fields else (name,)
        for field, name in (*((name, name) for name in AdvancedParams.model_fields), *meanings.FIELD_OF.items())
    },
    "start": ("input_image",),
    "repaint": ("input_image",),
    "start_factor": ("upscale_value",),
    "detail.picture": ("enhance_input_image",),
    "detail.method": ("enhance_uov_method",),
    "image_format": ("save_extension",),
    "save_metadata": ("save_meta",),
    "metadata_scheme": ("meta_scheme",),
}
"""The core's names of fields in the words of this dialect; the others are called the same."""


@dataclass(frozen=True)
class Given:
    """What the pictures of a request ask for, in the common words."""

    start: AskedStart | None = None
    repaint: AskedRepaint | None = None
    guides: AskedGuides | None = None
    detail: AskedDetail | None = None


NO_PICTURES: Final = Given()


def to_plan(body: CommonRequest, resolve: Resolver, *, one_image: bool, given: Given = NO_PICTURES) -> Plan:
    """What will run. ``one_image``: the answer has room for one picture only. May look at the disk.

    Raises ``RefusedField`` naming the field that cannot be run, in this dialect's words.
    """
    try:
        request = to_request(body, one_image=one_image)
        request = replace(request, start=given.start, repaint=given.repaint, guides=given.guides, detail=given.detail)
        return resolve(request)
    except InvalidRequest as error:
        raise _in_own_words(error, body) from error


def to_request(body: CommonRequest, *, one_image: bool = False) -> GenerationRequest:
    """What was asked, in the common words. Raises ``InvalidRequest`` for a size or a name that cannot be read."""
    request = replace(
        meanings.to_common_request(body, body.advanced_params),
        image_format=meanings.image_format(body.save_extension),
        save_metadata=body.save_meta,
        metadata_scheme=meanings.metadata_scheme(body.meta_scheme),
        save_name=check_save_name(body.save_name or ""),
    )
    return replace(request, image_number=1) if one_image else request


def to_given(body: PictureBody, pictures: Mapping[Location, NDArray[np.uint8]], keep: Keep) -> Given:
    """What a body asks for with its ``pictures``, which lie by their places; those that take part are kept.

    Takes its time: not on the event loop. Raises ``RefusedField`` for an enhancement of nothing.
    """
    return Given(
        start=_start(body, pictures, keep) if isinstance(body, ImgUpscaleOrVaryBody) else None,
        repaint=_repaint(body, pictures, keep) if isinstance(body, ImgInpaintOrOutpaintBody) else None,
        guides=meanings.guided(
            [_guide(slot, keep(pictures[slot.loc])) for slot in body.used_slots()], body.advanced_params
        ),
        detail=_detail(body, pictures, keep) if isinstance(body, ImageEnhanceRequestJson) else None,
    )


def _start(body: ImgUpscaleOrVaryBody, pictures: Mapping[Location, NDArray[np.uint8]], keep: Keep) -> AskedStart | None:
    """Nothing where the method is switched off."""
    if body.uov_method is UpscaleOrVaryMethod.DISABLED:
        return None
    picture = pictures[INPUT_IMAGE]
    height_px, width_px = picture.shape[:2]
    return AskedStart(keep(picture), width_px, height_px, body.uov_method.value, body.upscale_value)


def _repaint(
    body: ImgInpaintOrOutpaintBody, pictures: Mapping[Location, NDArray[np.uint8]], keep: Keep
) -> AskedRepaint | None:
    """Nothing without a picture, and where nothing of it is to be painted anew."""
    if INPUT_IMAGE not in pictures:
        return None
    advanced = body.advanced_params
    sent = SentRepaint(
        picture=pictures[INPUT_IMAGE],
        mask=pictures.get(INPUT_MASK) if advanced.inpaint_advanced_masking_checkbox else None,
        sides=tuple((meanings.side_of(side), distance) for side, distance in body.sides().items()),
        erode_or_dilate=advanced.inpaint_erode_or_dilate or 0,
        invert=advanced.invert_mask_checkbox,
    )
    repaint = to_repaint(sent, keep)
    if repaint is None:
        return None
    repaint = meanings.repainted(repaint, advanced, body.inpaint_additional_prompt)
    return repaint if repaint.respective_field is not None else replace(repaint, respective_field=WHOLE_PICTURE)


def _detail(body: ImageEnhanceRequestJson, pictures: Mapping[Location, NDArray[np.uint8]], keep: Keep) -> AskedDetail:
    """Of the picture there must be; of its steps only the last one's is kept."""
    if not enhancements.enhances_something(body):
        raise _refused(("enhance_uov_method",), "nothing to enhance: it is Disabled, and so are all controllers", body)
    detail = enhancements.detailed(body, body.advanced_params, only_last=True)
    picture = pictures[ENHANCE_IMAGE]
    return enhancements.of_picture(detail, picture, keep(picture))


def _guide(slot: Slot, picture: str) -> AskedGuide:
    """0 is what clients send for the kind's default."""
    return AskedGuide(picture, slot.kind.value, slot.stop or None, slot.weight or None)


def to_context(body: CommonRequest, plan: Plan) -> dict[str, Any]:
    """What the answers and the history of this dialect need beside the plan, in JSON values."""
    return {
        "require_base64": body.require_base64,
        "webhook_url": body.webhook_url,
        "params": _recorded_params(body, plan),
    }


def _in_own_words(error: InvalidRequest, body: CommonRequest) -> RefusedField:
    if error.field in ("width_px", "height_px"):
        name = meanings.side_field(error.field, body.advanced_params)
        field = FIELD_OF.get(name, (name,))
        return _refused(field, f"{error.field.removesuffix('_px')} {error.reason}", body)
    if isinstance(body, ImageEnhanceRequestJson) and (place := enhancements.place_of(error.field, body)) is not None:
        return _refused(place, error.reason, body)
    if error.field == "outpaint" and isinstance(body, ImgInpaintOrOutpaintBody):
        return _refused((_widest_side(body),), error.reason, body)
    return _refused(FIELD_OF.get(error.field, (error.field,)), error.reason, body)


def _refused(field: Location, reason: str, body: CommonRequest) -> RefusedField:
    sent: Any = body
    for part in field:
        sent = getattr(sent, str(part), None)
    return RefusedField(("body", *field), reason, value=sent, body=body.model_dump(exclude_unset=True))


def _widest_side(body: ImgInpaintOrOutpaintBody) -> str:
    """Which field makes the picture grow most: a distance, or the list of sides where no distance was asked for."""
    asked = {distance_field(side): distance or 0 for side, distance in body.sides().items()}
    widest = max(asked, key=asked.__getitem__)
    return widest if asked[widest] > 0 else "outpaint_selections"


def _recorded_params(body: CommonRequest, plan: Plan) -> dict[str, Any]:
    """The ``params`` of the durable history (contract section 11): what was asked, resolved, with neutral rest."""
    stage = plan.main
    additional_prompt = _additional_prompt(body) if stage.repaint is not None else ""
    return {
        "prompt": stage.prompts.prompt.removeprefix(additional_prompt).removeprefix("\n" if additional_prompt else ""),
        "negative_prompt": stage.prompts.negative_prompt,
        "style_selections": list(stage.prompts.styles),
        "performance_selection": stage.performance,
        "aspect_ratios_selection": f"{stage.width_px}*{stage.height_px}",
        "base_model_name": stage.models.checkpoint,
        "refiner_model_name": stage.models.refiner or "None",
        "refiner_switch": stage.refiner_switch,
        "loras": [[True, lora.name, lora.weight] for lora in stage.models.loras],
        "image_number": stage.image_number,
        "image_seed": stage.seed,
        "sharpness": stage.guidance.sharpness,
        "guidance_scale": stage.guidance.scale,
        "advanced_params": _recorded_controls(body, stage),
        "input_image": None,
        "input_mask": None,
        "image_prompts": _recorded_prompts(stage),
        # Without an inpainting nobody has looked how long it is.
        "inpaint_additional_prompt": additional_prompt,
        **_recorded_sides(stage),
        "uov_method": "Disabled" if stage.start is None else stage.start.method,
        "upscale_value": None if stage.start is None else stage.start.factor,
        "webhook_url": None,
        "require_base64": body.require_base64,
        "async_process": None,
        **(_recorded_enhancement(body) if isinstance(body, ImageEnhanceRequestJson) else {}),
    }


def _recorded_enhancement(body: ImageEnhanceRequestJson) -> dict[str, Any]:
    """What the contract has no words for: an enhancement as it was asked for."""
    return {
        "enhance_input_image": None,
        "enhance_uov_method": body.enhance_uov_method.value,
        "enhance_uov_processing_order": body.enhance_uov_processing_order.value,
        "enhance_uov_prompt_type": body.enhance_uov_prompt_type.value,
        "enhance_ctrlnets": [enhancements.told(controller.step) for controller in body.controllers()],
    }


def _additional_prompt(body: CommonRequest) -> str:
    return body.inpaint_additional_prompt or "" if isinstance(body, ImgInpaintOrOutpaintBody) else ""


def _recorded_prompts(stage: Diffuse) -> list[list[Any]]:
    """Stop, weight and kind of every slot; those without a picture have the defaults."""
    guides = stage.guides.pictures if stage.guides is not None else ()
    used = [[guide.stop, guide.weight, guide.kind] for guide in guides]
    return used + [[0.5, 0.6, "ImagePrompt"]] * (MAX_GUIDES - len(used))


def _recorded_sides(stage: Diffuse) -> dict[str, Any]:
    grown = dict(stage.repaint.outpaint) if stage.repaint is not None else {}
    distances = {distance_field(side): grown.get(meanings.side_of(side), 0) for side in OutpaintExpansion}
    return {"outpaint_selections": [side.capitalize() for side in grown], **distances}


def _recorded_controls(body: CommonRequest, stage: Diffuse) -> dict[str, Any]:
    """All finer controls: what will run, else what was said, else what is published as the default."""
    return {
        **{name: default_of(field) for name, field in AdvancedParams.model_fields.items()},
        **body.advanced_params.model_dump(mode="json", exclude_none=True),
        **recorded_controls(stage),
    }
