"""The guided denoiser: one question of a sampler becomes one call of the network (specification 03, section 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fooocus_core.conditioning.adm import select_timed_adm
from fooocus_core.conditioning.conditioning import Conditioning
from fooocus_core.sampling.guidance import GuidanceSettings, guided_residual
from fooocus_core.sampling.prediction import Prediction

__all__ = ["GuidanceSettings", "GuidedDenoiser", "NoisePredictor", "progress_of"]

LAST_TIMESTEP = 999
MAX_TILES = 4
"""How often the shorter text may be repeated to meet the longer one in one batch."""


class NoisePredictor(Protocol):
    """The denoising network. It casts its inputs to its own dtype and answers in float32."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def adm_width(self) -> int:
        """Width of the added-condition vector that one row takes; 0 if the network has none."""

    def __call__(self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None) -> Tensor:
        """The raw prediction ``[batch, 4, h, w]`` for scaled latents of that shape, at ``timesteps`` ``[batch]``,
        under ``context`` ``[batch, tokens, channels]`` and ``adm`` ``[batch, n]``.
        """


@dataclass(frozen=True)
class _Batch:
    """The rows of one network call. ``adm`` may still hold both halves of the timed form."""

    context: Tensor
    adm: Tensor | None


class GuidedDenoiser:
    """Estimates the clean latents at a noise level, steered by the two sides of a prompt."""

    def __init__(
        self,
        network: NoisePredictor,
        prediction: Prediction,
        positive: Conditioning,
        negative: Conditioning,
        settings: GuidanceSettings,
    ) -> None:
        self._network = network
        self._prediction = prediction
        self._settings = settings
        sides = (negative, positive) if settings.uses_negative else (positive,)
        self._batches = _batches(sides, network)

    @torch.no_grad()
    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The estimate ``[1, 4, h, w]`` float32 for ``x`` of that shape; ``sigma`` is a scalar tensor on the CPU."""
        timestep = self._prediction.levels.timestep_of_sigma(sigma)
        estimates = torch.cat([self._estimates(x, sigma, timestep, batch) for batch in self._batches])
        if not self._settings.uses_negative:
            return estimates
        negative, positive = estimates.chunk(2)
        progress = progress_of(timestep, self._network.dtype)
        return x - guided_residual(x, positive, negative, self._settings, progress)

    def _estimates(self, x: Tensor, sigma: Tensor, timestep: Tensor, batch: _Batch) -> Tensor:
        """The clean latents as each row of the batch sees them."""
        rows = len(batch.context)
        timesteps = timestep.to(x.device).expand(rows)
        adm = batch.adm
        if adm is not None:
            adm = select_timed_adm(adm, timesteps, self._settings.adm_end, self._network.adm_width)
        scaled = self._prediction.scale_input(x, sigma).expand(rows, -1, -1, -1)
        output = self._network(scaled, timesteps, batch.context, adm)
        return self._prediction.denoised(output, x, sigma)


def progress_of(timestep: Tensor, dtype: torch.dtype) -> float:
    """How far the run has come, 0 to 1, with the rounding of the network's dtype."""
    return float(1 - timestep.to(dtype) / LAST_TIMESTEP)


def _batches(sides: tuple[Conditioning, ...], network: NoisePredictor) -> list[_Batch]:
    """All sides in one call where their texts can be brought to one length, else a call each."""
    tokens = _common_length([side.context.shape[1] for side in sides])
    groups = [sides] if tokens is not None else [(side,) for side in sides]
    return [_batch(group, tokens, network) for group in groups]


def _batch(sides: tuple[Conditioning, ...], tokens: int | None, network: NoisePredictor) -> _Batch:
    """Rows of the sides' contexts, each repeated to ``tokens``, on the network's device and in its dtype."""
    contexts = [side.context if tokens is None else _tiled(side.context, tokens) for side in sides]
    vectors = [side.adm for side in sides if side.adm is not None]
    return _Batch(
        torch.cat(contexts).to(network.device, network.dtype),
        torch.cat(vectors).to(network.device, network.dtype) if vectors else None,
    )


def _common_length(lengths: list[int]) -> int | None:
    """The length to repeat all texts to, ``None`` where that takes too many repeats (02, section 8)."""
    common = math.lcm(*lengths)
    return common if common // min(lengths) <= MAX_TILES else None


def _tiled(context: Tensor, tokens: int) -> Tensor:
    return context.repeat(1, tokens // context.shape[1], 1)
