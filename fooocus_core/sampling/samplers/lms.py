"""The linear multistep method: a polynomial through the last slopes, integrated over the step."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor

from fooocus_core.sampling.samplers.contract import Denoiser, SamplerContext, SamplerStep, Steps, slope

MAX_ORDER = 4
# Two points of Gauss and Legendre integrate polynomials up to degree 3 exactly, and order 4 needs no more.
_GAUSS_POINTS = (-1 / math.sqrt(3), 1 / math.sqrt(3))


def lms(denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
    """Adams-Bashforth on uneven steps, order 4 once there are four slopes."""
    levels: list[float] = sigmas.tolist()
    slopes: list[Tensor] = []
    for index, (sigma, _) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        slopes = [slope(x, sigma, denoised), *slopes][:MAX_ORDER]
        yield SamplerStep(index, x, denoised)
        known = levels[index::-1][: len(slopes)]
        for position, past in enumerate(slopes):
            x = x + past * _coefficient(known, position, levels[index], levels[index + 1])
    return x


def _coefficient(known: list[float], position: int, start: float, end: float) -> float:
    """The integral from start to end of the Lagrange polynomial that is 1 at ``known[position]``, 0 at the others."""
    middle, half = (start + end) / 2, (end - start) / 2
    others = [level for place, level in enumerate(known) if place != position]

    def lagrange(level: float) -> float:
        return math.prod((level - other) / (known[position] - other) for other in others)

    return half * sum(lagrange(middle + half * point) for point in _GAUSS_POINTS)
