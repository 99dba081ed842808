"""From a job that was judged to the plan that will run (contract section 13)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, assert_never

from fooocus_core.errors import CoreError
from fooocus_core.plan import (
    Detail,
    Diffuse,
    Guidance,
    Models,
    Output,
    PartSearch,
    PartsPass,
    Plan,
    Prompts,
    Repaint,
    Sampling,
    Stage,
    StartPicture,
)
from fooocus_core.presets.sizes import Size
from fooocusapi.surfaces.classic.schemas import TaskType
from fooocusapi.surfaces.tams.judge import BAD_SIZE
from fooocusapi.surfaces.tams.pictures import mask_name, picture_name
from fooocusapi.surfaces.tams.staged import (
    AdetailerStage,
    DiffusionStage,
    InpaintStage,
    Painting,
    PartsArg,
    StagedJob,
    StagedStep,
    UpscalerStage,
    is_allowed_once_enlarged,
)

SEEDS: Final = 2**32
"""Where the seeds of pictures wrap."""
IMAGE_TO_IMAGE: Final = "Image to Image"
"""What the start from an upload is called in plans; an upscaler goes by its own name."""
MIN_STRENGTH: Final = 0.001


def to_plan(job: StagedJob, *, black_out_nsfw: bool = False) -> Plan:
    """The plan, of whose pictures only those of the last stage are results."""
    stages = []
    picture = picture_name(job.picture) if job.picture else None
    for step in job.steps:
        stages.append(_stage(step, job, picture))
        picture = None
    output = Output(
        image_format="png",
        save_metadata=True,
        metadata_scheme="a1111",
        black_out_nsfw=black_out_nsfw,
    )
    return Plan(tuple(stages), output, only_last_stage=True)


def job_type(job: StagedJob) -> str:
    """What other dialects, which list all jobs, call this one: by its first stage."""
    match job.steps[0]:
        case AdetailerStage():
            return TaskType.IMAGE_ENHANCEMENT.value
        case InpaintStage():
            return TaskType.INPAINT_OR_OUTPAINT.value
        case DiffusionStage() if job.picture is None:
            return TaskType.TEXT_TO_IMAGE.value
        case _:
            return TaskType.UPSCALE_OR_VARY.value


def check_sizes(plan: Plan, size: Size) -> None:
    """That no stage enlarges too much of an upload whose ``size`` nobody knew when the job was taken (section 8).

    Raises ``CoreError``, which fails the job.
    """
    from fooocus_core.images.enlarging import enlarged_size

    for stage in plan.stages:
        if not isinstance(stage, Diffuse):
            continue
        if stage.start is not None and stage.start.enlarging is not None:
            size = enlarged_size(size, stage.start.enlarging)
            if not is_allowed_once_enlarged(size):
                raise CoreError(f"{BAD_SIZE}: the result would have {size.width_px} * {size.height_px} pixels")
        elif stage.repaint is None or stage.repaint.area is None or not stage.repaint.area.only_masked:
            size = Size(stage.width_px, stage.height_px)


def _stage(step: StagedStep, job: StagedJob, picture: str | None) -> Stage:
    """``picture``: what the first stage works on; ``None``: on nothing, or on those of the stage before."""
    match step:
        case DiffusionStage(painting=painting, guides=guides):
            start = None if picture is None else _image_to_image(painting, picture)
            return replace(_painted(painting, job), start=start, guides=guides)
        case UpscalerStage():
            return _upscaled(step, job, picture)
        case AdetailerStage():
            return _detailed(step, job, picture)
        case InpaintStage():
            return _inpainted(step, job, picture)
        case _:
            assert_never(step)


def _painted(painting: Painting, job: StagedJob) -> Diffuse:
    """A stage as it is painted, whatever it starts from."""
    return Diffuse(
        models=Models(painting.checkpoint, painting.vae, painting.loras),
        prompts=Prompts(painting.prompt, painting.negative_prompt, syntax="web_ui"),
        width_px=painting.size.width_px,
        height_px=painting.size.height_px,
        seed=job.seed,
        image_number=job.count,
        seed_count=SEEDS,
        guidance=Guidance.plain(painting.cfg_scale),
        sampling=Sampling(
            painting.sampler,
            painting.schedule,
            painting.steps,
            partial_steps="share",
            eta_noise_seed_delta=painting.eta_noise_seed_delta,
        ),
    )


def _image_to_image(painting: Painting, picture: str) -> StartPicture:
    return StartPicture(picture, IMAGE_TO_IMAGE, painting.strength, stretched=True)


def _upscaled(step: UpscalerStage, job: StagedJob, picture: str | None) -> Diffuse:
    base = _painted(step.painting, job)
    return replace(
        base,
        guides=step.guides if step.strength > 0 else None,
        width_px=step.size.width_px,
        height_px=step.size.height_px,
        sampling=replace(base.sampling, steps=step.steps, partial_steps="all"),
        start=StartPicture(
            picture,
            step.upscaler,
            max(step.strength, MIN_STRENGTH),
            refine=step.strength > 0,
            enlarging=step.enlarging,
        ),
    )


def _detailed(step: AdetailerStage, job: StagedJob, picture: str | None) -> Detail:
    return Detail(
        base=_painted(step.painting, job),
        steps=step.painting.steps,
        upscale_steps=step.painting.steps,
        picture=picture,
        passes=tuple(_parts_pass(arg, arg.search, step.painting, job) for arg in step.args if arg.search is not None),
        only_last=True,
    )


def _parts_pass(arg: PartsArg, search: PartSearch, shared: Painting, job: StagedJob) -> PartsPass:
    own = _painted(arg.painting, job)
    own = replace(own, sampling=replace(own.sampling, noise_multiplier=arg.noise_multiplier))
    has_own = arg.painting != shared or arg.noise_multiplier != 1
    return PartsPass(
        find=search,
        prompts=arg.prompts,
        negative_prompts=arg.negative_prompts,
        dilate_px=arg.dilate_px,
        merge=arg.merge,
        denoise=arg.strength,
        area=arg.area,
        base=own if has_own else None,
    )


def _inpainted(step: InpaintStage, job: StagedJob, picture: str | None) -> Diffuse:
    return replace(
        _painted(step.painting, job),
        guides=step.guides,
        repaint=Repaint(
            picture,
            mask_name(step.mask),
            denoise=step.painting.strength,
            engine="None",
            area=step.area,
        ),
    )
