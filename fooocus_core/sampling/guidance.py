"""How two estimates of the clean latents become one: sharpness, guidance, adaptive guidance.

Specification 03, section 6. Latents are ``[batch, 4, h, w]`` float32; a *residual* is ``x`` minus an estimate, that is,
the noise scaled by sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

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
MOST_WORK_BYTES = 2 * 2**20
"""The filter's intermediate values of one sample that are held at once on a CPU: what stays in its cache."""
MOST_DEVICE_WORK_BYTES = 64 * 2**20
"""The same on another device, where each block costs launches: the whole window of 128 x 128 latents takes 42 MiB."""


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

    A sample's result does not depend on what else is in the batch. Raises ``InvalidRequest`` for a side below 7 cells,
    which cannot be mirrored at its edges.
    """
    height, width = x.shape[-2:]
    if min(height, width) <= REACH:
        raise InvalidRequest("sharpness", f"needs latents of at least {REACH + 1} x {REACH + 1} cells")
    guide = _standardised(guide)
    values, guides, centre = _windows(x), _windows(guide), guide[:, :, None, None]
    spatial = _spatial_exponents(x.device)
    weighted, total = torch.zeros_like(x), torch.zeros_like(x[:, :1])
    rows = _rows_at_once(x)
    # Memory of its own: results would else take over the windows' strides, and every sum be several times slower.
    work = x.new_empty(*x.shape[:2], rows, WINDOW, height, width)
    for first in range(0, WINDOW, rows):
        block = slice(first, min(first + rows, WINDOW))
        room = work[:, :, : block.stop - first]
        distance = torch.sub(guides[:, :, block], centre, out=room).abs_().sum(dim=1)
        weight = torch.addcmul(spatial[block], distance, distance, value=-1).exp_()
        torch.mul(values[:, :, block], weight.unsqueeze(1), out=room)
        weighted += room.flatten(2, 3).sum(dim=2)
        total += weight.flatten(1, 2).sum(dim=1, keepdim=True)
    return weighted.div_(total)


def _standardised(guide: Tensor) -> Tensor:
    """Mean 0 and, over each sample, such a deviation that a distance squared is the exponent of its weight."""
    deviation, mean = torch.std_mean(guide, dim=(1, 2, 3), keepdim=True)
    return (guide - mean).div_((deviation + STANDARDISING_MARGIN) * (math.sqrt(2) * RANGE_DEVIATION))


def _windows(x: Tensor) -> Tensor:
    """Views of the mirrored ``x`` shifted by each row and column of the window: ``[batch, channels, 13, 13, h, w]``."""
    padded = pad(x, (REACH, REACH, REACH, REACH), mode="reflect")
    return padded.unfold(2, WINDOW, 1).unfold(3, WINDOW, 1).permute(0, 1, 4, 5, 2, 3)


@cache
def _spatial_exponents(device: torch.device) -> Tensor:
    """Logarithms of the spatial weights, ``[13, 13, 1, 1]``. Their sum is left open: the filter divides by it."""
    offsets = torch.arange(WINDOW, device=device, dtype=torch.float32) - REACH
    exponents = offsets.square() * (-0.5 / SPATIAL_DEVIATION**2)
    return (exponents[:, None] + exponents)[:, :, None, None]


def _rows_at_once(x: Tensor) -> int:
    """How many rows of the window are worked on together, by the size of one sample alone."""
    most = MOST_WORK_BYTES if x.device.type == "cpu" else MOST_DEVICE_WORK_BYTES
    return max(1, min(WINDOW, most // (x[0].nbytes * WINDOW)))
