"""What the values of a request mean, whatever dialect they came in: from texts and numbers to the core's words.

``None`` stays ``None``: nothing was said, and ``fooocus_core.resolve`` fills it in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast, get_args

from fooocus_core.plan import FreeU, ImageFormat, InpaintEngine, Lora, MetadataScheme, Performance, Side, SwapMethod
from fooocus_core.presets.sizes import Size, parse_size
from fooocus_core.request import AskedGuide, AskedGuides, AskedRepaint, GenerationRequest
from fooocusapi.surfaces.fields import FinerControls, OutpaintExpansion, PictureRequest, SaveExtension
from fooocusapi.surfaces.lenient import LenientEnum

SECOND_NAMES = {"a111": "a1111"}
"""Metadata schemes that the guides spell in their own way."""

FIELD_OF: Mapping[str, str] = {
    "styles": "style_selections",
    "performance": "performance_selection",
    "width_px, height_px": "aspect_ratios_selection",
    "seed": "image_seed",
    "checkpoint": "base_model_name",
    "refiner": "refiner_model_name",
    "vae": "vae_name",
    "adaptive_scale": "adaptive_cfg",
    "adm_positive": "adm_scaler_positive",
    "adm_negative": "adm_scaler_negative",
    "adm_end": "adm_scaler_end",
    "sampler": "sampler_name",
    "scheduler": "scheduler_name",
    "overwrite_steps": "overwrite_step",
    "refiner_swap": "refiner_swap_method",
    "start_method": "uov_method",
}
"""The core's names of fields in the words that all dialects share; the others are called the same, or differ."""


def to_common_request(body: PictureRequest, controls: FinerControls) -> GenerationRequest:
    """What the shared fields of a body and its finer controls ask for. Raises ``InvalidRequest`` for a size."""
    size = _size(body)
    return GenerationRequest(
        prompt=body.prompt,
        negative_prompt=body.negative_prompt,
        styles=None if body.style_selections is None else tuple(body.style_selections),
        performance=cast("Performance | None", _value(body.performance_selection)),
        width_px=positive(controls.overwrite_width) or (size.width_px if size else None),
        height_px=positive(controls.overwrite_height) or (size.height_px if size else None),
        image_number=body.image_number,
        seed=body.image_seed,
        seed_increment=not controls.disable_seed_increment,
        checkpoint=_file_name(body.base_model_name),
        refiner=_file_name(body.refiner_model_name),
        refiner_switch=body.refiner_switch,
        refiner_swap=_swap_method(controls),
        overwrite_switch=controls.overwrite_switch,
        freeu=_freeu(controls),
        vae=_file_name(controls.vae_name),
        loras=_loras(body),
        clip_skip=controls.clip_skip,
        guidance_scale=body.guidance_scale,
        sharpness=body.sharpness,
        adaptive_scale=controls.adaptive_cfg,
        adm_positive=controls.adm_scaler_positive,
        adm_negative=controls.adm_scaler_negative,
        adm_end=controls.adm_scaler_end,
        sampler=_choice(controls.sampler_name),
        scheduler=_choice(controls.scheduler_name),
        overwrite_steps=controls.overwrite_step,
        overwrite_vary_strength=controls.overwrite_vary_strength,
        overwrite_upscale_strength=controls.overwrite_upscale_strength,
        read_wildcards_in_order=body.read_wildcards_in_order,
        preview=not controls.disable_preview,
        black_out_nsfw=controls.black_out_nsfw,
    )


def repainted(repaint: AskedRepaint, controls: FinerControls, additional_prompt: str | None) -> AskedRepaint:
    """``repaint`` with what the finer controls say about it."""
    return replace(
        repaint,
        additional_prompt=additional_prompt or "",
        strength=controls.inpaint_strength,
        respective_field=controls.inpaint_respective_field,
        engine=inpaint_engine(controls.inpaint_engine),
        use_initial_latent=not controls.inpaint_disable_initial_latent,
        only_prepare=controls.debugging_inpaint_preprocessor,
    )


def guided(pictures: Sequence[AskedGuide], controls: FinerControls) -> AskedGuides | None:
    """The guides with what the finer controls say about them all; ``None`` where there are none."""
    if not pictures:
        return None
    return AskedGuides(
        pictures=tuple(pictures),
        softness=controls.controlnet_softness,
        canny_low=controls.canny_low_threshold,
        canny_high=controls.canny_high_threshold,
        use_preprocessor=not controls.skipping_cn_preprocessor,
        only_prepare=controls.debugging_cn_preprocessor,
    )


def side_of(expansion: OutpaintExpansion) -> Side:
    """A side in the core's word."""
    return cast(Side, expansion.value.lower())


def side_field(side: str, controls: FinerControls) -> str:
    """Which field ``width_px`` or ``height_px`` came from: the override wins over the aspect ratio."""
    name = f"overwrite_{side.removesuffix('_px')}"
    return name if positive(getattr(controls, name)) else "aspect_ratios_selection"


def image_format(extension: SaveExtension | None) -> ImageFormat | None:
    """The kind of file; ``jpg`` stays ``jpg``, because it is the file's suffix."""
    return cast("ImageFormat | None", _value(extension))


def metadata_scheme(name: str | None) -> MetadataScheme | None:
    """``None`` where nothing was said; any word that is not a way of writing a1111 means fooocus."""
    if name is None:
        return None
    name = name.strip().lower()
    return "a1111" if SECOND_NAMES.get(name, name) == "a1111" else "fooocus"


def inpaint_engine(name: str | None) -> InpaintEngine | None:
    """``None`` where nothing was said; any word that names no engine means the newest."""
    if name is None:
        return None
    asked = name.strip().lower()
    return next((engine for engine in get_args(InpaintEngine) if engine.lower() == asked), "v2.6")


def positive(number: int | None) -> int | None:
    """The number where it is one that says something; 0 and less are "off"."""
    return number if number is not None and number > 0 else None


def _size(body: PictureRequest) -> Size | None:
    text = body.aspect_ratios_selection
    return None if text is None else parse_size(text, "aspect_ratios_selection")


def _loras(body: PictureRequest) -> tuple[Lora, ...] | None:
    """Slot for slot: an empty one keeps its place, because only the first few places count."""
    if body.loras is None:
        return None
    return tuple(
        Lora((_file_name(lora.model_name) or "None") if lora.enabled else "None", lora.weight) for lora in body.loras
    )


def _swap_method(controls: FinerControls) -> SwapMethod | None:
    """``None`` where nothing was said; any other word than the three means joint."""
    if controls.refiner_swap_method is None:
        return None
    asked = controls.refiner_swap_method.strip().lower()
    return next((method for method in get_args(SwapMethod) if method == asked), "joint")


def _freeu(controls: FinerControls) -> FreeU | None:
    """``None`` where it is off; a factor that was not said is the default."""
    if not controls.freeu_enabled:
        return None
    said = {factor: getattr(controls, f"freeu_{factor}") for factor in ("b1", "b2", "s1", "s2")}
    return FreeU(**{factor: value for factor, value in said.items() if value is not None})


def _choice(name: str | None) -> str | None:
    return None if name is None else name.strip().lower()


def _file_name(name: str | None) -> str | None:
    """A listed name: sub-folders may be written with either slash."""
    return None if name is None else name.strip().replace("\\", "/")


def _value(member: LenientEnum | None) -> str | None:
    return None if member is None else member.value
