"""One picture's way from noise to latents: the parts of this package, joined (specification 03, sections 4 to 9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import torch
from torch import Tensor

from fooocus_core.conditioning.conditioning import Conditioning
from fooocus_core.errors import InvalidRequest
from fooocus_core.sampling.blend import BlendedDenoiser, InpaintTask
from fooocus_core.sampling.denoiser import GuidanceSettings, GuidedDenoiser
from fooocus_core.sampling.names import SCHEDULER_NAMES, WEB_UI_SCHEDULER_NAMES
from fooocus_core.sampling.network import Control, NoisePredictor
from fooocus_core.sampling.noise import BrownianNoise, NoiseSource
from fooocus_core.sampling.prediction import (
    SDXL_LATENTS,
    LatentFormat,
    Prediction,
    PredictionKind,
    base_prediction,
    edm_prediction,
    lcm_prediction,
    sdxl_levels,
    tcd_prediction,
)
from fooocus_core.sampling.samplers.contract import Denoiser, SamplerContext, Steps
from fooocus_core.sampling.samplers.registry import sampler_by_name
from fooocus_core.sampling.schedules import brownian_range, effective_sigmas, range_sigmas
from fooocus_core.sampling.shortcuts import NO_SHORTCUTS, Shortcuts
from fooocus_core.sampling.start import start_latents
from fooocus_core.sampling.swap import Swap, SwapPlan, resolve_swap
from fooocus_core.sampling.transfer import sent

CPU: Final = torch.device("cpu")
SEED_COUNT: Final = 2**64
"""Where torch's seeds wrap."""
SECOND_RUN_STRETCH: Final = 1.4
"""How much the ``vae`` swap raises the noise levels of its second run."""
ANCESTRAL_SAMPLERS: Final = frozenset({"euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral"})
"""Those whose noise inside the steps may have a seed of its own."""
UNBLENDED_SAMPLERS: Final = frozenset({"uni_pc", "uni_pc_bh2"})
"""These ask the network past the inpaint blending."""


@dataclass(frozen=True)
class PromptedNetwork:
    """A network with both sides of the prompt as it reads them. ``prediction``: what its checkpoint says of itself.

    ``control`` looks on in the first run only. ``owns_vae`` marks a refiner whose latents are of another kind.
    """

    network: NoisePredictor
    prediction: PredictionKind
    positive: Conditioning
    negative: Conditioning
    latent_format: LatentFormat = SDXL_LATENTS
    control: Control | None = None
    owns_vae: bool = False


@dataclass(frozen=True)
class SampleSettings:
    """``denoise`` (0 to 1): the share of the noise levels to walk; below 1 the run starts from a picture.

    ``step_noise_on_cpu``: the same picture on every device, at the price of leaving the reference's GPU pictures.
    ``takes_share``: whether of the steps only that share is taken. ``step_seed_delta``: how far the seed of the noise
    inside the steps of an ancestral sampler is from ``seed``. ``noise_multiplier``: on the noise of the start.
    """

    sampler: str
    scheduler: str
    steps: int
    seed: int
    denoise: float = 1.0
    swap: Swap = field(default_factory=Swap)
    step_noise_on_cpu: bool = False
    takes_share: bool = False
    step_seed_delta: int = 0
    noise_multiplier: float = 1.0

    @property
    def step_seed(self) -> int | None:
        """Of the noise inside the steps; ``None``: it has none of its own."""
        if self.step_seed_delta == 0 or self.sampler not in ANCESTRAL_SAMPLERS:
            return None
        return (self.seed + self.step_seed_delta) % SEED_COUNT


@dataclass(frozen=True)
class ResolvedScheduler:
    """What a request's scheduler name stands for: how to read the network, and which list to walk."""

    prediction: Prediction
    list_name: str


def resolve_scheduler(name: str, kind: PredictionKind, latent_format: LatentFormat = SDXL_LATENTS) -> ResolvedScheduler:
    """Some names replace the checkpoint's own prediction; the others are lists for it."""
    match name:
        case "lcm":
            return ResolvedScheduler(lcm_prediction(latent_format), "sgm_uniform")
        case "tcd":
            return ResolvedScheduler(tcd_prediction(latent_format), "sgm_uniform")
        case "edm_playground_v2.5":
            return ResolvedScheduler(edm_prediction(), "karras")
        case _ if name in SCHEDULER_NAMES or name in WEB_UI_SCHEDULER_NAMES:
            return ResolvedScheduler(base_prediction(kind, latent_format), name)
        case _:
            raise InvalidRequest.unknown_name("scheduler", name, SCHEDULER_NAMES)


