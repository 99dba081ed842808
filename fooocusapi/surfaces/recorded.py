"""What records of the history say of a stage, under the names that dialects share: what ran, not what was asked."""

from __future__ import annotations

from typing import Any

from fooocus_core.metadata.record import DEFAULT_VAE
from fooocus_core.plan import Diffuse


def recorded_controls(stage: Diffuse) -> dict[str, Any]:
    """The finer controls that the stage's plan decides, in JSON values."""
    return {
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
        **_recorded_repaint(stage),
    }


def _recorded_repaint(stage: Diffuse) -> dict[str, Any]:
    if stage.repaint is None:
        return {}
    return {
        "inpaint_strength": stage.repaint.denoise,
        "inpaint_respective_field": stage.repaint.respective_field,
        "inpaint_engine": stage.repaint.engine,
    }
