"""The guided denoiser: one question of a sampler becomes one call of the network (specification 03, section 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fooocus_core.conditioning.adm import PromptSide, is_early, select_timed_adm
from fooocus_core.conditioning.conditioning import Conditioning
from fooocus_core.sampling.guidance import GuidanceSettings, guided_residual
from fooocus_core.sampling.network import Control, NetworkCall, NoisePredictor
from fooocus_core.sampling.prediction import Prediction
from fooocus_core.sampling.shortcuts import NO_SHORTCUTS, Shortcuts
from fooocus_core.sampling.transfer import sent

__all__ = ["GuidanceSettings", "GuidedDenoiser", "NoisePredictor", "progress_of"]

LAST_TIMESTEP = 999
MAX_TILES = 4
"""How often the shorter text may be repeated to meet the longer one in one batch."""


@dataclass(frozen=True)
class _Batch:
    """The rows of one network call. ``adm`` may still hold both halves of the timed form."""

    sides: tuple[PromptSide, ...]
    context: Tensor
    adm: Tensor | None


class GuidedDenoiser:
    """Estimates the clean latents at a noise level, steered by the two sides of a prompt.

    ``tile_texts``: whether texts of unequal length may be repeated to share a call (02, section 8).
    """

    def __init__(
        self,
        network: NoisePredictor,
        prediction: Prediction,
        positive: Conditioning,
        negative: Conditioning,
        settings: GuidanceSettings,
        *,
        control: Control | None = None,
        tile_texts: bool = True,
        shortcuts: Shortcuts = NO_SHORTCUTS,
    ) -> None:
        self._network = network
        self._prediction = prediction
        self._settings = settings
        self._control = control
        self._shortcuts = shortcuts
        self._memory = shortcuts.memory()
        self._halves: dict[tuple[int, bool], Tensor] = {}
        self._positive = positive
        both: dict[PromptSide, Conditioning] = {"negative": negative, "positive": positive}
        self._batches = _batches(both, network, tile_texts) if settings.uses_negative else self._unguided
        self._latest: tuple[Tensor, Tensor] | None = None

    @property
    def noise_estimate(self) -> Tensor:
        """The unit noise the latest call found, ``[1, 4, h, w]`` (the ``vae`` swap of section 8 reads it).

        Raises ``RuntimeError`` before the first call.
        """
        if self._latest is None:
            raise RuntimeError("no noise is estimated before the first call")
        residual, sigma = self._latest
        return residual / sigma

    @torch.no_grad()
    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The estimate ``[1, 4, h, w]`` float32 for ``x`` of that shape; ``sigma`` is a scalar tensor on the CPU."""
        timestep = self._prediction.levels.timestep_of_sigma(sigma)
        progress = progress_of(timestep, self._network.dtype)
        is_guided = self._settings.uses_negative and self._shortcuts.guides(progress)
        batches = self._batches if is_guided else self._unguided
        estimates = torch.cat([self._estimates(x, sigma, timestep, progress, batch) for batch in batches])
        if not is_guided:
            self._latest = x - estimates, sigma
            return estimates
        negative, positive = estimates.chunk(2)
        residual = guided_residual(x, positive, negative, self._settings, progress)
        self._latest = residual, sigma
        return x - residual

    def _adm(self, batch: _Batch, timestep: Tensor, timesteps: Tensor) -> Tensor | None:
        """The half that is shown now: the same tensor as long as it is the same half, so that a network knows it."""
        if batch.adm is None:
            return None
        half = (id(batch), bool(is_early(timestep, self._settings.adm_end)))
        if half not in self._halves:
            settings, width = self._settings, self._network.adm_width
            self._halves[half] = select_timed_adm(batch.adm, timesteps, settings.adm_end, width)
        return self._halves[half]

    @cached_property
    def _unguided(self) -> list[_Batch]:
        """The positive side alone."""
        return _batches({"positive": self._positive}, self._network, tile_texts=False)

    def _estimates(self, x: Tensor, sigma: Tensor, timestep: Tensor, progress: float, batch: _Batch) -> Tensor:
        """The clean latents as each row of the batch sees them."""
        rows = len(batch.context)
        # Written there, not copied: a copy would wait until the device has done all that it was told.
        number = timestep.item()
        timesteps = torch.full((rows,), number, dtype=timestep.dtype, device=x.device)
        adm = self._adm(batch, timestep, timesteps)
        scaled = self._prediction.scale_input(x, sigma).expand(rows, -1, -1, -1)
        residuals = None
        if self._control is not None:
            residuals = self._control.residuals(scaled, timesteps, batch.context, adm, sigma.item(), batch.sides)
        call = NetworkCall(batch.sides, progress, residuals, memory=self._memory, timestep=number)
        output = self._network(scaled, timesteps, batch.context, adm, call)
        return self._prediction.denoised(output, x, sigma)


def progress_of(timestep: Tensor, dtype: torch.dtype) -> float:
    """How far the run has come, 0 to 1, with the rounding of the network's dtype."""
    return float(1 - timestep.to(dtype) / LAST_TIMESTEP)


def _batches(texts: dict[PromptSide, Conditioning], network: NoisePredictor, tile_texts: bool) -> list[_Batch]:
    """All sides in one call where their texts can be brought to one length, else a call each."""
    tokens = _common_length([side.context.shape[1] for side in texts.values()], MAX_TILES if tile_texts else 1)
    groups = [texts] if tokens is not None else [{side: text} for side, text in texts.items()]
    return [_batch(group, tokens, network) for group in groups]


def _batch(texts: dict[PromptSide, Conditioning], tokens: int | None, network: NoisePredictor) -> _Batch:
    """Rows of the sides' contexts, each repeated to ``tokens``, on the network's device and in its dtype."""
    contexts = [side.context if tokens is None else _tiled(side.context, tokens) for side in texts.values()]
    vectors = [side.adm for side in texts.values() if side.adm is not None]
    return _Batch(
        tuple(texts),
        sent(torch.cat(contexts).to(network.dtype), network.device),
        sent(torch.cat(vectors).to(network.dtype), network.device) if vectors else None,
    )


def _common_length(lengths: list[int], max_tiles: int) -> int | None:
    """The length to repeat all texts to, ``None`` where that takes too many repeats (02, section 8)."""
    common = math.lcm(*lengths)
    return common if common // min(lengths) <= max_tiles else None


def _tiled(context: Tensor, tokens: int) -> Tensor:
    return context.repeat(1, tokens // context.shape[1], 1)
