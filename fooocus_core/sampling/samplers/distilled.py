"""Samplers of networks distilled to answer in a few steps, and the ancestral step of DDPM."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from fooocus_core.sampling.prediction import alpha_bars
from fooocus_core.sampling.samplers.contract import Denoiser, SamplerContext, SamplerStep, Steps, slope

TCD_GAMMA = 0.3


def lcm(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """Luo et al. 2023: believe the estimate, noise it to the next level."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x_before, denoised = x, denoise(x, sigma)
        yield SamplerStep(index, x_before, denoised)
        x = denoised
        if sigma_next > 0:
            x = x + sigma_next * context.noise.step(x)
    return x


def tcd(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """Zheng et al. 2024: step below the next level (by ``TCD_GAMMA`` of its time), then noise back up to it."""
    shares = _tcd_signal_shares(sigmas, context)
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        share = shares[index + 1]
        below = share.sqrt() * denoised + (1 - share).sqrt() * slope(x, sigma, denoised)
        yield SamplerStep(index, x, below)
        if sigma_next > 0:
            # Below 0 only on a table the method was not made for, where the reference turns into NaN.
            added = (sigma_next**2 + 1 - 1 / share).clamp(min=0).sqrt()
            x = below / share.sqrt() + context.noise.step(x) * added
        else:
            x = below * (1 + sigma_next**2).sqrt()
    return x


def _tcd_signal_shares(sigmas: Tensor, context: SamplerContext) -> Tensor:
    """The signal share at the lowered time of every level, ``[steps + 1]`` float32; the last time is 0."""
    times = ((1 - TCD_GAMMA) * context.levels.timestep_of_sigma(sigmas[:-1])).floor().long()
    times = torch.cat([times, times.new_zeros(1)]).clamp(min=0)
    return alpha_bars().float()[times]


def ddpm(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """Ho et al. 2020, algorithm 2, in latents rescaled to keep their variance."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        yield SamplerStep(index, x, denoised)
        share, share_next = 1 / (sigma**2 + 1), 1 / (sigma_next**2 + 1)
        alpha = share / share_next
        preserved = x / (1 + sigma**2).sqrt()
        noise = slope(x, sigma, denoised)
        x = (1 / alpha).sqrt() * (preserved - (1 - alpha) * noise / (1 - share).sqrt())
        if sigma_next > 0:
            variance = (1 - alpha) * (1 - share_next) / (1 - share)
            x = (x + variance.sqrt() * context.noise.step(x)) * (1 + sigma_next**2).sqrt()
    return x
