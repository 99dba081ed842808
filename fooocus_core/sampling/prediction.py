"""What the network predicts: its noise table, how its input is scaled, how its output becomes a clean latent.

Specification 03, sections 1 and 2. ``sigma`` is a float32 tensor of shape ``[]`` or ``[batch]`` everywhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from fooocus_core.sampling import float32

PredictionKind = Literal["eps", "v"]
"""What a checkpoint says of itself."""

TIMESTEPS = 1000
DISTILLED_STRIDE = 20
EDM_SIGMA_MIN, EDM_SIGMA_MAX = 0.002, 120.0

# What "no noise removed yet" means as a level: above anything a sampler uses.
SIGMA_BEFORE_START = 999999999.9


# ---------------------------------------------------------------- noise tables


class NoiseLevels(ABC):
    """The noise levels a network was trained on, ``sigmas`` ``[n]`` float32 in increasing order, and its clock."""

    def __init__(self, sigmas: Tensor) -> None:
        self.sigmas = sigmas

    @property
    def sigma_min(self) -> float:
        return self.sigmas[0].item()

    @property
    def sigma_max(self) -> float:
        return self.sigmas[-1].item()

    @abstractmethod
    def timestep_of_sigma(self, sigma: Tensor) -> Tensor:
        """The network's time of a noise level, float32 of sigma's shape."""

    @abstractmethod
    def sigma_of_timestep(self, timestep: Tensor) -> Tensor:
        """The noise level at a time, float32 of its shape; times between table entries are interpolated."""

    @abstractmethod
    def percent_to_sigma(self, percent: float) -> float:
        """The noise level left after ``percent`` (0 to 1) of the way from pure noise to the picture."""


class DiscreteLevels(NoiseLevels):
    """A table whose entry i belongs to timestep ``stride * (i + 1) - 1``: stride 1 for the full table of 1000."""

    def __init__(self, sigmas: Tensor, stride: int = 1) -> None:
        super().__init__(sigmas)
        self.log_sigmas = sigmas.log()
        self._stride = stride

    def timestep_of_sigma(self, sigma: Tensor) -> Tensor:
        # In float32 on purpose: some levels lie half-way between two entries of the distilled table, and which one is
        # nearest is then the rounding of these logarithms (specification 03, section 1).
        distance = (sigma.log().unsqueeze(-1) - self.log_sigmas).abs()
        nearest = distance.argmin(dim=-1)
        return (nearest * self._stride + (self._stride - 1)).float()

    def sigma_of_timestep(self, timestep: Tensor) -> Tensor:
        position = ((timestep.float() - (self._stride - 1)) / self._stride).clamp(0, len(self.sigmas) - 1)
        below, above = position.floor().long(), position.ceil().long()
        share = position - position.floor()
        return ((1 - share) * self.log_sigmas[below] + share * self.log_sigmas[above]).exp()

    def percent_to_sigma(self, percent: float) -> float:
        if percent <= 0:
            return SIGMA_BEFORE_START
        if percent >= 1:
            return 0.0
        return self.sigma_of_timestep(torch.tensor((1 - percent) * (TIMESTEPS - 1))).item()


class ContinuousLevels(NoiseLevels):
    """Log-spaced levels whose time is a quarter of the logarithm, not an integer (the EDM table)."""

    def timestep_of_sigma(self, sigma: Tensor) -> Tensor:
        return 0.25 * sigma.log()

    def sigma_of_timestep(self, timestep: Tensor) -> Tensor:
        return (timestep.float() * 4).exp()

    def percent_to_sigma(self, percent: float) -> float:
        if percent <= 0:
            return SIGMA_BEFORE_START
        if percent >= 1:
            return 0.0
        log_min, log_max = math.log(EDM_SIGMA_MIN), math.log(EDM_SIGMA_MAX)
        return math.exp(log_min + (1 - percent) * (log_max - log_min))


@cache
def alpha_bars() -> Tensor:
    """Share of signal at each of the 1000 training timesteps, ``[1000]`` float64."""
    root_first, root_last = math.sqrt(0.00085), math.sqrt(0.012)
    betas = torch.linspace(root_first, root_last, TIMESTEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


@cache
def sdxl_levels() -> DiscreteLevels:
    """The table of SDXL (and of SD 1.x), 1000 entries."""
    return DiscreteLevels(((1 - alpha_bars()) / alpha_bars()).sqrt().float())


@cache
def distilled_levels() -> DiscreteLevels:
    """Every twentieth entry, 50 in all: what consistency-distilled networks were taught."""
    return DiscreteLevels(sdxl_levels().sigmas[DISTILLED_STRIDE - 1 :: DISTILLED_STRIDE], DISTILLED_STRIDE)


@cache
def edm_levels() -> ContinuousLevels:
    """1000 log-spaced levels from 0.002 to 120."""
    return ContinuousLevels(float32.linspace(math.log(EDM_SIGMA_MIN), math.log(EDM_SIGMA_MAX), TIMESTEPS).exp())


# --------------------------------------------------------------- latent formats


@dataclass(frozen=True)
class LatentFormat:
    """Between the latents of the VAE (un-scaled) and those the network sees; both ``[batch, 4, h, w]`` float32."""

    name: str
    scale: float
    mean: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    deviation: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)

    def process_in(self, latents: Tensor) -> Tensor:
        """VAE latents to the network's space."""
        return (latents - self._channels(self.mean, latents)) * self.scale / self._channels(self.deviation, latents)

    def process_out(self, latents: Tensor) -> Tensor:
        """The network's space back to VAE latents."""
        return latents * self._channels(self.deviation, latents) / self.scale + self._channels(self.mean, latents)

    @staticmethod
    def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
        return _constants(values, like.dtype, like.device)


