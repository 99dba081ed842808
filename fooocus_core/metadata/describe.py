"""The record of a picture, from the stage and the task that made it (specification 08, section 6.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fooocus_core.metadata.record import EXPANSION_STYLE, ImageRecord, RecordedLora
from fooocus_core.plan import Diffuse
from fooocus_core.prompts.tasks import PromptTask

EXPANSION_SKIPPED: Final = "skipped: no prompt expansion model is installed"
"""In place of the expanded prompt where one was asked for."""


def describe_image(
    stage: Diffuse,
    task: PromptTask,
    checkpoint_hash: str = "",
    lora_hash: Callable[[str], str] = lambda name: "",
    created_by: str = "",
) -> ImageRecord:
    """What is told about the picture of one task. ``lora_hash`` gives the hash of a listed LoRA file."""
    return ImageRecord(
        seed=task.seed,
        width_px=stage.width_px,
        height_px=stage.height_px,
        checkpoint=stage.models.checkpoint,
        prompt=task.logged_prompt,
        negative_prompt=task.logged_negative_prompt,
        prompt_expansion=EXPANSION_SKIPPED if task.lacks_expansion else task.expansion,
        full_prompt=task.positive,
        full_negative_prompt=task.negative,
        styles=(EXPANSION_STYLE, *task.styles) if task.is_expanded else task.styles,
        performance=stage.performance,
        steps=stage.sampling.steps,
        guidance_scale=stage.guidance.scale,
        sharpness=stage.guidance.sharpness,
        adm_positive=stage.guidance.adm_positive,
        adm_negative=stage.guidance.adm_negative,
        adm_end=stage.guidance.adm_end,
        checkpoint_hash=checkpoint_hash,
        refiner=stage.models.refiner,
        refiner_switch=stage.refiner_switch,
        overwrite_switch=stage.overwrite_switch or -1,
        refiner_swap_method=stage.refiner_swap,
        adaptive_scale=stage.guidance.adaptive_scale,
        clip_skip=stage.models.clip_skip,
        sampler=stage.sampling.sampler,
        scheduler=stage.sampling.scheduler,
        vae=stage.models.vae,
        freeu=None if stage.freeu is None else (stage.freeu.b1, stage.freeu.b2, stage.freeu.s1, stage.freeu.s2),
        loras=tuple(RecordedLora(lora.name, lora.weight, lora_hash(lora.name)) for lora in task.loras),
        created_by=created_by,
    )
