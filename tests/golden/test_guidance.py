"""Golden family C, the parts of sampling: the sharpness filter and guidance."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fooocus_core.sampling.guidance import GuidanceSettings, anisotropic_filter, guided_residual
from tests.golden.vectors import golden_json, golden_tensors

TOLERANCE, FILTER_TOLERANCE = 1e-4, 1e-5

INDEX: dict[str, Any] = golden_json("C_guidance/cases.json")
FILTER = golden_tensors("C_guidance/filter.safetensors")
GUIDANCE = golden_tensors("C_guidance/guidance.safetensors")


@pytest.mark.parametrize("key", [case["key"] for case in INDEX["filter"]])
@pytest.mark.parametrize(("guide", "expected"), [("guidance", "y"), ("x", "y_self")])
def test_filter(key: str, guide: str, expected: str) -> None:
    filtered = anisotropic_filter(FILTER[f"{key}/x"], FILTER[f"{key}/{guide}"])
    torch.testing.assert_close(filtered, FILTER[f"{key}/{expected}"], rtol=0, atol=FILTER_TOLERANCE)


@pytest.mark.parametrize("case", INDEX["guidance"], ids=lambda case: case["key"])
def test_guidance(case: dict[str, Any]) -> None:
    settings = GuidanceSettings(case["cfg"], case["sharpness"], case["adaptive_cfg"], adm_end=0.3)
    x, positive, negative = (GUIDANCE[name] for name in ("x", "cond_x0", "uncond_x0"))
    residual = guided_residual(x, positive, negative, settings, case["progress"])
    sigma = GUIDANCE["sigma"].view(-1, 1, 1, 1)
    torch.testing.assert_close(x - residual, GUIDANCE[f"{case['key']}/x0"], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(residual / sigma, GUIDANCE[f"{case['key']}/eps_record"], rtol=0, atol=TOLERANCE)
