"""Golden family E: whole sampler runs of the network of family D."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from fooocus_core.conditioning.adm import base_adm
from fooocus_core.conditioning.conditioning import Conditioning
from fooocus_core.models.unet import DiffusionNetwork, load_unet
from fooocus_core.sampling.guidance import GuidanceSettings
from fooocus_core.sampling.prediction import PredictionKind
from fooocus_core.sampling.sample import SampleSettings, resolve_scheduler, sample_latents
from fooocus_core.sampling.samplers.registry import SAMPLERS
from fooocus_core.sampling.schedules import effective_sigmas
from tests.fooocus_core.sampling.closed_form import run_to_end
from tests.golden.vectors import golden_json, golden_tensors

RELATIVE_TOLERANCE = 1e-4
SIGMA_TOLERANCE = 1e-5
SEEDS = 2**63
UNET_PREFIX = "model.diffusion_model."

CASES: list[dict[str, Any]] = golden_json("E_end_to_end/cases.json")["cases"]
LATENTS = golden_tensors("E_end_to_end/latents.safetensors")


def supported(case: dict[str, Any]) -> str | None:
    """The feature a case needs and this project lacks, or ``None``."""
    if case["sampler"] not in SAMPLERS:
        return f"sampler {case['sampler']}"
    if case["swap"] != "joint" and case["switch"] is not None:
        return f"swap method {case['swap']}"
    wanted = ("inpaint", "refiner", "refiner_vae", "freeu", "head", "ip", "control")
    return next((feature for feature in wanted if case.get(feature)), None)


@cache
def network() -> DiffusionNetwork:
    weights = golden_tensors("D_models/unet.safetensors")
    head_width = golden_json("D_models/unet.json")["ldm_config"]["num_head_channels"]
    unprefixed = {key.removeprefix(UNET_PREFIX): tensor for key, tensor in weights.items()}
    return load_unet(
        unprefixed, "unet.safetensors", device=torch.device("cpu"), dtype=torch.float32, head_width=head_width
    )


def conditioning(case: dict[str, Any], side: str, tokens: int) -> Conditioning:
    context = LATENTS[f"shared/{side}_context"][:, :tokens]
    pooled = LATENTS[f"shared/{side}_pooled"]
    return Conditioning(context, base_adm(pooled, case["width"], case["height"], case[f"adm_{side}"]))


def assert_near(actual: Tensor, expected: Tensor) -> None:
    limit = RELATIVE_TOLERANCE * expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=limit)


@pytest.mark.parametrize(
    ("case", "image"),
    [pytest.param(case, image, id=f"{case['id']}-{image}") for case in CASES for image in range(case.get("images", 1))],
)
def test_run(case: dict[str, Any], image: int) -> None:
    if missing := supported(case):
        pytest.skip(f"needs {missing}")
    key, kind = case["id"], prediction_kind(case)
    shape = (1, 4, case["height"] // 8, case["width"] // 8)
    steps, final = run_to_end(
        sample_latents(
            network=network(),
            prediction=kind,
            positive=conditioning(case, "positive", case["context_len"][0]),
            negative=conditioning(case, "negative", case["context_len"][1]),
            guidance=GuidanceSettings(case["cfg"], case["sharpness"], case["adaptive_cfg"], case["adm_end"]),
            settings=sample_settings(case, image),
            latent=LATENTS[f"{key}/latent"] if case["latent"] else torch.zeros(shape),
        )
    )
    assert len(steps) == case["callbacks"]
    if "mid_callback" in case and image == 0:
        middle = steps[case["mid_callback"]]
        assert_near(middle.x, LATENTS[f"{key}/mid_x"])
        assert_near(middle.denoised, LATENTS[f"{key}/mid_denoised"])
    assert_near(final, LATENTS[f"{key}/final{image or ''}"])


@pytest.mark.parametrize("case", [case for case in CASES if not supported(case)], ids=lambda case: case["id"])
def test_sigmas(case: dict[str, Any]) -> None:
    scheduler = resolve_scheduler(case["scheduler"], prediction_kind(case))
    sigmas = effective_sigmas(
        scheduler.list_name, case["steps"], case["denoise"], case["sampler"], scheduler.prediction.levels
    )
    torch.testing.assert_close(sigmas, torch.tensor(case["sigmas"][0]), rtol=SIGMA_TOLERANCE, atol=0)


def prediction_kind(case: dict[str, Any]) -> PredictionKind:
    return "v" if case.get("prediction") == "v" else "eps"


def sample_settings(case: dict[str, Any], image: int) -> SampleSettings:
    seed = (int(case["seed"]) + image) % SEEDS
    return SampleSettings(case["sampler"], case["scheduler"], case["steps"], seed, case["denoise"])
