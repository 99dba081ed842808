"""FreeU (Si et al. 2023), second version: a stronger backbone, weaker low frequencies of the skips.

Specification 03, section 10. diffusers' FreeU is another form: its backbone factor does not follow the picture, and it
picks the pair of factors by level instead of by width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fooocus_core.plan import FreeU
from fooocus_core.sampling.network import Join


def freeu_join(settings: FreeU, model_channels: int) -> Join:
    """What becomes of backbone and skip before a network of such a width joins them."""
    pairs = freeu_factors(settings, model_channels)

    def join(backbone: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        pair = pairs.get(backbone.shape[1])
        return (backbone, skip) if pair is None else freeu_block(backbone, skip, *pair)

    return join


def freeu_factors(settings: FreeU, model_channels: int) -> dict[int, tuple[float, float]]:
    """Backbone channels of an output block to its factors for backbone and skip; all other blocks take none."""
    return {4 * model_channels: (settings.b1, settings.s1), 2 * model_channels: (settings.b2, settings.s2)}


def freeu_block(hidden: Tensor, skip: Tensor, backbone: float, skips: float) -> tuple[Tensor, Tensor]:
    """What one output block joins: backbone ``[batch, c, h, w]`` and skip ``[batch, d, h, w]``."""
    mean = hidden.mean(1, keepdim=True)
    low, high = mean.amin((2, 3), keepdim=True), mean.amax((2, 3), keepdim=True)
    factor = (backbone - 1) * (mean - low) / (high - low) + 1
    half = hidden.shape[1] // 2
    return torch.cat([hidden[:, :half] * factor, hidden[:, half:]], 1), _dampened(skip, skips)


def _dampened(skip: Tensor, factor: float) -> Tensor:
    """The 2 x 2 lowest frequencies multiplied by ``factor``; in float32, the transform's own precision."""
    if factor == 1:
        return skip  # the way there and back would round it
    spectrum = torch.fft.fftshift(torch.fft.fft2(skip.float()), dim=(-2, -1))
    row, column = (side // 2 for side in skip.shape[-2:])
    spectrum[..., max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1] *= factor
    dampened: Tensor = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1))).real
    return dampened.to(skip.dtype)
