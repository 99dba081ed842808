"""From a prompt, and perhaps a picture, to pictures: the list of steps (specification 01 section 2, 02 to 05)."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fooocus_core.conditioning.encode import EncodedText
from fooocus_core.errors import UnknownModel
from fooocus_core.events import CancelToken, Event, ImageFinished, Progress, SkipToken, never
from fooocus_core.images.pixels import Picture
from fooocus_core.images.repaint import CutOut
from fooocus_core.metadata.describe import describe_image
from fooocus_core.metadata.record import ImageRecord
from fooocus_core.models.preview import Preview, RunPreviews
from fooocus_core.plan import Diffuse, Guides, Output, Repaint
from fooocus_core.presets.sizes import GRID_PX, Size
from fooocus_core.prompts.tasks import Expand, PromptTask, prepare_stage
from fooocus_core.sampling.guidance import GuidanceSettings
from fooocus_core.sampling.sample import SampleSettings, sample_latents
from fooocus_core.sampling.samplers.contract import SamplerStep, Steps
from fooocus_core.sampling.shortcuts import NO_SHORTCUTS, Shortcuts
from fooocus_core.sampling.swap import Swap
from fooocus_core.stages.guides import guide_pictures, require_guidable
from fooocus_core.stages.native_size import sampled_size, with_native_denoise
from fooocus_core.stages.networks import (
    DIRECT,
    Access,
    Called,
    Networks,
    Sides,
    decoding_autoencoder,
    denoise_of,
    encoding_autoencoders,
    prompted_base,
    prompted_refiner,
    refiner_latents_from,
    steps_of,
    stop_if,
    takes_share,
    with_guides,
    with_inpaint_head,
)
from fooocus_core.stages.repainting import (
    cut_out_of,
    initial_latent,
    inpaint_task,
    is_unchanged,
    latents_of,
    put_back,
    run_preparing,
    run_unchanged,
    seeded,
    without_foreign_engine,
)
from fooocus_core.stages.skipping import skippable
from fooocus_core.stages.start import (
    NO_LATENTS,
    PassedLatents,
    Pictures,
    Start,
    is_enlarged,
    is_only_enlarged,
    kept_picture,
    no_pictures,
    run_enlarging,
    start_of,
)
from fooocus_core.stages.together import Walk, sample_together

if TYPE_CHECKING:
    from fooocus_core.conditioning.inversion import EmbeddingFiles
    from fooocus_core.models.loaded import LoadedModel, ModelStore
    from fooocus_core.prompts.styles import StyleBook
    from fooocus_core.prompts.wildcards import Wildcards

log = logging.getLogger(__name__)

NO_GUIDANCE_TOLERANCE = 1e-4
"""How near to 1 a guidance scale makes the negative side a copy of the positive (specification 01, section 8)."""

SAMPLING_SHARE = 0.95
"""The share of a picture's progress that its steps take; decoding and enlarging take the rest."""


@dataclass(frozen=True)
class Manner:
    """How pictures are painted: so many ``at_once``, with what is traded for time, on networks come by like that."""

    at_once: int = 1
    shortcuts: Shortcuts = NO_SHORTCUTS
    access: Access = DIRECT


ALONE = Manner()


def run_diffuse(
    stage: Diffuse,
    output: Output,
    models: ModelStore,
    styles: StyleBook,
    wildcards: Wildcards,
    cancel: CancelToken,
    expand: Expand | None = None,
    pictures: Pictures = no_pictures,
    skip: SkipToken = never,
    latents: PassedLatents = NO_LATENTS,
    manner: Manner = ALONE,
) -> Iterator[Event]:
    """The pictures, each a run of its own. Raises ``CoreError``, ``Interrupted``.

    What is wished away by ``skip`` is left out: of those that are painted together all that are not finished.
    """
    yield Progress(0.0, "Loading models ...")
    stop_if(cancel)
    checkpoint = models.checkpoint(stage.models)
    if stage.guides is not None:
        require_guidable(stage.guides, checkpoint)
        models.guides.require(stage.guides)
    if is_only_enlarged(stage, checkpoint.native_area_px):
        log.info("upscale without a diffusion, for which %s is too small", checkpoint.name)
        yield from skippable(partial(run_enlarging, stage, pictures, models), cancel, skip)
        return
    stage = without_foreign_engine(without_foreign_lora(stage, checkpoint), checkpoint)
    stage = with_native_denoise(stage, checkpoint.native_area_px)
    if stage.repaint is not None and stage.repaint.only_prepare:
        what = yield from _cut_out(stage, stage.repaint, checkpoint, models, pictures, cancel)
        yield from run_preparing(stage, what)
        return
    if stage.repaint is not None and is_unchanged(stage, pictures):
        yield from run_unchanged(stage, stage.repaint, pictures)
        return
    if stage.guides is not None and stage.guides.only_prepare:
        yield from _prepared_guides(stage, stage.guides, checkpoint, models, pictures, cancel)
        return
    tasks = prepare_stage(stage, styles, wildcards, models.lora_names(), _interruptible(expand, cancel))
    _require_mode_lora(stage, tasks[0])
    networks = manner.access.load(stage, models, tasks[0].loras)
    try:
        yield from _pictures(stage, output, tasks, networks, models, pictures, latents, cancel, skip, manner)
    finally:
        networks.restore()


