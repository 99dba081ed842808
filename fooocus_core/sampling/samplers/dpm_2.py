"""DPM-Solver-2 as Karras et al. 2022 state it: the slope at the middle of the step in ln sigma."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from fooocus_core.sampling.samplers.contract import (
    Denoiser,
    SamplerContext,
    SamplerStep,
    Steps,
    ancestral_split,
    slope,
)


def dpm_2(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """Second order, two evaluations a step."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        yield SamplerStep(index, x, denoised)
        x = _midpoint_step(denoise, x, sigma, sigma_next, denoised)
    return x


def dpm_2_ancestral(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """The same steps, too far down and noised back up."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        yield SamplerStep(index, x, denoised)
        down, up = ancestral_split(sigma, sigma_next)
        x = _midpoint_step(denoise, x, sigma, down, denoised)
        if down > 0:
            x = x + context.noise.step(x) * up
    return x


def _midpoint_step(denoise: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor, denoised: Tensor) -> Tensor:
    first = slope(x, sigma, denoised)
    if sigma_next == 0:
        return x + first * (sigma_next - sigma)
    middle = torch.lerp(sigma.log(), sigma_next.log(), 0.5).exp()
    half_way = x + first * (middle - sigma)
    return x + slope(half_way, middle, denoise(half_way, middle)) * (sigma_next - sigma)
