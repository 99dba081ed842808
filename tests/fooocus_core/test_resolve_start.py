"""Requests that start from a picture become plans (specification 05; contract section 15)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fooocus_core.errors import InvalidRequest
from fooocus_core.images.methods import METHODS
from fooocus_core.plan import Diffuse, Plan
from fooocus_core.presets.preset import load_preset
from fooocus_core.presets.sizes import SizeLimits
from fooocus_core.request import AskedStart, GenerationRequest
from fooocus_core.resolve import resolve_request
from tests.fooocus_core.test_resolve import SHELF

PRESET = load_preset("default")


def _plan(method: str, width_px: int = 1152, height_px: int = 896, factor: float | None = None, **fields: Any) -> Plan:
    start = AskedStart("abc", width_px, height_px, method, factor)
    return resolve_request(GenerationRequest(start=start, **fields), PRESET, SHELF, lambda: 42, SizeLimits())


def _stage(method: str, **fields: Any) -> Diffuse:
    (stage,) = _plan(method, **fields).stages
    assert stage.start is not None
    return stage


@pytest.mark.parametrize(
    ("method", "denoise", "size", "steps"),
    [
        ("Vary (Subtle)", 0.5, (1152, 896), 30),
        ("Vary (Strong)", 0.85, (1152, 896), 30),
        ("Upscale (1.5x)", 0.382, (1728, 1344), 18),
        ("Upscale (2x)", 0.382, (2304, 1792), 18),
        ("Upscale (Custom)", 0.382, (2304, 1792), 18),
    ],
)
def test_each_method_has_its_own_share_size_and_steps(
    method: str, denoise: float, size: tuple[int, int], steps: int
) -> None:
    stage = _stage(method)
    assert stage.start is not None
    assert (stage.start.denoise, stage.start.refine) == (denoise, True)
    assert (stage.width_px, stage.height_px) == size
    assert (stage.sampling.steps, stage.switch_step) == (steps, steps // 2)


def test_what_is_only_enlarged_is_made_once() -> None:
    stage = _stage("Upscale (Fast 2x)", width_px=601, height_px=701, image_number=4)
    assert stage.start is not None
    assert (stage.start.refine, stage.image_number) == (False, 1)
    assert (stage.width_px, stage.height_px) == (1202, 1402)
    too_large = _stage("Upscale (2x)", width_px=2000, height_px=1500, image_number=4)
    assert too_large.start is not None
    assert (too_large.start.refine, too_large.image_number) == (False, 1)


def test_sizes_of_what_is_diffused_lie_on_the_grid() -> None:
    varied = _stage("Vary (Subtle)", width_px=1003, height_px=1001)
    assert (varied.width_px, varied.height_px) == (1000, 1000)
    upscaled = _stage("Upscale (1.5x)", width_px=701, height_px=801)
    assert (upscaled.width_px, upscaled.height_px) == (1048, 1200)


@pytest.mark.parametrize("method", METHODS)
def test_a_strength_that_is_asked_for_wins(method: str) -> None:
    assert _strength(method, overwrite_vary_strength=0.3, overwrite_upscale_strength=0.2) == (
        0.3 if method.startswith("Vary") else 0.2
    )
    assert _strength(method, overwrite_vary_strength=-1, overwrite_upscale_strength=0) == METHODS[method].denoise


def _strength(method: str, **fields: Any) -> float:
    start = _stage(method, **fields).start
    assert start is not None
    return start.denoise


def test_only_the_custom_method_has_a_factor_of_its_own() -> None:
    assert _factor("Upscale (Custom)", 1.0) == 1.0
    assert _factor("Upscale (Custom)", 5.0) == 5.0
    assert _factor("Upscale (Custom)", None) == 2.0
    assert _factor("Upscale (1.5x)", 4.0) == 1.5
    assert _factor("Vary (Subtle)", 4.0) is None


def _factor(method: str, asked: float | None) -> float | None:
    start = _stage(method, width_px=300, height_px=300, factor=asked).start
    assert start is not None
    return start.factor


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"method": "Vary"}, "start_method"),
        ({"method": "Upscale (Custom)", "factor": 5.1}, "start_factor"),
        ({"method": "Upscale (Custom)", "factor": float("nan")}, "start_factor"),
        ({"method": "Vary (Subtle)", "overwrite_vary_strength": 1.1}, "overwrite_vary_strength"),
        ({"method": "Upscale (2x)", "overwrite_upscale_strength": float("inf")}, "overwrite_upscale_strength"),
        ({"method": "Upscale (Fast 2x)", "width_px": 3000, "height_px": 3000}, "start"),
        ({"method": "Vary (Subtle)", "width_px": 20_000, "height_px": 60}, "start"),
    ],
)
def test_what_cannot_be_run_is_named(asked: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        _plan(**asked)
    assert refused.value.field == field


def test_the_picture_goes_with_the_plan_through_json() -> None:
    plan = _plan("Vary (Strong)")
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