def _pictures(
    stage: Diffuse,
    output: Output,
    tasks: Sequence[PromptTask],
    networks: Networks,
    models: ModelStore,
    pictures: Pictures,
    latents: PassedLatents,
    cancel: CancelToken,
    skip: SkipToken,
    manner: Manner,
) -> Iterator[Event]:
    """One picture for each task, from what they all start from."""
    start = yield from _start(stage, networks, models, pictures, latents.given, tasks[-1].seed, cancel)
    if start.repaint is not None:
        networks = with_inpaint_head(networks, stage, start.repaint)
    if stage.guides is not None:
        yield Progress(0.0, "Image processing ...")
        prepared = guide_pictures(
            stage.guides, pictures, painted_size(start), models.guides.faces, lambda: stop_if(cancel)
        )
        networks = with_guides(networks, stage, stage.guides, prepared, models)
    for first in range(0, len(tasks), manner.at_once):
        group = tasks[first : first + manner.at_once]
        yield from skippable(
            partial(_group, stage, output, first, group, start, networks, models, latents.keep, manner), cancel, skip
        )


@dataclass(frozen=True)
class _Begun:
    """A picture that can be sampled."""

    index: int
    task: PromptTask
    sides: Sides
    start: Start


def _group(
    stage: Diffuse,
    output: Output,
    first: int,
    tasks: Sequence[PromptTask],
    start: Start,
    networks: Networks,
    models: ModelStore,
    keep: Callable[[Tensor], None],
    manner: Manner,
    cancel: CancelToken,
) -> Iterator[Event]:
    """Pictures that are sampled together and then finished one after the other; ``first`` is the first one's index."""
    begun: list[_Begun] = []
    for index, task in enumerate(tasks, first):
        yield Progress(_fraction(stage, first), f"Encoding positive #{index + 1} ...")
        sides = encode_sides(stage, task, networks.base, models.embeddings())
        begun.append(_Begun(index, task, sides, seeded(stage, start, task.seed)))
    latents = [picture.start.latent for picture in begun]
    if denoise_of(stage) > 0:
        runs = [
            partial(start_sampling, stage, picture.task, networks, picture.sides, picture.start, manner.shortcuts)
            for picture in begun
        ]
        steps = sample_together(runs, manner.access.called(networks, cancel))
        latents = yield from _told(steps, stage, output, networks, first)
    for picture, latent in zip(begun, latents, strict=True):
        unfinished = first + len(begun) - picture.index
        saving = f"Saving image {picture.index + 1}/{stage.image_number} to system ..."
        yield Progress(_fraction(stage, picture.index + SAMPLING_SHARE * unfinished), saving)
        stop_if(cancel)
        pixels = _finished(stage, picture.start, networks, latent)
        keep(latent)
        record = _described(stage, output, picture.task, networks, models, picture.start)
        yield ImageFinished(picture.index, picture.task.seed, pixels, record)


