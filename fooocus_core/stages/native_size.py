"""The size at which a model with an area of its own paints, whatever the size asked for."""

from __future__ import annotations

import math

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
