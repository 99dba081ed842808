"""The server's own defaults as clients send them back, and a preset that is to stand in their place.

Clients send whole bodies copied from the documentation page. Where such a request names a preset, what equals the
server's default has not been said (contract section 15).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from fooocus_core.plan import Lora
from fooocus_core.presets.preset import NO_MODEL, Preset
from fooocus_core.request import GenerationRequest


def without_defaults(request: GenerationRequest, own: Preset) -> GenerationRequest:
    """``request`` with ``None`` for everything that a preset may say and that equals the server's ``own``."""
    defaults = _as_asked(own)
    unsaid: dict[str, Any] = {
        name: None for name, default in defaults.items() if _plain(getattr(request, name)) == default
    }
    if (request.width_px, request.height_px) == own.size:
        unsaid.update(width_px=None, height_px=None)
    if request.repaint is not None and request.repaint.engine == own.inpaint_engine:
        unsaid["repaint"] = replace(request.repaint, engine=None)
    if request.detail is not None:
        passes = (
            replace(one, engine=None if one.engine == own.inpaint_engine else one.engine)
            for one in request.detail.passes
        )
        unsaid["detail"] = replace(request.detail, passes=tuple(passes))
    return replace(request, **unsaid)


def _as_asked(preset: Preset) -> dict[str, Any]:
    """The preset's values under the names of the request, as ``_plain`` leaves them."""
    return {
        "prompt": preset.prompt,
        "negative_prompt": preset.negative_prompt,
        "styles": preset.styles,
        "performance": preset.performance,
        "checkpoint": preset.checkpoint,
        "refiner": preset.refiner or "",
        "refiner_switch": preset.refiner_switch,
        "vae": preset.vae or "",
        "loras": preset.loras,
        "clip_skip": preset.clip_skip,
        "guidance_scale": preset.guidance.scale,
        "sharpness": preset.guidance.sharpness,
        "adaptive_scale": preset.guidance.adaptive_scale,
        "sampler": preset.sampler,
        "scheduler": preset.scheduler,
    }


def _plain(value: object) -> object:
    """Without the many words for "no file", and without empty slots."""
    if isinstance(value, str) and value in NO_MODEL:
        return ""
    return _filled(value) if isinstance(value, tuple) else value


def _filled(entries: Iterable[object]) -> tuple[object, ...]:
    return tuple(entry for entry in entries if not (isinstance(entry, Lora) and entry.name in NO_MODEL))
