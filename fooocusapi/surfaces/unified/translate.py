"""From the unified dialect to the common request, and from the core's refusals back to the dialect's fields.

No default is decided here: what was not said stays ``None`` until ``fooocus_core.resolve`` fills it in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fooocus_core.errors import InvalidRequest
from fooocus_core.images.methods import METHODS
from fooocus_core.plan import Plan
from fooocus_core.presets.preset import Preset
from fooocus_core.request import AskedDetail, AskedGuide, AskedGuides, AskedRepaint, AskedStart, GenerationRequest
from fooocusapi.errors import Location, RefusedField
from fooocusapi.images.names import check_save_name
from fooocusapi.images.repaints import SentRepaint, to_repaint
from fooocusapi.services import Resolver
from fooocusapi.surfaces import enhancements, meanings
from fooocusapi.surfaces.fields import UpscaleOrVaryMethod
from fooocusapi.surfaces.unified.defaults import without_defaults
from fooocusapi.surfaces.unified.schemas import (
    ENHANCE_IMAGE,
    INPAINT_IMAGE,
    INPAINT_MASK,
    UOV_IMAGE,
    GenerateRequest,
)
from fooocusapi.surfaces.unified.tabs import repaints, tab_of, varies_or_enlarges

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pictures = Mapping[Location, NDArray[np.uint8]]
    Keep = Callable[[NDArray[np.uint8]], str]

SURFACE = "unified"

FIELD_OF: Mapping[str, Location] = {
    **{field: (name,) for field, name in meanings.FIELD_OF.items()},
    "start": ("uov_input_image",),
    "start_factor": ("upscale_multiple",),
    "repaint": ("inpaint_input_image",),
    "detail.picture": ("enhance_input_image",),
    "detail.method": ("enhance_uov_method",),
    "image_format": ("output_format",),
    "save_metadata": ("save_metadata_to_images",),
}
"""The core's names of fields in the words of this dialect; the others are called the same."""


@dataclass(frozen=True)
class Presets:
    """The server's own defaults, and those that the request chose."""

    own: Preset
    chosen: Preset


def to_plan(
    body: GenerateRequest, pictures: Pictures, keep: Keep, resolve: Resolver, presets: Presets, *, one_image: bool
) -> Plan:
    """What will run; the ``pictures`` that take part are kept. ``one_image``: the answer has room for one only.

    Takes its time: not on the event loop. Raises ``RefusedField`` naming the field that cannot be run.
    """
    try:
        request = to_request(body, one_image=one_image)
        request = _with_pictures(request, body, pictures, keep)
        if presets.chosen != presets.own:
            request = without_defaults(request, presets.own)
        plan = resolve(request, presets.chosen)
    except InvalidRequest as error:
        raise _in_own_words(error, body) from error
    return replace(plan, output=replace(plan.output, dated_names=True))


def to_request(body: GenerateRequest, *, one_image: bool = False) -> GenerationRequest:
    """What was asked but for pictures, in the common words. Raises ``InvalidRequest`` for a size or a name."""
    request = replace(
        meanings.to_common_request(body, body),
        image_format=meanings.image_format(body.output_format),
        save_metadata=body.save_metadata_to_images,
        metadata_scheme=meanings.metadata_scheme(body.metadata_scheme),
        save_name=_save_name(body),
    )
    return replace(request, image_number=1) if one_image else request


def _with_pictures(
    request: GenerationRequest, body: GenerateRequest, pictures: Pictures, keep: Keep
) -> GenerationRequest:
    """A picture to be enhanced leaves nothing else to be painted.

    One to be repainted wins over one to be varied or enlarged, but a fast upscale ends before either.
    """
    tab = tab_of(body, pictures)
    request = replace(request, detail=_detail(body, pictures, keep))
    if ENHANCE_IMAGE in pictures:
        return request
    start = _start(body, pictures, keep) if varies_or_enlarges(body, tab) else None
    repaint = _repaint(body, pictures, keep) if repaints(body, tab) else None
    if start is not None and repaint is not None:
        start, repaint = (start, None) if METHODS[start.method].fast else (None, repaint)
    return replace(request, start=start, repaint=repaint, guides=_guides(body, pictures, keep))


