"""DPM-Solver++ for the reverse SDE (eta 1), its noise taken from one Brownian path.

The ``_gpu`` names are the same samplers: the path lives on the sampling device either way.
"""

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


def dpmpp_2m_sde(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """Second order, multistep, midpoint form."""
    previous: Tensor | None = None
    previous_step: Tensor | None = None
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        yield SamplerStep(index, x, denoised)
        if sigma_next == 0:
            x = denoised
            continue
        step = sigma.log() - sigma_next.log()
        gain = -(-2 * step).expm1()
        x = sigma_next / sigma * (-step).exp() * x + gain * denoised
        if previous is not None and previous_step is not None:
            x = x + 0.5 * gain * (step / previous_step) * (denoised - previous)
        x = x + context.brownian(sigma, sigma_next, x) * (sigma_next * gain.sqrt())
        previous, previous_step = denoised, step
    return x


def dpmpp_3m_sde(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """Third order, multistep."""
    estimates: list[Tensor] = []
    steps: list[Tensor] = []
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        yield SamplerStep(index, x, denoised)
        if sigma_next == 0:
            x = denoised
            continue
        step = sigma.log() - sigma_next.log()
        decay = 2 * step
        x = (-decay).exp() * x - (-decay).expm1() * denoised
        x = x + _higher_orders(denoised, estimates, step, steps)
        x = x + context.brownian(sigma, sigma_next, x) * (sigma_next * (-(-2 * step).expm1()).sqrt())
        estimates, steps = [denoised, *estimates][:2], [step, *steps][:2]
    return x


def _higher_orders(denoised: Tensor, estimates: list[Tensor], step: Tensor, steps: list[Tensor]) -> Tensor:
    """What the last one or two estimates (newest first) add to the first-order step; 0 without any."""
    decay = 2 * step
    phi_2 = (-decay).expm1() / decay + 1
    match estimates, steps:
        case [last, before], [step_1, step_2]:
            ratio_0, ratio_1 = step_1 / step, step_2 / step
            near, far = (denoised - last) / ratio_0, (last - before) / ratio_1
            first = near + (near - far) * ratio_0 / (ratio_0 + ratio_1)
            second = (near - far) / (ratio_0 + ratio_1)
            phi_3 = phi_2 / decay - 0.5
            return phi_2 * first - phi_3 * second
        case [last], [step_1]:
            return phi_2 * ((denoised - last) / (step_1 / step))
        case _:
            return denoised.new_zeros(())


def dpmpp_sde(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """Second order, an evaluation in the middle of each step, noise at both."""
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        yield SamplerStep(index, x, denoised)
        if sigma_next == 0:
            x = x + slope(x, sigma, denoised) * (sigma_next - sigma)
            continue
        time, time_next = -sigma.log(), -sigma_next.log()
        middle = time + (time_next - time) / 2
        half_way = _noised_step(x, denoised, time, middle, context)
        x = _noised_step(x, denoise(half_way, (-middle).exp()), time, time_next, context)
    return x


def _noised_step(x: Tensor, denoised: Tensor, time: Tensor, time_next: Tensor, context: SamplerContext) -> Tensor:
    """One ancestral step in the time -ln sigma.

    The levels are formed anew from the times, and the Brownian path is asked at those: one unit in the last place of a
    logarithm moves the result by 5e-4 (specification 03, section 7).
    """
    sigma, sigma_next = (-time).exp(), (-time_next).exp()
    down, up = ancestral_split(sigma, sigma_next)
    time_down = -down.log()
    x = (-time_down).exp() / sigma * x - (time - time_down).expm1() * denoised
    return x + context.brownian(sigma, sigma_next, x) * up
