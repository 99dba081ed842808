"""Text to image: the list of steps (specification 01 section 2, 02, 03)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fooocus_core.adapters.freeu import freeu
from fooocus_core.conditioning.adm import base_adm
from fooocus_core.conditioning.conditioning import Conditioning
from fooocus_core.conditioning.encode import EncodedText
from fooocus_core.errors import Interrupted, UnknownModel
from fooocus_core.events import CancelToken, Event, ImageFinished, Progress
from fooocus_core.metadata.describe import describe_image
from fooocus_core.metadata.record import ImageRecord
from fooocus_core.plan import Diffuse, Output
from fooocus_core.presets.sizes import GRID_PX, Size
from fooocus_core.prompts.tasks import Expand, PromptTask, prepare_stage
from fooocus_core.sampling.guidance import GuidanceSettings
from fooocus_core.sampling.network import NetworkCall, NoisePredictor
from fooocus_core.sampling.sample import PromptedNetwork, SampleSettings, sample_latents
from fooocus_core.sampling.samplers.contract import SamplerStep, Steps
from fooocus_core.sampling.swap import Swap, resolve_swap
from fooocus_core.stages.start import (
    Pictures,
    Start,
    is_only_enlarged,
    no_pictures,
    run_enlarging,
    start_of,
)

if TYPE_CHECKING:
    from fooocus_core.conditioning.inversion import EmbeddingFiles
    from fooocus_core.models.loaded import LoadedModel, ModelStore
    from fooocus_core.models.refiner import LoadedRefiner
    from fooocus_core.prompts.styles import StyleBook
    from fooocus_core.prompts.wildcards import Wildcards

log = logging.getLogger(__name__)

NO_GUIDANCE_TOLERANCE = 1e-4
"""How near to 1 a guidance scale makes the negative side a copy of the positive (specification 01, section 8)."""

SAMPLING_SHARE = 0.95
"""The share of a picture's progress that its steps take; decoding and enlarging take the rest."""


@dataclass(frozen=True)
class Sides:
    """Both sides of the prompt as the base's text encoders read them."""

    positive: EncodedText
    negative: EncodedText


@dataclass(frozen=True)
class Networks:
    """The base and, where one takes part, the refiner."""

    base: LoadedModel
    refiner: LoadedRefiner | None


def run_diffuse(
    stage: Diffuse,
    output: Output,
    models: ModelStore,
    styles: StyleBook,
    wildcards: Wildcards,
    cancel: CancelToken,
    expand: Expand | None = None,
    pictures: Pictures = no_pictures,
) -> Iterator[Event]:
    """One picture after the other, each a run of its own. Raises ``CoreError``, ``Interrupted`` when cancelled."""
    yield Progress(0.0, "Loading models ...")
    _stop_if(cancel)
    checkpoint = models.checkpoint(stage.models)
    if is_only_enlarged(stage, checkpoint.native_area_px):
        log.info("upscale without a diffusion, for which %s is too small", checkpoint.name)
        yield from run_enlarging(stage, pictures, models, cancel)
        return
    stage = without_foreign_lora(stage, checkpoint)
    tasks = prepare_stage(stage, styles, wildcards, models.lora_names(), _interruptible(expand, cancel))
    _require_mode_lora(stage, tasks[0])
    model = models.load(stage.models, tasks[0].loras)
    networks = Networks(model, models.refiner(stage.models, tasks[0].loras))
    size = sampled_size(Size(stage.width_px, stage.height_px), model.native_area_px)
    start = yield from _start(stage, networks, size, models, pictures, tasks[-1].seed, cancel)
    for index, task in enumerate(tasks):
        yield Progress(index / len(tasks), f"Encoding positive #{index + 1} ...")
        sides = encode_sides(stage, task, model, models.embeddings())
        steps = start_sampling(stage, task, networks, sides, start.latent, cancel)
        with patched(stage, model):
            latents = yield from _told(steps, stage, output, networks, index)
        yield Progress(_fraction(stage, index, SAMPLING_SHARE), f"Saving image {index + 1}/{len(tasks)} to system ...")
        _stop_if(cancel)
        pixels = model.enlarged(_decoder(stage, networks)(latents), stage.width_px, stage.height_px)
        record = replace(_described(stage, output, task, networks, models), upscaler=start.upscaler)
        yield ImageFinished(index, task.seed, pixels, record)


