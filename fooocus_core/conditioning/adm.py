"""The vector of pooled text and picture sizes that SDXL takes beside the text (specification 02, sections 6 and 7)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

SIZE_WIDTH = 256
"""Values per embedded number."""
REFINER_SCORES = {"positive": 6.0, "negative": 2.5}
_LAST_TIMESTEP = 999.0

PromptSide = Literal["positive", "negative"]


def embed_numbers(numbers: list[float]) -> Tensor:
    """Each number at 128 frequencies from 1 down to nearly 1/10000, cosines before sines: ``[1, 256 * len]``."""
    half = SIZE_WIDTH // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32) / half)
    angles = torch.tensor(numbers, dtype=torch.float32)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1).reshape(1, -1)


def size_vectors(width_px: int, height_px: int, scale: float) -> tuple[Tensor, Tensor]:
    """Fooocus's two size conditionings, ``[1, 1536]`` each: the emphasised and the consistent one.

    ``scale`` is the ADM scaler of the prompt's side; sizes are those of the sampled latent times 8. Targets round to
    64 with ties to even, as Python's ``round`` does.
    """
    target = [64.0 * round(height_px / 64), 64.0 * round(width_px / 64)]
    emphasised = [float(int(height_px * scale)), float(int(width_px * scale))]
    return embed_numbers([*emphasised, 0.0, 0.0, *target]), embed_numbers([*target, 0.0, 0.0, *target])


def base_adm(pooled: Tensor, width_px: int, height_px: int, scale: float) -> Tensor:
    """Fooocus's vector of double width for an SDXL base: ``[1, 2 * (pooled width + 1536)]``, emphasised half first.

    ``pooled``: ``[1, n]`` float32 (n = 1280 for SDXL; smaller models bring their own).
    """
    emphasised, consistent = (sizes.to(pooled.device) for sizes in size_vectors(width_px, height_px, scale))
    return torch.cat([pooled, emphasised, pooled, consistent], dim=1)


def refiner_sizes(width_px: int, height_px: int, side: PromptSide) -> Tensor:
    """The refiner's plain sizes and aesthetic score: ``[1, 1280]``."""
    return embed_numbers([float(height_px), float(width_px), 0.0, 0.0, REFINER_SCORES[side]])


def refiner_adm(pooled: Tensor, width_px: int, height_px: int, side: PromptSide) -> Tensor:
    """The vector of an SDXL refiner: ``[1, pooled width + 1280]``."""
    return torch.cat([pooled, refiner_sizes(width_px, height_px, side).to(pooled.device)], dim=1)


def select_timed_adm(adm: Tensor, timesteps: Tensor, adm_end: float, network_width: int) -> Tensor:
    """Choose per row which half of a double-width vector the network sees: ``[batch, network_width]``.

    ``timesteps``: ``[batch]`` floats 0 ... 999. The emphasised half is used while ``t > 999 (1 - adm_end)``, the
    consistent one afterwards. A vector of any other width passes unchanged.
    """
    if adm.shape[1] != 2 * network_width:
        return adm
    emphasised, consistent = adm[:, :network_width], adm[:, network_width:]
    early = is_early(timesteps.to(adm.device), adm_end)
    return torch.where(early[:, None], emphasised, consistent)


def is_early(timesteps: Tensor, adm_end: float) -> Tensor:
    """Whether the emphasised sizes are shown at each of ``timesteps``."""
    return timesteps > _LAST_TIMESTEP * (1.0 - adm_end)
