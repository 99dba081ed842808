"""Inpainting inside the denoiser: outside the mask the picture is put back before and after every call.

Specification 03, section 9.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fooocus_core.sampling.samplers.contract import Denoiser
from fooocus_core.sampling.transfer import sent

BLEND_SEEDS = 2**63 - 1
"""The seeds of the blending's own noise wrap here, one earlier than those of the pictures."""


@dataclass(frozen=True)
class InpaintTask:
    """``mask``: ``[1, 1, h, w]``, 1 where to repaint. ``latent``: ``[1, 4, h, w]``, what stays elsewhere, un-scaled.

    ``swapped_latent``: the same as a refiner with its own autoencoder encodes it, for its run of the ``vae`` swap.
    """

    mask: Tensor
    latent: Tensor
    swapped_latent: Tensor | None = None


class BlendedDenoiser:
    """A denoiser that repaints inside ``mask`` only. ``latent`` is in the network's space; ``seed`` is the run's.

    Both are float32 and where ``denoiser`` works.
    """

    def __init__(self, denoiser: Denoiser, mask: Tensor, latent: Tensor, seed: int) -> None:
        self._denoiser = denoiser
        self._mask = mask
        self._latent = latent
        self._generator = torch.Generator().manual_seed((seed + 1) % BLEND_SEEDS)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        noise = sent(torch.randn(x.shape, generator=self._generator), x.device)
        kept = 1 - self._mask
        blended = x * self._mask + (self._latent + noise * sigma) * kept
        return self._denoiser(blended, sigma) * self._mask + self._latent * kept
