"""Euler's method on the probability flow, without and with fresh noise."""

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


def euler(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """Karras et al. 2022, algorithm 2 with neither churn nor correction."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        yield SamplerStep(index, x, denoised)
        x = x + slope(x, sigma, denoised) * (sigma_next - sigma)
    return x


def ddim(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """DDIM in these variables is Euler's step. The reference also seeds its generators anew, one higher."""
    context.noise.reseed(context.noise.seed + 1)
    return (yield from euler(denoise, x, sigmas, context))


def euler_ancestral(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """Euler steps that go too far down and are noised back up."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        down, up = ancestral_split(sigma, sigma_next)
        yield SamplerStep(index, x, denoised)
        x = x + slope(x, sigma, denoised) * (down - sigma)
        if sigma_next > 0:
            x = x + context.noise.step(x) * up
    return x
