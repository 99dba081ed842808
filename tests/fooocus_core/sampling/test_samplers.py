"""Every sampler under every scheduler, on a denoiser one can write down."""

from __future__ import annotations

import pytest
import torch

from fooocus_core.errors import InvalidRequest
from fooocus_core.sampling.names import SAMPLER_NAMES, SCHEDULER_NAMES
from fooocus_core.sampling.noise import BrownianNoise, NoiseSource
from fooocus_core.sampling.sample import resolve_scheduler
from fooocus_core.sampling.samplers.contract import SamplerContext, Steps
from fooocus_core.sampling.samplers.registry import SAMPLERS, sampler_by_name
from fooocus_core.sampling.schedules import brownian_range, effective_sigmas, range_sigmas
from fooocus_core.sampling.start import start_latents
from tests.fooocus_core.sampling.closed_form import ClosedFormDenoiser, run_to_end

CPU = torch.device("cpu")
SHAPE = (1, 4, 7, 8)
STEPS_OF_EVALUATIONS = {"dpm_fast", "dpm_adaptive"}
"""These take steps of their own making."""

# Two names of one function behave alike; one of them is enough here.
DISTINCT = list({sampler: name for name, sampler in SAMPLERS.items()}.values())


def start(sampler: str, scheduler: str, steps: int, seed: int = 7, denoise: ClosedFormDenoiser | None = None) -> Steps:
    """A run on the closed form, not yet begun."""
    resolved = resolve_scheduler(scheduler, "eps")
    levels, name = resolved.prediction.levels, resolved.list_name
    sigmas = effective_sigmas(name, steps, 1.0, sampler, levels)
    noise = NoiseSource(seed, CPU)
    bounds = brownian_range(range_sigmas(name, steps, 1.0, sampler, levels))
    x = start_latents(noise.initial(SHAPE), torch.zeros(SHAPE), sigmas[0].item(), levels.sigma_max)
    context = SamplerContext(noise, BrownianNoise(seed, bounds, SHAPE, CPU), levels)
    return sampler_by_name(sampler)(denoise or ClosedFormDenoiser(), x, sigmas, context)


def test_every_offered_name_is_implemented() -> None:
    assert tuple(SAMPLERS) == SAMPLER_NAMES


@pytest.mark.parametrize("scheduler", SCHEDULER_NAMES)
@pytest.mark.parametrize("sampler", DISTINCT)
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_runs_and_stays_finite(sampler: str, scheduler: str, steps: int) -> None:
    seen, final = run_to_end(start(sampler, scheduler, steps))
    assert final.shape == SHAPE
    assert final.isfinite().all()
    assert [step.index for step in seen] == list(range(len(seen)))
    if sampler not in STEPS_OF_EVALUATIONS and scheduler not in {"turbo", "ddim_uniform"}:
        assert len(seen) == steps


@pytest.mark.parametrize("sampler", DISTINCT)
def test_two_hundred_steps(sampler: str) -> None:
    assert run_to_end(start(sampler, "karras", 200))[1].isfinite().all()


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
