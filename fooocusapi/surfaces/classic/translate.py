"""From the classic dialect to the common request, and from the core's refusals back to the dialect's fields.

No default is decided here: what was not said stays ``None`` until ``fooocus_core.resolve`` fills it in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fooocus_core.errors import InvalidRequest
from fooocus_core.metadata.record import DEFAULT_VAE
from fooocus_core.plan import Plan, Stage
from fooocus_core.request import AskedStart, GenerationRequest
from fooocusapi.errors import Location, RefusedField
from fooocusapi.images.inputs import holds_image
from fooocusapi.images.names import check_save_name
from fooocusapi.services import Resolver
from fooocusapi.surfaces import meanings
from fooocusapi.surfaces.classic.schemas import (
    AdvancedParams,
    CommonRequest,
    ImgUpscaleOrVaryRequestJson,
)
from fooocusapi.surfaces.fields import UpscaleOrVaryMethod
from fooocusapi.surfaces.lenient import default_of

SURFACE = "classic"

FIELD_OF: Mapping[str, Location] = {
    **{
        field: ("advanced_params", name) if name in AdvancedParams.model_fields else (name,)
        for field, name in (*((name, name) for name in AdvancedParams.model_fields), *meanings.FIELD_OF.items())
    },
    "start": ("input_image",),
    "start_factor": ("upscale_value",),
    "image_format": ("save_extension",),
    "save_metadata": ("save_meta",),
    "metadata_scheme": ("meta_scheme",),
}
"""The core's names of fields in the words of this dialect; the others are called the same."""


@dataclass(frozen=True)
class NotYet:
    """A field that would change the picture if this release could do what it asks for."""

    field: Location
    feature: str
    is_asked: Callable[[CommonRequest], bool]


NOT_YET: tuple[NotYet, ...] = (
    NotYet(
        ("advanced_params", "black_out_nsfw"), "the safety checker", lambda body: body.advanced_params.black_out_nsfw
    ),
    NotYet(("image_prompts",), "the image prompt", lambda body: _holds_image(body.image_prompts)),
)
"""What a later release brings. Refused rather than ignored, so that nobody takes the picture for the one asked for."""


def to_plan(body: CommonRequest, resolve: Resolver, *, one_image: bool, start: AskedStart | None = None) -> Plan:
    """What will run. ``one_image``: the answer has room for one picture only. May look at the disk.

    ``start``: the picture that came with the request.

    Raises ``RefusedField`` naming the field that cannot be run, in this dialect's words.
    """
    _refuse_not_yet(body)
    try:
        return resolve(replace(to_request(body, one_image=one_image), start=start))
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


def to_start(body: ImgUpscaleOrVaryRequestJson, picture: str, width_px: int, height_px: int) -> AskedStart | None:
    """What is to be done with the picture kept as ``picture``; nothing where the method is switched off."""
    if body.uov_method is UpscaleOrVaryMethod.DISABLED:
        return None
    return AskedStart(picture, width_px, height_px, body.uov_method.value, body.upscale_value)


def to_context(body: CommonRequest, plan: Plan) -> dict[str, Any]:
    """What the answers and the history of this dialect need beside the plan, in JSON values."""
    return {
        "require_base64": body.require_base64,
        "webhook_url": body.webhook_url,
        "params": _recorded_params(body, plan),
    }


def _refuse_not_yet(body: CommonRequest) -> None:
    for later in NOT_YET:
        if later.is_asked(body):
            reason = f"{later.feature} is not available in this release yet; leave the field out"
            raise _refused(later.field, reason, body)


def _holds_image(entries: object) -> bool:
    """Whether any entry of an image prompt list has a usable image; placeholders count as none."""
    if not isinstance(entries, list):
        return False
    return any(holds_image(entry.get("cn_img")) for entry in entries if isinstance(entry, Mapping))


def _in_own_words(error: InvalidRequest, body: CommonRequest) -> RefusedField:
    if error.field in ("width_px", "height_px"):
        name = meanings.side_field(error.field, body.advanced_params)
        field = FIELD_OF.get(name, (name,))
        return _refused(field, f"{error.field.removesuffix('_px')} {error.reason}", body)
    return _refused(FIELD_OF.get(error.field, (error.field,)), error.reason, body)


def _refused(field: Location, reason: str, body: CommonRequest) -> RefusedField:
    sent: Any = body
    for part in field:
        sent = getattr(sent, str(part), None)
    return RefusedField(("body", *field), reason, value=sent, body=body.model_dump(exclude_unset=True))


def _recorded_params(body: CommonRequest, plan: Plan) -> dict[str, Any]:
    """The ``params`` of the durable history (contract section 11): what was asked, resolved, with neutral rest."""
    stage = plan.stages[0]
    return {
        "prompt": stage.prompts.prompt,
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
        "image_prompts": [[0.5, 0.6, "ImagePrompt"]] * 4,
        "inpaint_additional_prompt": "",
        "outpaint_selections": [],
        "outpaint_distance_left": 0,
        "outpaint_distance_right": 0,
        "outpaint_distance_top": 0,
        "outpaint_distance_bottom": 0,
        "uov_method": "Disabled" if stage.start is None else stage.start.method,
        "upscale_value": None if stage.start is None else stage.start.factor,
        "webhook_url": None,
        "require_base64": body.require_base64,
        "async_process": None,
    }


def _recorded_controls(body: CommonRequest, stage: Stage) -> dict[str, Any]:
    """All finer controls: what will run, else what was said, else what is published as the default."""
    return {
        **{name: default_of(field) for name, field in AdvancedParams.model_fields.items()},
        **body.advanced_params.model_dump(mode="json", exclude_none=True),
        "adm_scaler_positive": stage.guidance.adm_positive,
        "adm_scaler_negative": stage.guidance.adm_negative,
        "adm_scaler_end": stage.guidance.adm_end,
        "adaptive_cfg": stage.guidance.adaptive_scale,
        "clip_skip": stage.models.clip_skip,
        "sampler_name": stage.sampling.sampler,
        "scheduler_name": stage.sampling.scheduler,
        "vae_name": stage.models.vae or DEFAULT_VAE,
        "refiner_swap_method": stage.refiner_swap,
        "overwrite_switch": stage.overwrite_switch or -1,
    }
