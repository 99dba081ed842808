"""What a job costs, by the vendor's closed form (contract section 8). Nobody is charged here; clients ask."""

from __future__ import annotations

from math import ceil
from typing import Final, assert_never

from fooocus_core.presets.sizes import Size
from fooocusapi.surfaces.tams.staged import (
    AdetailerStage,
    DiffusionStage,
    InpaintStage,
    StagedJob,
    StagedStep,
    UpscalerStage,
)

MEGAPIXEL: Final = 1_048_576
MODEL_FACTOR: Final = 1
"""Of SD and SDXL."""


def price(job: StagedJob) -> float:
    """The sum over all stages, with two decimals."""
    return round(sum(_of_stage(step, job.count) for step in job.steps), 2)


def _of_stage(step: StagedStep, count: int) -> float:
    match step:
        case DiffusionStage(painting=painting):
            return _closed_form(painting.size, painting.steps, count)
        case UpscalerStage(size=size, steps=steps):
            return _closed_form(size, steps, count)
        case AdetailerStage(args=args, size=size):
            return sum(_closed_form(size, arg.priced_steps, count) for arg in args)
        case InpaintStage(size=size, priced_steps=steps):
            return _closed_form(size, steps, count)
        case _:
            assert_never(step)


def _closed_form(size: Size, steps: int, count: int) -> float:
    pixel_factor = max(1.0, ceil(2 * size.width_px * size.height_px / MEGAPIXEL) / 2)
    return MODEL_FACTOR * count * ceil(steps / 5) / 5 * pixel_factor
