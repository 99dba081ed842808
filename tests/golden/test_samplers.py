"""Golden family B: every sampler on a closed-form denoiser, and the noise they use."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fooocus_core.sampling.noise import BrownianNoise, NoiseSource
from fooocus_core.sampling.samplers.contract import SamplerContext, SamplerStep
from fooocus_core.sampling.samplers.registry import sampler_by_name
from fooocus_core.sampling.start import start_latents
from tests.cases import check_all, grouped
from tests.fooocus_core.sampling.closed_form import ClosedFormDenoiser, run_to_end
from tests.golden.test_schedules import PREDICTIONS
from tests.golden.vectors import golden_json, golden_tensors

TOLERANCE, NOISE_TOLERANCE = 1e-4, 1e-5
LOOSE_SAMPLERS = {"dpm_adaptive": 1e-3, "dpmpp_sde": 1e-3, "dpmpp_sde_gpu": 1e-3}
UNI_PC_ON_EDM = 3e-4
CPU = torch.device("cpu")

INDEX: dict[str, Any] = golden_json("B_samplers/cases.json")
CASES: list[dict[str, Any]] = INDEX["cases"]
BY_SAMPLER = grouped(CASES, name=lambda case: case["id"], group=lambda case: case["sampler"])
VECTORS = golden_tensors("B_samplers/samplers.safetensors")
NOISE_INDEX: dict[str, Any] = golden_json("B_samplers/noise.json")
NOISE = golden_tensors("B_samplers/noise.safetensors")


def tolerance(case: dict[str, Any]) -> float:
    if case["sampler"].startswith("uni_pc") and case["sampling"].startswith("edm"):
        return UNI_PC_ON_EDM
    return LOOSE_SAMPLERS.get(case["sampler"], TOLERANCE)


def assert_within(actual: Tensor, expected: Tensor, limit: float) -> None:
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=0, atol=limit)


def test_closed_form_denoiser() -> None:
    probe = golden_tensors("B_samplers/denoiser_probe.safetensors")
    for key in (key for key in probe if key.startswith("D/")):
        denoised = ClosedFormDenoiser()(probe["x"], torch.tensor(float(key.removeprefix("D/"))))
        assert_within(denoised, probe[key], NOISE_TOLERANCE)


@pytest.mark.parametrize("sampler", BY_SAMPLER)
def test_sampler(sampler: str) -> None:
    check_all(BY_SAMPLER[sampler], check_run)


def check_run(case: dict[str, Any]) -> None:
    key, seed = case["id"], int(case["seed"])
    sigmas, shape = VECTORS[f"{key}/sigmas"], tuple(case.get("shape", INDEX["shape"]))
    levels = PREDICTIONS[case["sampling"]]().levels
    source = NoiseSource(seed, CPU)
    noise = source.initial(shape)
    assert_within(noise, VECTORS[f"{key}/noise"], NOISE_TOLERANCE)

    latents = VECTORS[case["latent_image"]] if case["latent_image"] else torch.zeros(shape)
    x = start_latents(noise, latents, sigmas[0].item(), levels.sigma_max)
    low, high = case["brownian_range"]
    context = SamplerContext(source, BrownianNoise(seed, (low, high), shape, CPU), levels)
    denoise = ClosedFormDenoiser()
    steps, final = run_to_end(sampler_by_name(case["sampler"])(denoise, x, sigmas, context))

    assert denoise.calls == case["model_calls"]
    assert_within(final, VECTORS[f"{key}/final"], tolerance(case))
    if "callbacks" in case:
        assert [step.index for step in steps] == list(range(case["callbacks"]))
        assert_steps(case, steps)


def assert_steps(case: dict[str, Any], steps: list[SamplerStep]) -> None:
    for index in case["intermediate_steps"]:
        assert_within(steps[index].x, VECTORS[f"{case['id']}/step{index}/x"], tolerance(case))
        assert_within(steps[index].denoised, VECTORS[f"{case['id']}/step{index}/denoised"], tolerance(case))


@pytest.mark.parametrize("case", NOISE_INDEX["initial"], ids=lambda case: case["key"])
def test_initial_noise_and_what_follows(case: dict[str, Any]) -> None:
    source = NoiseSource(int(case["seed"]), CPU)
    initial = source.initial(tuple(case["shape"]))
    assert_within(initial, NOISE[case["key"]], NOISE_TOLERANCE)
    assert_within(source.step(initial), NOISE[case["next_draw"]], NOISE_TOLERANCE)


def test_images_of_one_generator() -> None:
    case = NOISE_INDEX["initial_batch_index"]
    source = NoiseSource(int(case["seed"]), CPU)
    one_image = (1, *case["shape"][1:])
    images = [source.initial(one_image) for _ in range(max(case["batch_index"]) + 1)]
    picked = torch.cat([images[index] for index in case["batch_index"]])
    assert_within(picked, NOISE[case["key"]], NOISE_TOLERANCE)


@pytest.mark.parametrize("case", NOISE_INDEX["brownian"], ids=lambda case: case["key"])
def test_brownian_noise(case: dict[str, Any]) -> None:
    low, high = case["range"]
    brownian = BrownianNoise(int(case["seed"]), (low, high), tuple(case["shape"]), CPU)
    for index, query in enumerate(case["queries"]):
        expected = NOISE[case["key"].replace("<query index>", str(index))]
        sigma, sigma_next = (torch.tensor(level) for level in query)
        assert_within(brownian(sigma, sigma_next, expected), expected, NOISE_TOLERANCE)
