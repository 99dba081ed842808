"""Golden family C, what the sampling uses: sharpness filter, guidance, FreeU, inpaint head, a refiner's texts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fooocus_core.adapters.freeu import freeu_block, freeu_factors
from fooocus_core.adapters.inpaint_head import head_feature
from fooocus_core.conditioning.refiner import refiner_context
from fooocus_core.models.checkpoint import CheckpointKind
from fooocus_core.plan import FreeU
from fooocus_core.sampling.guidance import GuidanceSettings, anisotropic_filter, guided_residual
from fooocus_core.sampling.prediction import SDXL_LATENTS
from tests.golden.vectors import golden_json, golden_tensors

TOLERANCE, FILTER_TOLERANCE = 1e-4, 1e-6

INDEX: dict[str, Any] = golden_json("C_guidance/cases.json")
FILTER = golden_tensors("C_guidance/filter.safetensors")
GUIDANCE = golden_tensors("C_guidance/guidance.safetensors")
FREEU = golden_tensors("C_guidance/freeu.safetensors")
HEAD = golden_tensors("C_guidance/inpaint_head.safetensors")
SPLIT = golden_tensors("C_guidance/conditioning_split.safetensors")


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


@pytest.mark.parametrize("case", INDEX["freeu"], ids=lambda case: case["key"])
def test_freeu(case: dict[str, Any]) -> None:
    hidden, skip, *expected = (FREEU[f"{case['key']}/{name}"] for name in ("h", "skip", "h_out", "skip_out"))
    factors = freeu_factors(FreeU(*(case[name] for name in ("b1", "b2", "s1", "s2"))), case["model_channels"])
    if (pair := factors.get(case["h_channels"])) is not None:
        hidden, skip = freeu_block(hidden, skip, *pair)
    torch.testing.assert_close((hidden, skip), tuple(expected), rtol=0, atol=TOLERANCE)


def test_inpaint_head() -> None:
    latent = SDXL_LATENTS.process_in(HEAD["latent_unscaled"])
    feature = head_feature(HEAD["weight"], HEAD["latent_mask"], latent)
    torch.testing.assert_close(feature, HEAD["feature"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("key", "kind"), [("sdxl", "sdxl"), ("refiner", "sdxl_refiner"), ("none", "sdxl_refiner")])
def test_texts_of_a_refiner(key: str, kind: CheckpointKind) -> None:
    """``none``, what no second model would receive, is recorded too, though nothing asks for it."""
    context = refiner_context(SPLIT["context"], kind, width_l=768, final_norm=torch.zeros_like)
    torch.testing.assert_close(context, SPLIT[f"{key}/context"], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(SPLIT["pooled"], SPLIT[f"{key}/pooled"], rtol=0, atol=TOLERANCE)
