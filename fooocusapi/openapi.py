"""The published document: what the framework makes of the schemas, with the defaults of the configured preset."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fooocus_core.presets.preset import Preset
from fooocusapi.services import Opening
from fooocusapi.settings import Settings
from fooocusapi.surfaces.classic.generation import PICTURE_ENDPOINTS
from fooocusapi.surfaces.classic.schemas import AdvancedParams, CommonRequest
from fooocusapi.surfaces.tams.schemas import CreditsRequest, JobRequest, ResourceRequest
from fooocusapi.surfaces.tools import describe
from fooocusapi.surfaces.unified.schemas import GenerateRequest

PICTURE_BODIES = tuple(dict.fromkeys(endpoint.published for endpoint in PICTURE_ENDPOINTS))
GENERATION_BODIES = (
    CommonRequest.__name__,
    GenerateRequest.__name__,
    *(body.__name__ for body in PICTURE_BODIES),
)

DESCRIPTION = """Text in, pictures out: the Fooocus SDXL pipeline behind the HTTP dialects of its programs.

Fields that a request leaves out, sends as null, or leaves empty where a number or a choice is expected take the
defaults shown here, which are those of the server's preset. Unknown fields are ignored."""


def publish(app: FastAPI, opening: Opening, settings: Settings) -> None:
    """Makes ``app`` show the preset's defaults as soon as it is known; until then those of the contract."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        published = _document_of(app)
        _show_limits(published, settings)
        services = opening.opened
        if services is not None:
            _show_defaults(published, services.preset)
            app.openapi_schema = published
        return published

    app.openapi = document  # type: ignore[method-assign]


def _document_of(app: FastAPI) -> dict[str, Any]:
    published = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = published["components"]["schemas"]
    for name, described in _picture_bodies().items():
        schemas.setdefault(name, described)
    return published


def _picture_bodies() -> dict[str, Any]:
    """The bodies that come as a form or as JSON, which the framework does not read and so does not describe."""
    bodies: tuple[type[BaseModel], ...] = (
        *PICTURE_BODIES,
        *describe.PUBLISHED_BODIES,
        CreditsRequest,
        JobRequest,
        ResourceRequest,
    )
    _, described = models_json_schema(
        [(body, "validation") for body in bodies], ref_template="#/components/schemas/{model}"
    )
    return dict(described["$defs"])


def _show_limits(published: dict[str, Any], settings: Settings) -> None:
    """The limits that are this server's own, where the field is described."""
    for title in GENERATION_BODIES:
        fields = published["components"]["schemas"][title]["properties"]
        for name in ("prompt", "negative_prompt"):
            fields[name]["maxLength"] = settings.max_prompt_characters


def _show_defaults(published: dict[str, Any], preset: Preset) -> None:
    defaults = preset_defaults(preset)
    for title in (*GENERATION_BODIES, AdvancedParams.__name__):
        fields = published["components"]["schemas"][title]["properties"]
        for field in fields.keys() & defaults.keys():
            fields[field]["default"] = defaults[field]


def preset_defaults(preset: Preset) -> dict[str, Any]:
    """The preset's values by the names of the fields in all dialects."""
    return {
        "prompt": preset.prompt,
        "negative_prompt": preset.negative_prompt,
        "style_selections": list(preset.styles),
        "performance_selection": preset.performance,
        "aspect_ratios_selection": f"{preset.size.width_px}*{preset.size.height_px}",
        "sharpness": preset.guidance.sharpness,
        "guidance_scale": preset.guidance.scale,
        "base_model_name": preset.checkpoint,
        "refiner_model_name": preset.refiner or "None",
        "refiner_switch": preset.refiner_switch,
        "loras": [{"enabled": True, "model_name": lora.name, "weight": lora.weight} for lora in preset.loras],
        "meta_scheme": preset.metadata_scheme,
        "metadata_scheme": preset.metadata_scheme,
        "save_extension": preset.image_format,
        "output_format": preset.image_format,
        "adm_scaler_positive": preset.guidance.adm_positive,
        "adm_scaler_negative": preset.guidance.adm_negative,
        "adm_scaler_end": preset.guidance.adm_end,
        "adaptive_cfg": preset.guidance.adaptive_scale,
        "clip_skip": preset.clip_skip,
        "inpaint_engine": preset.inpaint_engine,
        "sampler_name": preset.sampler,
        "scheduler_name": preset.scheduler,
        "overwrite_step": preset.overwrite_steps or -1,
        "overwrite_switch": preset.overwrite_switch or -1,
        "vae_name": preset.vae or "Default (model)",
    }