def _start(body: GenerateRequest, pictures: Pictures, keep: Keep) -> AskedStart | None:
    """Nothing without a picture, and where the method is switched off."""
    if UOV_IMAGE not in pictures or body.uov_method is UpscaleOrVaryMethod.DISABLED:
        return None
    picture = pictures[UOV_IMAGE]
    height_px, width_px = picture.shape[:2]
    return AskedStart(keep(picture), width_px, height_px, body.uov_method.value, body.upscale_multiple)


def _repaint(body: GenerateRequest, pictures: Pictures, keep: Keep) -> AskedRepaint | None:
    """Nothing without a picture, and where nothing of it is to be painted anew. Masks are never inverted here."""
    if INPAINT_IMAGE not in pictures:
        return None
    sent = SentRepaint(
        picture=pictures[INPAINT_IMAGE],
        mask=pictures.get(INPAINT_MASK),
        sides=tuple((meanings.side_of(side), distance) for side, distance in body.sides().items()),
        erode_or_dilate=body.inpaint_erode_or_dilate or 0,
    )
    repaint = to_repaint(sent, keep)
    return None if repaint is None else meanings.repainted(repaint, body, additional_prompt(body))


def _guides(body: GenerateRequest, pictures: Pictures, keep: Keep) -> AskedGuides | None:
    """The image prompts that have a picture; with one of them, the tab is theirs."""
    guides = [
        AskedGuide(keep(pictures[loc]), prompt.cn_type.value, prompt.cn_stop, prompt.cn_weight)
        for loc, prompt in body.guides()
        if loc in pictures
    ]
    return meanings.guided(guides, body)


def _detail(body: GenerateRequest, pictures: Pictures, keep: Keep) -> AskedDetail | None:
    """Of the picture that was sent, with which nothing happens unless it is switched on; else of those to be made."""
    is_asked = body.enhance_checkbox and enhancements.enhances_something(body)
    detail = enhancements.detailed(body, body, only_last=body.save_final_enhanced_image_only) if is_asked else None
    if ENHANCE_IMAGE not in pictures:
        return detail
    picture = pictures[ENHANCE_IMAGE]
    return enhancements.of_picture(detail or AskedDetail(), picture, keep(picture))


def additional_prompt(body: GenerateRequest) -> str:
    """What stands before the prompt of an inpainting; the text ``None`` is an older default."""
    text = body.inpaint_additional_prompt or ""
    return "" if text.strip() == "None" else text


def _save_name(body: GenerateRequest) -> str:
    """Raises ``InvalidRequest``: here a name has no folders."""
    name = check_save_name(body.save_name or "")
    if "/" in name:
        raise InvalidRequest("save_name", "must not contain '/'")
    return name


def _in_own_words(error: InvalidRequest, body: GenerateRequest) -> RefusedField:
    if error.field in ("width_px", "height_px"):
        side = error.field.removesuffix("_px")
        return _refused((meanings.side_field(error.field, body),), f"{side} {error.reason}", body)
    if (place := enhancements.place_of(error.field, body)) is not None:
        return _refused(place, error.reason, body)
    if error.field == "outpaint":
        is_asked = any(distance > 0 for distance in body.sides().values())
        return _refused(("outpaint_distance" if is_asked else "outpaint_selections",), error.reason, body)
    return _refused(FIELD_OF.get(error.field, (error.field,)), error.reason, body)


def _refused(field: Location, reason: str, body: GenerateRequest) -> RefusedField:
    sent: Any = getattr(body, str(field[0]), None)
    return RefusedField(("body", *field), reason, value=sent, body=body.model_dump(exclude_unset=True))
