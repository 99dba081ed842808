"""The ``req_params`` of a task: every field of the request as it will run (contract section 10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fooocus_core.plan import Diffuse, Lora, Plan
from fooocus_core.presets.sizes import Size, parse_size
from fooocus_core.resolve import MAX_GUIDES, MAX_PROMPT_CHARACTERS
from fooocusapi.errors import Location
from fooocusapi.surfaces.enhancements import MAX_CONTROLLERS, EnhanceCtrlNets, told
from fooocusapi.surfaces.lenient import default_of
from fooocusapi.surfaces.recorded import recorded_controls
from fooocusapi.surfaces.unified.schemas import (
    ENHANCE_IMAGE,
    INPAINT_IMAGE,
    INPAINT_MASK,
    SIDES,
    UOV_IMAGE,
    GenerateRequest,
    ImagePrompt,
)
from fooocusapi.surfaces.unified.tabs import tab_of
from fooocusapi.surfaces.unified.translate import Presets, additional_prompt

LORA_SLOTS: Final = 5
PICTURE_FIELDS: Final = {
    "uov_input_image": UOV_IMAGE,
    "inpaint_input_image": INPAINT_IMAGE,
    "inpaint_mask_image_upload": INPAINT_MASK,
    "enhance_input_image": ENHANCE_IMAGE,
}
NOT_AS_SENT: Final = {*PICTURE_FIELDS, "controlnet_image", "enhance_ctrls", "loras"}


def recorded_request(
    body: GenerateRequest, plan: Plan, presets: Presets, links: Mapping[Location, str]
) -> dict[str, Any]:
    """All fields in JSON values: what will run, else what was said, else the default.

    ``links``: the addresses of the pictures that were sent, by their places.
    """
    stage, output = plan.main, plan.output
    return {
        **{name: default_of(field) for name, field in GenerateRequest.model_fields.items()},
        **body.model_dump(mode="json", exclude_none=True, exclude=NOT_AS_SENT),
        **_resolved(stage),
        **recorded_controls(stage),
        "prompt": _prompt(body, stage),
        # Without an inpainting nobody has looked how long it is.
        "inpaint_additional_prompt": additional_prompt(body)[:MAX_PROMPT_CHARACTERS],
        "aspect_ratios_selection": _size_text(body, presets),
        "output_format": output.image_format,
        "save_metadata_to_images": output.save_metadata,
        "metadata_scheme": output.metadata_scheme,
        "save_name": output.save_name or None,
        "input_image_checkbox": True,
        "current_tab": tab_of(body, links).value,
        "invert_mask_checkbox": False,
        "inpaint_advanced_masking_checkbox": INPAINT_MASK in links,
        **{name: links.get(loc, "") for name, loc in PICTURE_FIELDS.items()},
        "outpaint_distance": _distances(body),
        "controlnet_image": _image_prompts(body, links),
        "enhance_ctrls": _controllers(body),
    }


def _resolved(stage: Diffuse) -> dict[str, Any]:
    resolved = {
        "negative_prompt": stage.prompts.negative_prompt,
        "style_selections": list(stage.prompts.styles),
        "performance_selection": stage.performance,
        "image_number": stage.image_number,
        "image_seed": stage.seed,
        "sharpness": stage.guidance.sharpness,
        "guidance_scale": stage.guidance.scale,
        "base_model_name": stage.models.checkpoint,
        "refiner_model_name": stage.models.refiner or "None",
        "refiner_switch": stage.refiner_switch,
        "loras": _flat_loras(stage.models.loras),
    }
    if stage.start is not None and stage.start.factor is not None:
        resolved["upscale_multiple"] = stage.start.factor
    return resolved


def _flat_loras(loras: tuple[Lora, ...]) -> list[Any]:
    """Enabled, name and weight of every slot, one after the other."""
    slots = [*loras, *[Lora("None", 1.0)] * LORA_SLOTS][:LORA_SLOTS]
    return [value for lora in slots for value in (True, lora.name, lora.weight)]


def _prompt(body: GenerateRequest, stage: Diffuse) -> str:
    """The prompt without what an inpainting puts before it."""
    before = additional_prompt(body) if stage.repaint is not None else ""
    return stage.prompts.prompt.removeprefix(before).removeprefix("\n" if before else "")


def _size_text(body: GenerateRequest, presets: Presets) -> str:
    """The size that was asked for, or the preset's, with the sign that the program's own page shows."""
    asked = body.aspect_ratios_selection
    size = presets.chosen.size if asked is None else _said_size(parse_size(asked), presets)
    return f"{size.width_px}\u00d7{size.height_px}"


def _said_size(size: Size, presets: Presets) -> Size:
    return presets.chosen.size if size == presets.own.size else size


def _distances(body: GenerateRequest) -> list[int]:
    return [*(body.outpaint_distance or ()), *[0] * len(SIDES)][: len(SIDES)]


def _image_prompts(body: GenerateRequest, links: Mapping[Location, str]) -> list[dict[str, Any]]:
    sent = [{**_dumped(prompt), "cn_img": links.get(loc, "")} for loc, prompt in body.guides()]
    return sent + [{**_dumped(ImagePrompt()), "cn_img": ""}] * (MAX_GUIDES - len(sent))


def _dumped(prompt: ImagePrompt) -> dict[str, Any]:
    return {"cn_img": "", **prompt.model_dump(mode="json", exclude={"cn_img"})}


def _controllers(body: GenerateRequest) -> list[dict[str, Any]]:
    sent = [told(step) for step in body.enhance_ctrls or ()]
    return sent + [told(EnhanceCtrlNets())] * (MAX_CONTROLLERS - len(sent))