def _start(
    stage: Diffuse,
    networks: Networks,
    size: Size,
    models: ModelStore,
    pictures: Pictures,
    last_seed: int,
    cancel: CancelToken,
) -> Generator[Event, None, Start]:
    """What all pictures of the stage start from; without a picture, zeros."""
    if stage.start is None:
        return Start(torch.zeros(1, 4, size.height_px // GRID_PX, size.width_px // GRID_PX))
    yield Progress(0.0, "VAE encoding ..." if stage.start.factor is None else "Upscaling image from the input ...")
    refiner = networks.refiner
    own = None if refiner is None or _refiner_from(stage, networks) != 0 else refiner.autoencoder
    return start_of(
        stage.start,
        pictures(stage.start.picture),
        own or networks.base.autoencoder,
        models,
        shown_at=None if networks.base.native_area_px is None else size,
        last_seed=last_seed,
        before_tile=lambda: _stop_if(cancel),
    )


def without_foreign_lora(stage: Diffuse, model: LoadedModel) -> Diffuse:
    """A model with an area of its own runs the distilled modes without their LoRAs: those fit SDXL's network alone."""
    lora = stage.models.performance_lora
    if lora is None or model.native_area_px is None:
        return stage
    log.info("mode %s without its LoRA, which is not made for %s: %s", stage.performance, model.name, lora.name)
    return replace(stage, models=replace(stage.models, performance_lora=None))


def _require_mode_lora(stage: Diffuse, task: PromptTask) -> None:
    """So few steps without the LoRA that makes them enough would give a picture of no use."""
    lora = stage.models.performance_lora
    if lora is not None and PurePosixPath(lora.name).name not in [PurePosixPath(one.name).name for one in task.loras]:
        raise UnknownModel("loras", lora.name, f"performance {stage.performance}")


def sampled_size(asked: Size, native_area_px: int | None) -> Size:
    """The size to sample at: the one asked for, or its shape at a small model's own area, on the latent grid."""
    if native_area_px is None:
        return asked
    stretch = math.sqrt(asked.width_px / asked.height_px)
    side = math.sqrt(native_area_px)
    return Size(_on_grid(side * stretch), _on_grid(side / stretch))


def _on_grid(length_px: float) -> int:
    """The nearest multiple of 8 that the sharpness filter can pad: at least 7 latent cells."""
    return max(7, round(length_px / GRID_PX)) * GRID_PX


def encode_sides(stage: Diffuse, task: PromptTask, model: LoadedModel, embeddings: EmbeddingFiles | None) -> Sides:
    """Both texts; with guidance scale 1 the negative is a copy of the positive."""
    clip_skip = stage.models.clip_skip
    positive = model.text.encode_all(task.positive, task.positive_top_k, clip_skip, embeddings)
    if abs(stage.guidance.scale - 1) < NO_GUIDANCE_TOLERANCE:
        return Sides(positive, positive)
    return Sides(positive, model.text.encode_all(task.negative, task.negative_top_k, clip_skip, embeddings))


def start_sampling(
    stage: Diffuse, task: PromptTask, networks: Networks, sides: Sides, latent: Tensor, cancel: CancelToken
) -> Steps:
    """The run of one picture from ``latent``, not yet begun.

    ``latent`` and what is returned: un-scaled, ``[1, 4, height / 8, width / 8]``.
    """
    size = Size(GRID_PX * latent.shape[3], GRID_PX * latent.shape[2])
    guidance, refiner = stage.guidance, networks.refiner
    return sample_latents(
        base=_prompted_base(stage, networks.base, sides, size, cancel),
        refiner=None if refiner is None else _prompted_refiner(stage, networks, refiner, sides, size, cancel),
        guidance=GuidanceSettings(guidance.scale, guidance.sharpness, guidance.adaptive_scale, guidance.adm_end),
        settings=sample_settings(stage, task.seed),
        latent=latent,
        translate=None if refiner is None else refiner.translate,
    )


def sample_settings(stage: Diffuse, seed: int) -> SampleSettings:
    """What the stage says of the walk itself."""
    sampling = stage.sampling
    swap = Swap(stage.refiner_swap, stage.switch_step)
    return SampleSettings(
        sampling.sampler, sampling.scheduler, sampling.steps, seed, denoise=_denoise(stage), swap=swap
    )


def _denoise(stage: Diffuse) -> float:
    return 1.0 if stage.start is None else stage.start.denoise


def _prompted_base(
    stage: Diffuse, model: LoadedModel, sides: Sides, size: Size, cancel: CancelToken
) -> PromptedNetwork:
    positive, negative = sides.positive, sides.negative
    return PromptedNetwork(
        InterruptibleNetwork(model.network, cancel),
        model.prediction,
        Conditioning(positive.context, base_adm(positive.pooled, *size, stage.guidance.adm_positive)),
        Conditioning(negative.context, base_adm(negative.pooled, *size, stage.guidance.adm_negative)),
    )


def _prompted_refiner(
    stage: Diffuse, networks: Networks, refiner: LoadedRefiner, sides: Sides, size: Size, cancel: CancelToken
) -> PromptedNetwork:
    guidance, encoders = stage.guidance, networks.base.text
    return PromptedNetwork(
        InterruptibleNetwork(refiner.network, cancel),
        refiner.prediction,
        refiner.conditioning(sides.positive, "positive", encoders, size, guidance.adm_positive),
        refiner.conditioning(sides.negative, "negative", encoders, size, guidance.adm_negative),
        latent_format=refiner.latent_format,
        owns_vae=refiner.owns_vae,
    )


@contextmanager
def patched(stage: Diffuse, model: LoadedModel) -> Iterator[None]:
    """The base's network under what the stage puts on it, for the time of one picture."""
    with nullcontext() if stage.freeu is None else freeu(model.network, stage.freeu):
        yield


def _refiner_from(stage: Diffuse, networks: Networks) -> int | None:
    """The first step whose latents are of the refiner's own kind; ``None``: there is none."""
    refiner = networks.refiner
    if refiner is None or not refiner.owns_vae:
        return None
    plan = resolve_swap(
        Swap(stage.refiner_swap, stage.switch_step),
        has_refiner=True,
        refiner_owns_vae=True,
        steps=stage.sampling.steps,
        denoise=_denoise(stage),
    )
    return {"vae": stage.switch_step, "refiner": 0}.get(plan)


def _decoder(stage: Diffuse, networks: Networks) -> Callable[[Tensor], Tensor]:
    """What makes pixels of the latents at the end; those of upscales, which are large, in tiles (05, section 2)."""
    refiner = networks.refiner
    own = None if refiner is None or _refiner_from(stage, networks) is None else refiner.autoencoder
    autoencoder = own or networks.base.autoencoder
    is_upscale = stage.start is not None and stage.start.factor is not None
    return autoencoder.decode_tiled if is_upscale else autoencoder.decode_or_tiled


def _described(stage: Diffuse, output: Output, task: PromptTask, networks: Networks, models: ModelStore) -> ImageRecord:
    refiner_hash = "" if networks.refiner is None else networks.refiner.checkpoint_hash
    record = describe_image(stage, task, networks.base.checkpoint_hash, models.lora_hash, output.created_by)
    return replace(record, refiner_hash=refiner_hash)


def _told(
    steps: Steps, stage: Diffuse, output: Output, networks: Networks, index: int
) -> Generator[Event, None, Tensor]:
    """Walks the sampler, telling its steps; returns what it returns."""
    switch = _refiner_from(stage, networks)
    while True:
        try:
            step = next(steps)
        except StopIteration as finished:
            latents: Tensor = finished.value
            return latents
        done = (step.index + 1) / max(stage.sampling.steps, step.index + 1)
        yield Progress(
            _fraction(stage, index, SAMPLING_SHARE * done),
            f"Step {step.index + 1}/{stage.sampling.steps} in the {index + 1}-th Sampling",
            _preview(networks, step, switch) if output.preview else None,
        )


def _preview(networks: Networks, step: SamplerStep, switch: int | None) -> NDArray[np.uint8]:
    """A small picture of a step; ``switch`` is the first with latents of the refiner's kind."""
    refiner = networks.refiner
    if refiner is None or switch is None or step.index < switch:
        return networks.base.preview(step.denoised)
    return refiner.preview(step.denoised)


def _fraction(stage: Diffuse, index: int, done: float) -> float:
    return (index + done) / stage.image_number


def _stop_if(cancel: CancelToken) -> None:
    if cancel():
        raise Interrupted("stopped on request")


def _interruptible(expand: Expand | None, cancel: CancelToken) -> Expand | None:
    """An expansion that asks before every prompt whether the job is still wanted."""
    if expand is None:
        return None

    def asking(prompt: str, seed: int) -> str | None:
        _stop_if(cancel)
        return expand(prompt, seed)

    return asking


@dataclass(frozen=True)
class InterruptibleNetwork:
    """A network that asks before every call whether the job is still wanted: a stop takes less than a step."""

    network: NoisePredictor
    cancel: CancelToken

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def adm_width(self) -> int:
        return self.network.adm_width

    def __call__(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, call: NetworkCall
    ) -> Tensor:
        """As the network's own; raises ``Interrupted``."""
        _stop_if(self.cancel)
        return self.network(latents, timesteps, context, adm, call)
