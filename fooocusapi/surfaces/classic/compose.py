"""A request in this dialect's words, ready to be sent: the way back of ``translate``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from fooocus_core.request import GenerationRequest
from fooocusapi.surfaces.classic.translate import FIELD_OF

_SAME: Final = (
    "prompt",
    "negative_prompt",
    "styles",
    "performance",
    "image_number",
    "seed",
    "checkpoint",
    "refiner",
    "refiner_switch",
    "refiner_swap",
    "overwrite_switch",
    "guidance_scale",
    "sharpness",
    "vae",
    "clip_skip",
    "adaptive_scale",
    "adm_positive",
    "adm_negative",
    "adm_end",
    "sampler",
    "scheduler",
    "overwrite_steps",
)
"""What differs from this dialect's body by its name only, in the order in which people look for it."""


def to_body(request: GenerationRequest) -> dict[str, Any]:
    """The body, in JSON values, of a call that asks for the picture; what was not said is left out.

    How the picture is saved and answered is not part of it.
    """
    body: dict[str, Any] = {}
    for name in _SAME:
        value = getattr(request, name)
        if value is not None:
            *outer, inner = map(str, FIELD_OF.get(name, (name,)))
            place = body.setdefault(outer[0], {}) if outer else body
            place[inner] = list(value) if isinstance(value, tuple) else value
    if request.width_px is not None and request.height_px is not None:
        body["aspect_ratios_selection"] = f"{request.width_px}*{request.height_px}"
    if request.freeu is not None:
        factors = {f"freeu_{name}": factor for name, factor in asdict(request.freeu).items()}
        body.setdefault("advanced_params", {}).update(freeu_enabled=True, **factors)
    if request.loras is not None:
        body["loras"] = [{"model_name": lora.name, "weight": lora.weight} for lora in request.loras]
    return body
