"""What is different with a model that has an area of its own: it paints at that, whatever the size asked for."""

from __future__ import annotations

import math
from dataclasses import replace

from fooocus_core.plan import Diffuse
from fooocus_core.presets.sizes import GRID_PX, Size


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


def with_native_denoise(stage: Diffuse, native_area_px: int | None) -> Diffuse:
    """The stage with the square of the share of the noise that is put on a picture, where the model sees it small.

    The same noise hides more of a picture of a tenth of the size: half of the noise levels would leave little of it.
    """
    if native_area_px is None:
        return stage
    if stage.repaint is not None:
        return replace(stage, repaint=replace(stage.repaint, denoise=stage.repaint.denoise**2))
    if stage.start is not None:
        return replace(stage, start=replace(stage.start, denoise=stage.start.denoise**2))
    return stage
