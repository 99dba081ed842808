"""From the classic dialect to the common request, and from the core's refusals back to the dialect's fields.

No default is decided here: what was not said stays ``None`` until ``fooocus_core.resolve`` fills it in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from fooocus_core.errors import InvalidRequest
from fooocus_core.metadata.record import DEFAULT_VAE
from fooocus_core.plan import FreeU, ImageFormat, Lora, MetadataScheme, Performance, Plan, Stage, SwapMethod
from fooocus_core.presets.sizes import Size, parse_size
from fooocus_core.request import AskedStart, GenerationRequest
from fooocusapi.errors import Location, RefusedField
from fooocusapi.images.inputs import holds_image
from fooocusapi.images.names import check_save_name
from fooocusapi.services import Resolver
from fooocusapi.surfaces.classic.schemas import (
    AdvancedParams,
    CommonRequest,
    ImgUpscaleOrVaryRequestJson,
    UpscaleOrVaryMethod,
)
from fooocusapi.surfaces.lenient import LenientEnum, default_of

SURFACE = "classic"

SECOND_NAMES = {"a111": "a1111"}
"""Metadata schemes that the guides spell in their own way."""

FIELD_OF: Mapping[str, Location] = {
    "styles": ("style_selections",),
    "performance": ("performance_selection",),
    "width_px, height_px": ("aspect_ratios_selection",),
    "seed": ("image_seed",),
    "checkpoint": ("base_model_name",),
    "refiner": ("refiner_model_name",),
    "vae": ("advanced_params", "vae_name"),
    "clip_skip": ("advanced_params", "clip_skip"),
    "adaptive_scale": ("advanced_params", "adaptive_cfg"),
    "adm_positive": ("advanced_params", "adm_scaler_positive"),
    "adm_negative": ("advanced_params", "adm_scaler_negative"),
    "adm_end": ("advanced_params", "adm_scaler_end"),
    "sampler": ("advanced_params", "sampler_name"),
    "scheduler": ("advanced_params", "scheduler_name"),
    "overwrite_steps": ("advanced_params", "overwrite_step"),
    "overwrite_switch": ("advanced_params", "overwrite_switch"),
    "refiner_swap": ("advanced_params", "refiner_swap_method"),
    "start": ("input_image",),
    "start_method": ("uov_method",),
    "start_factor": ("upscale_value",),
    "overwrite_vary_strength": ("advanced_params", "overwrite_vary_strength"),
    "overwrite_upscale_strength": ("advanced_params", "overwrite_upscale_strength"),
    **{f"freeu_{factor}": ("advanced_params", f"freeu_{factor}") for factor in ("b1", "b2", "s1", "s2")},
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
    advanced = body.advanced_params
    size = _size(body)
    return GenerationRequest(
        prompt=body.prompt,
        negative_prompt=body.negative_prompt,
        styles=None if body.style_selections is None else tuple(body.style_selections),
        performance=cast("Performance | None", _value(body.performance_selection)),
        width_px=_positive(advanced.overwrite_width) or (size.width_px if size else None),
        height_px=_positive(advanced.overwrite_height) or (size.height_px if size else None),
        image_number=1 if one_image else body.image_number,
        seed=body.image_seed,
        seed_increment=not advanced.disable_seed_increment,
        checkpoint=_file_name(body.base_model_name),
        refiner=_file_name(body.refiner_model_name),
        refiner_switch=body.refiner_switch,
        refiner_swap=_swap_method(advanced),
        overwrite_switch=advanced.overwrite_switch,
        freeu=_freeu(advanced),
        vae=_file_name(advanced.vae_name),
        loras=_loras(body),
        clip_skip=advanced.clip_skip,
        guidance_scale=body.guidance_scale,
        sharpness=body.sharpness,
        adaptive_scale=advanced.adaptive_cfg,
        adm_positive=advanced.adm_scaler_positive,
        adm_negative=advanced.adm_scaler_negative,
        adm_end=advanced.adm_scaler_end,
        sampler=_choice(advanced.sampler_name),
        scheduler=_choice(advanced.scheduler_name),
        overwrite_steps=advanced.overwrite_step,
        overwrite_vary_strength=advanced.overwrite_vary_strength,
        overwrite_upscale_strength=advanced.overwrite_upscale_strength,
        read_wildcards_in_order=body.read_wildcards_in_order,
        image_format=cast("ImageFormat | None", _value(body.save_extension)),
        save_metadata=body.save_meta,
        metadata_scheme=_metadata_scheme(body),
        save_name=check_save_name(body.save_name or ""),
        preview=not advanced.disable_preview,
    )


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
        return _refused(_size_field(error.field, body), f"{error.field.removesuffix('_px')} {error.reason}", body)
    return _refused(FIELD_OF.get(error.field, (error.field,)), error.reason, body)


def _refused(field: Location, reason: str, body: CommonRequest) -> RefusedField:
    sent: Any = body
    for part in field:
        sent = getattr(sent, str(part), None)
    return RefusedField(("body", *field), reason, value=sent, body=body.model_dump(exclude_unset=True))


def _size_field(side: str, body: CommonRequest) -> Location:
    """Which field the side came from: the override wins over the aspect ratio."""
    name = f"overwrite_{side.removesuffix('_px')}"
    return ("advanced_params", name) if _positive(getattr(body.advanced_params, name)) else ("aspect_ratios_selection",)


def _size(body: CommonRequest) -> Size | None:
    text = body.aspect_ratios_selection
    return None if text is None else parse_size(text, "aspect_ratios_selection")


def _loras(body: CommonRequest) -> tuple[Lora, ...] | None:
    """Slot for slot: an empty one keeps its place, because only the first few places count."""
    if body.loras is None:
        return None
    return tuple(
        Lora((_file_name(lora.model_name) or "None") if lora.enabled else "None", lora.weight) for lora in body.loras
    )


def _metadata_scheme(body: CommonRequest) -> MetadataScheme | None:
    """``None`` where nothing was said; any word that is not a way of writing a1111 means fooocus."""
    if body.meta_scheme is None:
        return None
    name = body.meta_scheme.strip().lower()
    return "a1111" if SECOND_NAMES.get(name, name) == "a1111" else "fooocus"


def _swap_method(advanced: AdvancedParams) -> SwapMethod | None:
    """``None`` where nothing was said; any other word than the three means joint."""
    if advanced.refiner_swap_method is None:
        return None
    asked = advanced.refiner_swap_method.strip().lower()
    return next((method for method in get_args(SwapMethod) if method == asked), "joint")


def _freeu(advanced: AdvancedParams) -> FreeU | None:
    """``None`` where it is off; a factor that was not said is the default."""
    if not advanced.freeu_enabled:
        return None
    said = {factor: getattr(advanced, f"freeu_{factor}") for factor in ("b1", "b2", "s1", "s2")}
    return FreeU(**{factor: value for factor, value in said.items() if value is not None})


def _choice(name: str | None) -> str | None:
    return None if name is None else name.strip().lower()


def _file_name(name: str | None) -> str | None:
    """A listed name: sub-folders may be written with either slash."""
    return None if name is None else name.strip().replace("\\", "/")


def _value(member: LenientEnum | None) -> str | None:
    return None if member is None else member.value


def _positive(number: int | None) -> int | None:
    return number if number is not None and number > 0 else None


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