def sample_latents(
    *,
    base: PromptedNetwork,
    guidance: GuidanceSettings,
    settings: SampleSettings,
    latent: Tensor,
    refiner: PromptedNetwork | None = None,
    inpaint: InpaintTask | None = None,
    translate: Callable[[Tensor], Tensor] | None = None,
    shortcuts: Shortcuts = NO_SHORTCUTS,
) -> Steps:
    """Sample one picture from ``latent`` ``[1, 4, h, w]`` (un-scaled; zeros for text to image).

    Yields a ``SamplerStep`` per step, in the space of the network at work, numbered through all runs; closing the
    generator ends the run. Returns un-scaled float32 latents of that shape on the network's device: the refiner's where
    it owns an autoencoder and takes part. ``translate`` brings un-scaled latents from the base's kind to that one.
    Raises ``InvalidRequest`` for unknown names, at once.
    """
    sampler_by_name(settings.sampler)
    resolve_scheduler(settings.scheduler, base.prediction)
    return _Picture(base, refiner, guidance, settings, latent, inpaint, translate or _unchanged, shortcuts).run()


def swap_plan(settings: SampleSettings, refiner: PromptedNetwork | None) -> SwapPlan:
    """Which models take part in which way."""
    return resolve_swap(
        settings.swap,
        has_refiner=refiner is not None,
        refiner_owns_vae=refiner is not None and refiner.owns_vae,
        steps=settings.steps,
        denoise=settings.denoise,
    )


def _unchanged(latents: Tensor) -> Tensor:
    return latents


@dataclass(frozen=True)
class _Run:
    """One sampler run: ``model`` walks ``sigmas``; in step ``switch`` (of this run) ``successor`` takes over.

    ``noise`` is what the run starts with, ``latent`` un-scaled, on whichever devices. ``seed`` seeds its inpaint
    blending, and ``inpaint_latent`` is what that keeps.
    """

    model: PromptedNetwork
    sigmas: Tensor
    noise: Tensor
    latent: Tensor
    seed: int
    first_index: int = 0
    successor: PromptedNetwork | None = None
    switch: int | None = None
    inpaint_latent: Tensor | None = None


