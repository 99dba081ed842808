"""Golden family E: whole sampler runs of the network of family D, with everything that takes part in a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fooocus_core.adapters.adapted import Adaptations, AdaptedNetwork
from fooocus_core.adapters.inpaint_head import head_feature
from fooocus_core.conditioning.adm import base_adm
from fooocus_core.conditioning.conditioning import Conditioning
from fooocus_core.plan import FreeU
from fooocus_core.sampling import sample
from fooocus_core.sampling.blend import InpaintTask
from fooocus_core.sampling.guidance import GuidanceSettings
from fooocus_core.sampling.prediction import PredictionKind
from fooocus_core.sampling.sample import PromptedNetwork, SampleSettings, resolve_scheduler, sample_latents
from fooocus_core.sampling.samplers.contract import Sampler, SamplerContext, Steps
from fooocus_core.sampling.swap import Swap
from tests.fooocus_core.sampling.closed_form import run_to_end
from tests.golden.adapters import control_chain, prompts_of, translator
from tests.golden.networks import first_network, second_network
from tests.golden.vectors import golden_json, golden_tensors

RELATIVE_TOLERANCE = 1e-4
SIGMA_TOLERANCE = 1e-5
SEEDS = 2**63

CASES: list[dict[str, Any]] = golden_json("E_end_to_end/cases.json")["cases"]
LATENTS = golden_tensors("E_end_to_end/latents.safetensors")


def conditioning(case: dict[str, Any], side: str, tokens: int) -> Conditioning:
    context = LATENTS[f"shared/{side}_context"][:, :tokens]
    pooled = LATENTS[f"shared/{side}_pooled"]
    return Conditioning(context, base_adm(pooled, case["width"], case["height"], case[f"adm_{side}"]))


def assert_near(actual: Tensor, expected: Tensor) -> None:
    limit = RELATIVE_TOLERANCE * expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=limit)


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The list of sigmas of every sampler run of the test."""
    lists: list[Tensor] = []
    find = sample.sampler_by_name

    def recording(name: str) -> Sampler:
        def run(denoise: Any, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
            lists.append(sigmas)
            return find(name)(denoise, x, sigmas, context)

        return run

    monkeypatch.setattr(sample, "sampler_by_name", recording)
    return lists


@pytest.mark.parametrize(
    ("case", "image"),
    [pytest.param(case, image, id=f"{case['id']}-{image}") for case in CASES for image in range(case.get("images", 1))],
)
def test_run(case: dict[str, Any], image: int, walked: list[Tensor]) -> None:
    steps, final = run_to_end(picture(case, image))
    for sigmas, expected in zip(walked, case["sigmas"], strict=True):
        torch.testing.assert_close(sigmas, torch.tensor(expected), rtol=SIGMA_TOLERANCE, atol=0)
    key = case["id"]
    assert len(steps) == case["callbacks"]
    if "mid_callback" in case and image == 0:
        middle = steps[case["mid_callback"]]
        assert middle.index == case["mid_step_reported"]
        assert_near(middle.x, LATENTS[f"{key}/mid_x"])
        assert_near(middle.denoised, LATENTS[f"{key}/mid_denoised"])
    assert_near(final, LATENTS[f"{key}/final{image or ''}"])


def picture(case: dict[str, Any], image: int) -> Steps:
    """The run of one picture."""
    key = case["id"]
    shape = (1, 4, case["height"] // 8, case["width"] // 8)
    positive = conditioning(case, "positive", case["context_len"][0])
    negative = conditioning(case, "negative", case["context_len"][1])
    kind = prediction_kind(case)
    refiner = None
    if case["refiner"]:
        refiner = PromptedNetwork(second_network(), kind, positive, negative, owns_vae=case.get("refiner_vae", False))
    return sample_latents(
        base=PromptedNetwork(adapted_network(case), kind, positive, negative, control=control_chain(case)),
        refiner=refiner,
        guidance=GuidanceSettings(case["cfg"], case["sharpness"], case["adaptive_cfg"], case["adm_end"]),
        settings=sample_settings(case, image),
        latent=LATENTS[f"{key}/latent"] if case["latent"] else torch.zeros(shape),
        inpaint=inpaint_task(case),
        translate=translator(),
    )


def adapted_network(case: dict[str, Any]) -> AdaptedNetwork:
    asked = Adaptations(
        freeu=FreeU(*case["freeu"]) if case["freeu"] else None,
        head_feature=feature_of(case) if case.get("head") else None,
        prompts=prompts_of(case["ip"]) if case.get("ip") else (),
    )
    return AdaptedNetwork(first_network(), asked)


def feature_of(case: dict[str, Any]) -> Tensor:
    latent_format = resolve_scheduler(case["scheduler"], prediction_kind(case)).prediction.latent_format
    latent = latent_format.process_in(LATENTS[f"{case['id']}/head_latent"])
    return head_feature(LATENTS["shared/inpaint_head"], LATENTS[f"{case['id']}/inpaint_mask"], latent)


def inpaint_task(case: dict[str, Any]) -> InpaintTask | None:
    if not case["inpaint"]:
        return None
    mask, latent = (LATENTS[f"{case['id']}/inpaint_{part}"] for part in ("mask", "latent"))
    return InpaintTask(mask, latent, LATENTS.get(f"{case['id']}/inpaint_latent_swap"))


def prediction_kind(case: dict[str, Any]) -> PredictionKind:
    return "v" if case.get("prediction") == "v" else "eps"


def sample_settings(case: dict[str, Any], image: int) -> SampleSettings:
    seed = (int(case["seed"]) + image) % SEEDS
    swap = Swap(case["swap"], case["switch"])
    return SampleSettings(case["sampler"], case["scheduler"], case["steps"], seed, case["denoise"], swap)
