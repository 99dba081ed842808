"""Restart sampling (Xu et al. 2023): Heun steps, and near the end back up with fresh noise and down once more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fooocus_core.sampling.samplers.contract import Denoiser, SamplerContext, SamplerStep, Steps
from fooocus_core.sampling.samplers.heun import heun_step
from fooocus_core.sampling.schedules import karras_between

RESTART_AT_SIGMA, RESTART_TO_SIGMA = 0.1, 2.0


@dataclass(frozen=True)
class _Restart:
    """``times`` runs of ``steps`` steps between the two levels."""

    steps: int
    times: int


def restart(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """The paid-for steps are split between the main list and the restart; short lists have none."""
    previous_end = sigmas[0]
    for index, (sigma, sigma_next) in enumerate(_step_pairs(sigmas)):
        if sigma > previous_end:
            x = x + context.noise.step(x) * (sigma**2 - previous_end**2).sqrt()
        denoised = denoise(x, sigma)
        yield SamplerStep(index, x, denoised)
        x = heun_step(denoise, x, sigma, sigma_next, denoised)
        previous_end = sigma_next
    return x


def _step_pairs(sigmas: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """All steps in order as (from, to)."""
    plan = _restart_of(len(sigmas) - 1)
    if plan is None:
        yield from pairwise(sigmas)
        return
    main = _with_zero(sigmas, len(sigmas) - 1 - plan.steps * plan.times)
    low, high = _nearest(main, RESTART_AT_SIGMA), _nearest(main, RESTART_TO_SIGMA)
    for index, pair in enumerate(pairwise(main)):
        yield pair
        if index + 1 == low and high < low:
            detour = karras_between(main[low].item(), main[high].item(), plan.steps + 1)
            for _ in range(plan.times):
                yield from pairwise(detour)


def _restart_of(steps: int) -> _Restart | None:
    if steps >= 36:
        return _Restart(steps // 4, times=2)
    if steps >= 20:
        return _Restart(9, times=1)
    return None


def _with_zero(sigmas: Tensor, steps: int) -> Tensor:
    """A Karras list of ``steps`` steps between the ends of another list."""
    return torch.cat([karras_between(sigmas[-2].item(), sigmas[0].item(), steps), torch.zeros(1)])


def _nearest(sigmas: Tensor, level: float) -> int:
    return int((sigmas - level).abs().argmin())