class _Picture:
    """Everything that the runs of one picture share."""

    def __init__(
        self,
        base: PromptedNetwork,
        refiner: PromptedNetwork | None,
        guidance: GuidanceSettings,
        settings: SampleSettings,
        latent: Tensor,
        inpaint: InpaintTask | None,
        translate: Callable[[Tensor], Tensor],
        shortcuts: Shortcuts,
    ) -> None:
        self._base = base
        self._refiner = refiner
        self._guidance = guidance
        self._settings = settings
        self._latent = latent
        self._inpaint = inpaint
        self._translate = translate
        self._shortcuts = shortcuts
        self._step_device = CPU if settings.step_noise_on_cpu else base.network.device
        self._source = NoiseSource(settings.seed, self._step_device, settings.step_seed)
        # One path for all runs: the second keeps the first one's seed and range (section 5.3).
        self._brownian = BrownianNoise(settings.seed, self._brownian_bounds(), tuple(latent.shape), self._step_device)
        self._asked_last: GuidedDenoiser | None = None

    def run(self) -> Steps:
        match swap_plan(self._settings, self._refiner):
            case "joint":
                return self._alone(self._base, successor=self._refiner)
            case "separate":
                return self._separate()
            case "vae":
                return self._by_way_of_the_picture()
            case "refiner" if self._refiner is not None:
                return self._alone(self._refiner)
            case _:
                return self._alone(self._base)

    def _alone(self, model: PromptedNetwork, successor: PromptedNetwork | None = None) -> Steps:
        """One run over all steps."""
        first = self._first_run(model, self._sigmas(model))
        return self._walk(replace(first, successor=successor, switch=self._settings.swap.step))

    def _separate(self) -> Steps:
        """Two runs; what the first leaves, noise and all, is where the second starts."""
        switch = self._switch()
        sigmas = self._sigmas(self._base)
        latent = yield from self._walk(self._first_run(self._base, sigmas[: switch + 1]))
        second = _without_control(self._refiner or self._base)
        sigmas = self._sigmas(second)[switch:]
        return (
            yield from self._walk(
                _Run(
                    second,
                    sigmas,
                    torch.zeros_like(latent),
                    latent,
                    self._settings.seed,
                    first_index=switch,
                    inpaint_latent=self._inpaint_latent(),
                )
            )
        )

    def _by_way_of_the_picture(self) -> Steps:
        """The ``vae`` method: a finished small run, then new noise on its result and a second run from there."""
        switch = self._switch()
        sigmas = self._sigmas(self._base)
        if switch < len(sigmas) - 1:
            sigmas = torch.cat([sigmas[:switch], torch.zeros(1)])
        latent = yield from self._walk(self._first_run(self._base, sigmas))
        second = _without_control(self._refiner or self._base)
        if second.owns_vae:
            latent = self._translate(latent)
        seed = self._settings.seed + 1
        self._source = NoiseSource(seed, self._step_device)
        return (
            yield from self._walk(
                _Run(
                    second,
                    self._second_sigmas()[switch:] * SECOND_RUN_STRETCH,
                    self._centred(self._source.initial(tuple(latent.shape))),
                    latent,
                    seed,
                    first_index=switch,
                    inpaint_latent=self._swapped_latent(),
                )
            )
        )

    def _centred(self, noise: Tensor) -> Tensor:
        """New noise whose mean over the channels is that of the noise the first run found, cell by cell."""
        found = noise if self._asked_last is None else self._asked_last.noise_estimate
        noise = sent(noise, found.device)
        return noise + found.mean(1, keepdim=True) - noise.mean(1, keepdim=True)

    def _first_run(self, model: PromptedNetwork, sigmas: Tensor) -> _Run:
        noise = self._source.initial(tuple(self._latent.shape)) * self._settings.noise_multiplier
        kept = self._inpaint_latent()
        return _Run(model, sigmas, noise, self._latent, self._settings.seed, inpaint_latent=kept)

    def _walk(self, run: _Run) -> Steps:
        """One run; returns un-scaled latents. A list without steps leaves the latents as they are."""
        if len(run.sigmas) < 2:
            return run.latent.float()
        reading, device = self._reading(run.model), run.model.network.device
        scaled = reading.latent_format.process_in(sent(run.latent.float(), device))
        x = start_latents(sent(run.noise, device), scaled, run.sigmas[0].item(), reading.levels.sigma_max)
        denoiser = _Successive(self._denoiser(run.model))
        asked = self._blended(denoiser, run, reading.latent_format)
        context = SamplerContext(self._source, self._brownian, reading.levels)
        steps = sampler_by_name(self._settings.sampler)(asked, x, run.sigmas, context)
        while True:
            try:
                step = next(steps)
            except StopIteration as finished:
                self._asked_last = denoiser.active
                return reading.latent_format.process_out(finished.value)
            if step.index == run.switch and run.successor is not None:
                denoiser.active = self._denoiser(run.successor, tile_texts=False)
            yield replace(step, index=step.index + run.first_index)

    def _denoiser(self, model: PromptedNetwork, *, tile_texts: bool = True) -> GuidedDenoiser:
        return GuidedDenoiser(
            model.network,
            self._reading(model),
            model.positive,
            model.negative,
            self._guidance,
            control=model.control,
            tile_texts=tile_texts,
            shortcuts=self._shortcuts,
        )

    def _blended(self, denoiser: Denoiser, run: _Run, latent_format: LatentFormat) -> Denoiser:
        if self._inpaint is None or run.inpaint_latent is None or self._settings.sampler in UNBLENDED_SAMPLERS:
            return denoiser
        device = run.model.network.device
        kept = latent_format.process_in(sent(run.inpaint_latent.float(), device))
        return BlendedDenoiser(denoiser, sent(self._inpaint.mask.float(), device), kept, run.seed)

    def _inpaint_latent(self) -> Tensor | None:
        return None if self._inpaint is None else self._inpaint.latent

    def _swapped_latent(self) -> Tensor | None:
        if self._inpaint is None or self._inpaint.swapped_latent is None:
            return self._inpaint_latent()
        return self._inpaint.swapped_latent

    def _switch(self) -> int:
        return self._settings.swap.step or 0

    def _reading(self, model: PromptedNetwork) -> Prediction:
        return self._scheduler(model).prediction

    def _scheduler(self, model: PromptedNetwork) -> ResolvedScheduler:
        return resolve_scheduler(self._settings.scheduler, model.prediction, model.latent_format)

    def _sigmas(self, model: PromptedNetwork) -> Tensor:
        asked, scheduler = self._settings, self._scheduler(model)
        levels = scheduler.prediction.levels
        return effective_sigmas(
            scheduler.list_name, asked.steps, asked.denoise, asked.sampler, levels, takes_share=asked.takes_share
        )

    def _second_sigmas(self) -> Tensor:
        """The list that the ``vae`` swap's second run is cut from.

        A refiner's is made from the plain table even where the scheduler brings its own: in the reference it is not
        yet loaded, and so not yet patched, at that moment.
        """
        asked, scheduler = self._settings, self._scheduler(self._base)
        levels = scheduler.prediction.levels if self._refiner is None else sdxl_levels()
        return range_sigmas(scheduler.list_name, asked.steps, asked.denoise, asked.sampler, levels)

    def _brownian_bounds(self) -> tuple[float, float]:
        """The range of the Brownian path, from the plain table even where the scheduler brings its own.

        That is what the reference does on a GPU, where its patches are not yet in place when the path is made.
        """
        asked, scheduler = self._settings, self._scheduler(self._base)
        sigmas = range_sigmas(
            scheduler.list_name, asked.steps, asked.denoise, asked.sampler, sdxl_levels(), takes_share=asked.takes_share
        )
        return brownian_range(sigmas)


class _Successive:
    """A denoiser that can be replaced between two calls; the sampler's history stays."""

    def __init__(self, first: GuidedDenoiser) -> None:
        self.active = first

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.active(x, sigma)


def _without_control(model: PromptedNetwork) -> PromptedNetwork:
    return replace(model, control=None)
