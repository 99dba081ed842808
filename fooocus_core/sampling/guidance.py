"""How two estimates of the clean latents become one: sharpness, guidance, adaptive guidance.

Specification 03, section 6. Latents are ``[batch, 4, h, w]`` float32; a *residual* is ``x`` minus an estimate, that is,
the noise scaled by sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from fooocus_core.errors import InvalidRequest

REACH = 6
"""Cells that the filter's window extends to each side."""
WINDOW = 2 * REACH + 1
SPATIAL_DEVIATION = 3.0
RANGE_DEVIATION = 3.0
STANDARDISING_MARGIN = 1e-5
SHARPNESS_UNIT = 0.001
NO_GUIDANCE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class GuidanceSettings:
    """``scale``: how far to go from the negative to the positive estimate (1: the positive alone, as it is).
    ``sharpness``: 0 to 30. ``adaptive_scale``: the scale that early steps keep to where ``scale`` is above it.
    ``adm_end``: the share of the run (0 to 1) during which the emphasised sizes are shown to the network.
    """

    scale: float
    sharpness: float
    adaptive_scale: float
    adm_end: float

    @property
    def uses_negative(self) -> bool:
        return not math.isclose(self.scale, 1.0, rel_tol=NO_GUIDANCE_TOLERANCE)


def guided_residual(
    x: Tensor, positive: Tensor, negative: Tensor, settings: GuidanceSettings, progress: float
) -> Tensor:
    """The residual to subtract from ``x``, from both estimates of the clean latents. ``progress``: 0 to 1."""
    if not settings.uses_negative:
        return x - positive
    residual_negative = x - negative
    residual_positive = sharpened(x - positive, positive, SHARPNESS_UNIT * settings.sharpness * progress)
    direction = residual_positive - residual_negative
    residual = residual_negative + settings.scale * direction
    if settings.scale <= settings.adaptive_scale:
        return residual
    return progress * residual + (1 - progress) * (residual_negative + settings.adaptive_scale * direction)


def sharpened(residual: Tensor, guide: Tensor, share: float) -> Tensor:
    """The residual mixed with its filtered version: smoother noise taken away leaves more detail behind."""
    if share == 0:
        return residual  # the filter would count for nothing; it is the most expensive step outside the network
    return share * anisotropic_filter(residual, guide) + (1 - share) * residual


def anisotropic_filter(x: Tensor, guide: Tensor) -> Tensor:
    """Joint bilateral filter: smooth ``x`` within what looks alike in ``guide``, both ``[batch, channels, h, w]``.

    Raises ``InvalidRequest`` for a side below 7 cells, which cannot be mirrored at its edges.
    """
    height, width = x.shape[-2:]
    if min(height, width) <= REACH:
        raise InvalidRequest("sharpness", f"needs latents of at least {REACH + 1} x {REACH + 1} cells")
    guide = _standardised(guide)
    values, guides, centre = _columns_of_windows(x), _columns_of_windows(guide), guide.unsqueeze(2)
    weighted, total = torch.zeros_like(x), torch.zeros_like(x[:, :1])
    # Row by row of the window: all of it at once would hold 169 copies of the latents.
    for row, weights in enumerate(_window_weights(x.device)):
        distance = (guides.narrow(3, row, height) - centre).abs().sum(dim=1)
        weight = (distance.square() * (-0.5 / RANGE_DEVIATION**2)).exp() * weights.view(-1, 1, 1)
        weighted += (values.narrow(3, row, height) * weight.unsqueeze(1)).sum(dim=2)
        total += weight.sum(dim=1, keepdim=True)
    return weighted / total


def _standardised(guide: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over each sample."""
    deviation, mean = torch.std_mean(guide, dim=(1, 2, 3), keepdim=True)
    return (guide - mean) / (deviation + STANDARDISING_MARGIN)


def _columns_of_windows(x: Tensor) -> Tensor:
    """Views of the padded ``x`` shifted by each column of the window: ``[batch, channels, 13, h + 12, w]``."""
    padded = pad(x, (REACH, REACH, REACH, REACH), mode="reflect")
    return padded.unfold(3, WINDOW, 1).movedim(-1, 2)


def _window_weights(device: torch.device) -> Tensor:
    """The spatial weights ``[13, 13]``: a normalised Gaussian each way."""
    offsets = torch.arange(WINDOW, device=device, dtype=torch.float32) - REACH
    gauss = (offsets.square() * (-0.5 / SPATIAL_DEVIATION**2)).exp()
    gauss = gauss / gauss.sum()
    return gauss[:, None] * gauss[None, :]
