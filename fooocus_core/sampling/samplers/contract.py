"""What all samplers have in common: one signature, one record per step, a few formulas (specification 03, section 7).

A sampler is a generator. It yields a ``SamplerStep`` where the specification calls its step callback and returns the
final latents. Whoever iterates it may look at a step, stop by closing the generator, or change the denoiser before the
next evaluation.

Shapes: latents ``[batch, 4, h, w]`` float32 in the network's space; a sigma is a float32 scalar tensor on the CPU, so
that no step waits for the device and all arithmetic on levels is float32.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fooocus_core.sampling.noise import BrownianNoise, NoiseSource
from fooocus_core.sampling.prediction import NoiseLevels


class Denoiser(Protocol):
    """The one question that hides the whole model: what is under this noise?"""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The estimate of the clean latents, of the shape of ``x``."""


@dataclass(frozen=True)
class SamplerStep:
    """One step, seen right after its first evaluation of the model.

    ``x``: the latents before the step. ``denoised``: what the model takes them for, fit for a preview.
    """

    index: int
    x: Tensor
    denoised: Tensor


@dataclass(frozen=True)
class SamplerContext:
    """What a sampler may need beside the denoiser."""

    noise: NoiseSource
    brownian: BrownianNoise
    levels: NoiseLevels


Steps = Generator[SamplerStep, None, Tensor]


class Sampler(Protocol):
    def __call__(self, denoise: Denoiser, x: Tensor, sigmas: Tensor, context: SamplerContext) -> Steps:
        """Walk from ``x`` at ``sigmas[0]`` down the list ``[steps + 1]``."""


def slope(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """dx/dsigma of the probability flow: the noise in ``x`` per unit of sigma."""
    return (x - denoised) / sigma


def ancestral_split(sigma: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor]:
    """The level to step down to, and the noise to add there so that the variance is ``sigma_next`` squared."""
    up = sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2
    up = torch.minimum(sigma_next, up.sqrt())
    return (sigma_next**2 - up**2).sqrt(), up