def _start(
    stage: Diffuse,
    networks: Networks,
    models: ModelStore,
    pictures: Pictures,
    latent: Tensor | None,
    last_seed: int,
    cancel: CancelToken,
) -> Generator[Event, None, Start]:
    """What all pictures of the stage start from; without a picture, zeros. ``latent``: that of its picture."""
    native_area_px = networks.base.native_area_px
    size = sampled_size(Size(stage.width_px, stage.height_px), native_area_px)
    if stage.repaint is not None:
        what = yield from _cut_out(stage, stage.repaint, networks.base, models, pictures, cancel)
        yield Progress(0.0, "VAE Inpaint encoding ...")
        latents = latents_of(stage, what, networks, last_seed)
        return Start(initial_latent(stage.repaint, latents), cut_out=what, repaint=latents)
    if stage.start is None:
        return Start(torch.zeros(1, 4, size.height_px // GRID_PX, size.width_px // GRID_PX))
    yield Progress(0.0, "Upscaling image from the input ..." if is_enlarged(stage.start) else "VAE encoding ...")
    return start_of(
        stage.start,
        kept_picture(stage.start.picture, pictures),
        encoding_autoencoders(stage, networks)[0],
        models,
        shown_at=None if native_area_px is None and not stage.start.stretched else size,
        last_seed=last_seed,
        latent=latent,
        before_tile=lambda: stop_if(cancel),
    )


def _cut_out(
    stage: Diffuse,
    repaint: Repaint,
    model: LoadedModel,
    models: ModelStore,
    pictures: Pictures,
    cancel: CancelToken,
) -> Generator[Event, None, CutOut]:
    yield Progress(0.0, "Preparing the area to repaint ...")
    size = Size(stage.width_px, stage.height_px)
    return cut_out_of(repaint, pictures, models, model.native_area_px, size, before_tile=lambda: stop_if(cancel))


def _prepared_guides(
    stage: Diffuse, guides: Guides, model: LoadedModel, models: ModelStore, pictures: Pictures, cancel: CancelToken
) -> Iterator[Event]:
    """The guides as the networks would see them, in place of a diffusion (06, section 1)."""
    size = Size(stage.width_px, stage.height_px)
    if stage.repaint is not None:
        what = yield from _cut_out(stage, stage.repaint, model, models, pictures, cancel)
        size = Size(what.picture.shape[1], what.picture.shape[0])
    prepared = guide_pictures(guides, pictures, size, models.guides.faces, lambda: stop_if(cancel))
    for index, guide in enumerate(prepared):
        yield ImageFinished(index, stage.seed, guide.picture, None)


def painted_size(start: Start) -> Size:
    """The size of what is sampled, in pixels."""
    return Size(GRID_PX * start.latent.shape[3], GRID_PX * start.latent.shape[2])


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


def encode_sides(stage: Diffuse, task: PromptTask, model: LoadedModel, embeddings: EmbeddingFiles | None) -> Sides:
    """Both texts; with guidance scale 1 the negative is a copy of the positive."""
    clip_skip = stage.models.clip_skip
    if stage.prompts.syntax == "web_ui":
        texts = dict.fromkeys([*task.positive, *([] if _is_unguided(stage) else task.negative)])
        encoded = [model.text.encode_web_ui(text, clip_skip, embeddings) for text in texts]
        positive, *others = model.text.of_one_length(encoded, clip_skip)
        negative = others[0] if others else positive
        is_silent = not _is_unguided(stage) and not any(task.negative) and model.native_area_px is None
        return Sides(positive, _silenced(negative) if is_silent else negative)
    positive = model.text.encode_all(task.positive, task.positive_top_k, clip_skip, embeddings)
    if _is_unguided(stage):
        return Sides(positive, positive)
    return Sides(positive, model.text.encode_all(task.negative, task.negative_top_k, clip_skip, embeddings))


def _silenced(text: EncodedText) -> EncodedText:
    """Zeros: what the web UI shows SDXL in place of an empty negative prompt (TAMS contract, section 13)."""
    return EncodedText(torch.zeros_like(text.context), torch.zeros_like(text.pooled))


def _is_unguided(stage: Diffuse) -> bool:
    return abs(stage.guidance.scale - 1) < NO_GUIDANCE_TOLERANCE


def start_sampling(
    stage: Diffuse,
    task: PromptTask,
    networks: Networks,
    sides: Sides,
    start: Start,
    shortcuts: Shortcuts,
    called: Called,
) -> Steps:
    """The run of one picture, not yet begun. It returns un-scaled latents of the start's shape."""
    size = painted_size(start)
    guidance = stage.guidance
    return sample_latents(
        base=prompted_base(stage, networks, called, sides, size),
        refiner=prompted_refiner(stage, networks, called, sides, size),
        guidance=GuidanceSettings(guidance.scale, guidance.sharpness, guidance.adaptive_scale, guidance.adm_end),
        settings=sample_settings(stage, task.seed),
        latent=start.latent,
        inpaint=None if start.repaint is None else inpaint_task(start.repaint),
        translate=called.translate,
        shortcuts=shortcuts,
    )


def sample_settings(stage: Diffuse, seed: int) -> SampleSettings:
    """What the stage says of the walk itself."""
    sampling = stage.sampling
    swap = Swap(stage.refiner_swap, stage.switch_step)
    from_picture = stage.start is not None or stage.repaint is not None
    return SampleSettings(
        sampling.sampler,
        sampling.scheduler,
        sampling.steps,
        seed,
        denoise=denoise_of(stage),
        swap=swap,
        takes_share=takes_share(stage),
        step_seed_delta=sampling.eta_noise_seed_delta,
        noise_multiplier=sampling.noise_multiplier if from_picture else 1.0,
    )


def _finished(stage: Diffuse, start: Start, networks: Networks, latents: Tensor) -> Picture:
    """Pixels of the latents at the end, at the size asked for; what was repainted lies in the whole picture."""
    autoencoder = decoding_autoencoder(stage, networks)
    is_upscale = stage.start is not None and is_enlarged(stage.start)
    # Upscales are large: they are decoded in tiles (05, section 2).
    pixels = autoencoder.decode_tiled(latents) if is_upscale else autoencoder.decode_or_tiled(latents)
    if start.cut_out is not None:
        return put_back(start.cut_out, pixels, networks.base)
    return networks.base.enlarged(pixels, stage.width_px, stage.height_px)


def _described(
    stage: Diffuse, output: Output, task: PromptTask, networks: Networks, models: ModelStore, start: Start
) -> ImageRecord:
    refiner_hash = "" if networks.refiner is None else networks.refiner.checkpoint_hash
    record = describe_image(stage, task, networks.base.checkpoint_hash, models.lora_hash, output.created_by)
    enlarging = None if stage.start is None else stage.start.enlarging
    stands_for = "" if enlarging is None else enlarging.stands_for
    record = replace(record, refiner_hash=refiner_hash, upscaler=start.upscaler, upscaler_fallback=stands_for)
    if start.repaint is None:
        return record
    if start.cut_out is not None and stage.repaint is not None and stage.repaint.area is not None:
        height, width = start.cut_out.original.shape[:2]
        return replace(record, width_px=width, height_px=height)
    size = painted_size(start)  # not that of the picture in which it lies
    return replace(record, width_px=size.width_px, height_px=size.height_px)


def _told(
    walk: Walk, stage: Diffuse, output: Output, networks: Networks, first: int
) -> Generator[Event, None, list[Tensor]]:
    """Walks the samplers of a group, telling their steps; returns what they return."""
    switch, steps = refiner_latents_from(stage, networks), steps_of(stage)
    done: dict[int, float] = {}
    previews: defaultdict[int, RunPreviews] = defaultdict(RunPreviews)
    with closing(walk):
        while True:
            try:
                number, step = next(walk)
            except StopIteration as finished:
                latents: list[Tensor] = finished.value
                return latents
            done[number] = (step.index + 1) / max(steps, step.index + 1)
            yield Progress(
                _fraction(stage, first + SAMPLING_SHARE * sum(done.values())),
                f"Step {step.index + 1}/{steps} in the {first + number + 1}-th Sampling",
                previews[number].next(_preview(networks, step, switch), step.denoised) if output.preview else None,
            )


def _preview(networks: Networks, step: SamplerStep, switch: int | None) -> Preview:
    """What shows a step; ``switch`` is the first with latents of the refiner's kind."""
    refiner = networks.refiner
    return networks.base.preview if refiner is None or switch is None or step.index < switch else refiner.preview


def _fraction(stage: Diffuse, pictures: float) -> float:
    """The share of the stage that so many pictures are."""
    return pictures / stage.image_number


def _interruptible(expand: Expand | None, cancel: CancelToken) -> Expand | None:
    """An expansion that asks before every prompt whether the job is still wanted."""
    if expand is None:
        return None

    def asking(prompt: str, seed: int) -> str | None:
        stop_if(cancel)
        return expand(prompt, seed)

    return asking