@cache
def _constants(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """One value for each channel; kept, because bringing them to a device waits until that has nothing to do."""
    return torch.tensor(values, dtype=dtype).view(1, -1, 1, 1).to(device)


SDXL_LATENTS = LatentFormat("sdxl", 0.13025)
SD15_LATENTS = LatentFormat("sd15", 0.18215)
PLAYGROUND_LATENTS = LatentFormat(
    "playground_v2.5",
    0.5,
    mean=(-1.6574, 1.886, -1.383, 2.5155),
    deviation=(8.4927, 5.9022, 6.5498, 5.2299),
)


# -------------------------------------------------------------- predictions


class Prediction(ABC):
    """One way a network states its answer. The base class scales the input; a subclass reads the output."""

    data_sigma = 1.0

    def __init__(self, levels: NoiseLevels, latent_format: LatentFormat = SDXL_LATENTS) -> None:
        self.levels = levels
        self.latent_format = latent_format

    def scale_input(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The noisy latents ``[batch, 4, h, w]`` as the network wants them, about unit variance."""
        return x / self._total_deviation(_per_row(sigma))

    @abstractmethod
    def denoised(self, model_output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The estimate of the clean latents from the network's float32 output at ``x``."""

    def _total_deviation(self, sigma: Tensor) -> Tensor:
        return (sigma**2 + self.data_sigma**2).sqrt()


class EpsPrediction(Prediction):
    """The network names the noise."""

    def denoised(self, model_output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        return x - _per_row(sigma) * model_output


class VPrediction(Prediction):
    """The network names the velocity, a mixture of noise and minus picture."""

    def denoised(self, model_output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        sigma = _per_row(sigma)
        return x / (sigma**2 + 1) - model_output * (sigma / self._total_deviation(sigma))


class EdmPrediction(Prediction):
    """The preconditioned form of Karras et al. 2022 with data deviation 0.5, as Playground v2.5 was trained."""

    data_sigma = 0.5

    def denoised(self, model_output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        sigma = _per_row(sigma)
        keep = self.data_sigma**2 / (sigma**2 + self.data_sigma**2)
        return x * keep + model_output * (sigma * self.data_sigma / self._total_deviation(sigma))


class LcmPrediction(Prediction):
    """Noise prediction under the boundary condition of consistency models: at time 0 the input is the answer."""

    _boundary_sigma = 0.5
    _time_scale = 10.0

    def denoised(self, model_output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        time = _per_row(self._time_scale * self.levels.timestep_of_sigma(sigma))
        total = time**2 + self._boundary_sigma**2
        from_noise = x - _per_row(sigma) * model_output
        return time / total.sqrt() * from_noise + self._boundary_sigma**2 / total * x


def base_prediction(kind: PredictionKind, latent_format: LatentFormat = SDXL_LATENTS) -> Prediction:
    """A checkpoint's own prediction."""
    return v_prediction(latent_format) if kind == "v" else eps_prediction(latent_format)


def eps_prediction(latent_format: LatentFormat = SDXL_LATENTS) -> Prediction:
    """SDXL as published."""
    return EpsPrediction(sdxl_levels(), latent_format)


def v_prediction(latent_format: LatentFormat = SDXL_LATENTS) -> Prediction:
    """Checkpoints that hold the key ``v_pred``."""
    return VPrediction(sdxl_levels(), latent_format)


def lcm_prediction(latent_format: LatentFormat = SDXL_LATENTS) -> Prediction:
    """The ``lcm`` scheduler's patch."""
    return LcmPrediction(distilled_levels(), latent_format)


def tcd_prediction(latent_format: LatentFormat = SDXL_LATENTS) -> Prediction:
    """The ``tcd`` scheduler's patch: the distilled table, the answer read as plain noise."""
    return EpsPrediction(distilled_levels(), latent_format)


def edm_prediction() -> Prediction:
    """The ``edm_playground_v2.5`` scheduler's patch, which brings its own latent format."""
    return EdmPrediction(edm_levels(), PLAYGROUND_LATENTS)


def _per_row(values: Tensor) -> Tensor:
    """``[]`` stays, ``[batch]`` becomes ``[batch, 1, 1, 1]`` to meet latents."""
    return values if values.dim() == 0 else values.view(-1, 1, 1, 1)
