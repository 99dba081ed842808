"""One picture's way from noise to latents: the parts of this package, joined (specification 03, sections 4 to 7)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fooocus_core.conditioning.conditioning import Conditioning
from fooocus_core.errors import InvalidRequest
from fooocus_core.sampling.denoiser import GuidanceSettings, GuidedDenoiser, NoisePredictor
from fooocus_core.sampling.names import SCHEDULER_NAMES
from fooocus_core.sampling.noise import BrownianNoise, NoiseSource
from fooocus_core.sampling.prediction import (
    LatentFormat,
    Prediction,
    PredictionKind,
    base_prediction,
    edm_prediction,
    lcm_prediction,
    sdxl_levels,
    tcd_prediction,
)
from fooocus_core.sampling.samplers.contract import SamplerContext, Steps
from fooocus_core.sampling.samplers.registry import sampler_by_name
from fooocus_core.sampling.schedules import brownian_range, effective_sigmas, range_sigmas
from fooocus_core.sampling.start import start_latents

CPU = torch.device("cpu")


@dataclass(frozen=True)
class SampleSettings:
    """``denoise`` (0 to 1): the share of the noise levels to walk; below 1 the run starts from a picture.
    ``step_noise_on_cpu``: the same picture on every device, at the price of leaving the reference's GPU pictures.
    """

    sampler: str
    scheduler: str
    steps: int
    seed: int
    denoise: float = 1.0
    step_noise_on_cpu: bool = False


@dataclass(frozen=True)
class ResolvedScheduler:
    """What a request's scheduler name stands for: how to read the network, and which list to walk."""

    prediction: Prediction
    list_name: str


def resolve_scheduler(name: str, kind: PredictionKind) -> ResolvedScheduler:
    """Some names replace the checkpoint's own prediction; the others are lists for it."""
    match name:
        case "lcm":
            return ResolvedScheduler(lcm_prediction(), "sgm_uniform")
        case "tcd":
            return ResolvedScheduler(tcd_prediction(), "sgm_uniform")
        case "edm_playground_v2.5":
            return ResolvedScheduler(edm_prediction(), "karras")
        case _ if name in SCHEDULER_NAMES:
            return ResolvedScheduler(base_prediction(kind), name)
        case _:
            raise InvalidRequest.unknown_name("scheduler", name, SCHEDULER_NAMES)


def sample_latents(
    *,
    network: NoisePredictor,
    prediction: PredictionKind,
    positive: Conditioning,
    negative: Conditioning,
    guidance: GuidanceSettings,
    settings: SampleSettings,
    latent: Tensor,
) -> Steps:
    """Sample one picture from ``latent`` ``[1, 4, h, w]`` (un-scaled; zeros for text to image).

    Yields a ``SamplerStep`` per step, in the network's space; closing the generator ends the run. Returns un-scaled
    float32 latents of that shape on the network's device. Raises ``InvalidRequest`` for unknown names, at once.
    """
    sampler = sampler_by_name(settings.sampler)
    scheduler = resolve_scheduler(settings.scheduler, prediction)
    reading, list_name = scheduler.prediction, scheduler.list_name
    sigmas = effective_sigmas(list_name, settings.steps, settings.denoise, settings.sampler, reading.levels)

    step_device = CPU if settings.step_noise_on_cpu else network.device
    shape = tuple(latent.shape)
    noise = NoiseSource(settings.seed, step_device)
    brownian = BrownianNoise(settings.seed, _brownian_bounds(settings, list_name), shape, step_device)

    scaled = reading.latent_format.process_in(latent.float().cpu())
    x = start_latents(noise.initial(shape), scaled, sigmas[0].item(), reading.levels.sigma_max)
    denoiser = GuidedDenoiser(network, reading, positive, negative, guidance)
    context = SamplerContext(noise, brownian, reading.levels)
    return _unscaled(sampler(denoiser, x.to(network.device), sigmas, context), reading.latent_format)


def _unscaled(steps: Steps, latent_format: LatentFormat) -> Steps:
    """The same steps, the result in the space of the VAE."""
    final = yield from steps
    return latent_format.process_out(final)


def _brownian_bounds(settings: SampleSettings, list_name: str) -> tuple[float, float]:
    """The range of the Brownian path, from the plain table even where the scheduler brings its own.

    That is what the reference does on a GPU, where its patches are not yet in place when the path is made.
    """
    sigmas = range_sigmas(list_name, settings.steps, settings.denoise, settings.sampler, sdxl_levels())
    return brownian_range(sigmas)
