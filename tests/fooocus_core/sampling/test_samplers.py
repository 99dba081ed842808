"""Every sampler under every scheduler, on a denoiser one can write down."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fooocus_core.errors import InvalidRequest
from fooocus_core.sampling.names import SAMPLER_NAMES, SCHEDULER_NAMES
from fooocus_core.sampling.noise import BrownianNoise, NoiseSource
from fooocus_core.sampling.prediction import sdxl_levels
from fooocus_core.sampling.sample import resolve_scheduler
from fooocus_core.sampling.samplers.contract import Denoiser, SamplerContext, Steps
from fooocus_core.sampling.samplers.registry import SAMPLERS, sampler_by_name
from fooocus_core.sampling.schedules import brownian_range, effective_sigmas, range_sigmas
from fooocus_core.sampling.start import start_latents
from tests.cases import check_all
from tests.fooocus_core.sampling.closed_form import ClosedFormDenoiser, run_to_end

CPU = torch.device("cpu")
SHAPE = (1, 4, 7, 8)
NOTHING = 1e-4
LEFT_OVER = {"dpm_fast": 0.5, "dpm_adaptive": 0.5, "uni_pc": 0.005, "uni_pc_bh2": 0.005, "tcd": 0.1}
"""These stop at the last level above 0, or at 0.001; TCD puts noise of its own in."""
DIVERGES = ("tcd", "edm_playground_v2.5")
"""TCD's steps are made for its own table. On this one they grow without end, in the reference too."""
STEPS_OF_EVALUATIONS = {"dpm_fast", "dpm_adaptive"}
"""These take steps of their own making."""

# Two names of one function behave alike; one of them is enough here.
DISTINCT = list({sampler: name for name, sampler in SAMPLERS.items()}.values())


def start(
    sampler: str,
    scheduler: str,
    steps: int,
    seed: int = 7,
    denoise: Denoiser | None = None,
    strength: float = 1.0,
    brownian: type[BrownianNoise] = BrownianNoise,
) -> Steps:
    """A run on a denoiser one can write down, not yet begun."""
    resolved = resolve_scheduler(scheduler, "eps")
    levels, name = resolved.prediction.levels, resolved.list_name
    sigmas = effective_sigmas(name, steps, strength, sampler, levels)
    noise = NoiseSource(seed, CPU)
    bounds = brownian_range(range_sigmas(name, steps, strength, sampler, sdxl_levels()))
    x = start_latents(noise.initial(SHAPE), torch.zeros(SHAPE), sigmas[0].item(), levels.sigma_max)
    context = SamplerContext(noise, brownian(seed, bounds, SHAPE, CPU), levels)
    return sampler_by_name(sampler)(denoise or ClosedFormDenoiser(), x, sigmas, context)


def test_every_offered_name_is_implemented() -> None:
    assert tuple(SAMPLERS) == SAMPLER_NAMES


@pytest.mark.parametrize("sampler", DISTINCT)
@pytest.mark.parametrize("strength", [1.0, 0.4])
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_runs_and_stays_finite(sampler: str, strength: float, steps: int) -> None:
    def check(scheduler: str) -> None:
        seen, final = run_to_end(start(sampler, scheduler, steps, strength=strength))
        assert final.shape == SHAPE
        assert final.isfinite().all()
        assert [step.index for step in seen] == list(range(len(seen)))
        if sampler not in STEPS_OF_EVALUATIONS and scheduler not in {"turbo", "ddim_uniform"}:
            assert len(seen) == steps

    check_all({scheduler: scheduler for scheduler in SCHEDULER_NAMES}, check)


class LooseNoise(BrownianNoise):
    """Independent noise for every question: torchsde's path takes milliseconds a step."""

    def __call__(self, sigma: Tensor, sigma_next: Tensor, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(1))


class Blank:
    """The denoiser of a world with one picture, all zeros: the cheapest there is, and its answer is known."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return torch.zeros_like(x)


@pytest.mark.parametrize("sampler", DISTINCT)
def test_two_hundred_steps(sampler: str) -> None:
    """Under every scheduler; what is left is the noise of the last level at most."""

    def check(scheduler: str) -> None:
        brownian = BrownianNoise if scheduler == "karras" else LooseNoise
        final = run_to_end(start(sampler, scheduler, 200, denoise=Blank(), brownian=brownian))[1]
        assert final.isfinite().all()
        assert (sampler, scheduler) == DIVERGES or final.abs().max() < LEFT_OVER.get(sampler, NOTHING)

    check_all({scheduler: scheduler for scheduler in SCHEDULER_NAMES}, check)


@pytest.mark.parametrize("sampler", DISTINCT)
def test_same_seed_same_latents(sampler: str) -> None:
    first, second, other = (run_to_end(start(sampler, "karras", 6, seed))[1] for seed in (7, 7, 8))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("sampler", DISTINCT)
def test_closing_stops_the_work(sampler: str) -> None:
    denoise = ClosedFormDenoiser()
    steps = start(sampler, "karras", 12, denoise=denoise)
    next(steps)
    calls = denoise.calls
    steps.close()
    assert denoise.calls == calls
    with pytest.raises(StopIteration):
        next(steps)


@pytest.mark.parametrize("sampler", sorted(set(DISTINCT) - {"dpm_adaptive", "uni_pc", "uni_pc_bh2"}))
def test_a_step_shows_after_its_first_evaluation(sampler: str) -> None:
    denoise = ClosedFormDenoiser()
    next(start(sampler, "karras", 12, denoise=denoise))
    assert denoise.calls == 1


def test_deterministic_samplers_agree_in_the_limit() -> None:
    """Euler and its higher orders solve one equation, so with many steps they meet."""
    fine = run_to_end(start("heun", "karras", 200))[1]
    for sampler in ("euler", "dpm_2", "lms", "dpmpp_2m", "uni_pc", "ddim"):
        coarse = run_to_end(start(sampler, "karras", 200))[1]
        torch.testing.assert_close(coarse, fine, rtol=0, atol=0.03)


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match=r"'eulr'.*euler_ancestral"):
        sampler_by_name("eulr")
