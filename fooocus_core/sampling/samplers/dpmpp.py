"""DPM-Solver++ (Lu et al. 2022) in the time -ln sigma, where a step of the clean estimate is exact."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from fooocus_core.sampling.samplers.contract import (
    Denoiser,
    SamplerContext,
    SamplerStep,
    Steps,
    ancestral_split,
    slope,
)


def dpmpp_2m(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """DPM-Solver++(2M): second order from the previous step's estimate."""
    previous: Tensor | None = None
    previous_step: Tensor | None = None
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        yield SamplerStep(index, x, denoised)
        step = sigma.log() - sigma_next.log()
        target = denoised
        if previous is not None and previous_step is not None and sigma_next > 0:
            lean = 1 / (2 * (previous_step / step))
            target = (1 + lean) * denoised - lean * previous
        x = (sigma_next / sigma) * x - (-step).expm1() * target
        previous, previous_step = denoised, step
    return x


def dpmpp_2s_ancestral(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """DPM-Solver++(2S): second order from an evaluation in the middle of the step, noised back up."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        yield SamplerStep(index, x, denoised)
        down, up = ancestral_split(sigma, sigma_next)
        x = _two_stage_step(denoise, x, sigma, down, denoised)
        if sigma_next > 0:
            x = x + context.noise.step(x) * up
    return x


def _two_stage_step(denoise: Denoiser, x: Tensor, sigma: Tensor, down: Tensor, denoised: Tensor) -> Tensor:
    if down == 0:
        return x + slope(x, sigma, denoised) * (down - sigma)
    time, time_next = -sigma.log(), -down.log()
    step = time_next - time
    middle = time + step / 2
    half_way = ((-middle).exp() / (-time).exp()) * x - (-step / 2).expm1() * denoised
    denoised = denoise(half_way, (-middle).exp())
    return ((-time_next).exp() / (-time).exp()) * x - (-step).expm1() * denoised
