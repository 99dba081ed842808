"""Heun's method: slopes at both ends of a step, and its three-slope variant."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from fooocus_core.sampling.samplers.contract import Denoiser, SamplerContext, SamplerStep, Steps, slope


def heun(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """Karras et al. 2022, algorithm 2 without churn: the mean of the slopes at both ends."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        yield SamplerStep(index, x, denoised)
        x = heun_step(denoise, x, sigma, sigma_next, denoised)
    return x


def heun_step(denoise: Denoiser, x: Tensor, sigma: Tensor, sigma_next: Tensor, denoised: Tensor) -> Tensor:
    """One step from ``x`` with its first evaluation at hand; down to 0 it is Euler's."""
    first = slope(x, sigma, denoised)
    step = sigma_next - sigma
    if sigma_next == 0:
        return x + first * step
    ahead = x + first * step
    second = slope(ahead, sigma_next, denoise(ahead, sigma_next))
    return x + (first + second) / 2 * step


def heunpp2(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """Up to three slopes, each weighted by its level's share of the first level."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        context.noise.step(x)  # drawn and not used: the generator must stand where the reference's does
        denoised = denoise(x, sigma)
        yield SamplerStep(index, x, denoised)
        first = slope(x, sigma, denoised)
        x = x + _weighted_slope(denoise, x, sigmas, index, first) * (sigma_next - sigma)
    return x


def _weighted_slope(denoise: Denoiser, x: Tensor, sigmas: Tensor, index: int, first: Tensor) -> Tensor:
    sigma, sigma_next, last = sigmas[index], sigmas[index + 1], sigmas[-1]
    if sigma_next == last:
        return first
    ahead = x + first * (sigma_next - sigma)
    second = slope(ahead, sigma_next, denoise(ahead, sigma_next))
    sigma_after = sigmas[index + 2]
    if sigma_after == last:
        weight = sigma_next / (2 * sigmas[0])
        return first * (1 - weight) + second * weight
    further = ahead + second * (sigma_after - sigma_next)
    third = slope(further, sigma_after, denoise(further, sigma_after))
    weight_2, weight_3 = sigma_next / (3 * sigmas[0]), sigma_after / (3 * sigmas[0])
    return first * (1 - weight_2 - weight_3) + second * weight_2 + third * weight_3
