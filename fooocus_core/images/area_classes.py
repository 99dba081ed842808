"""Sizes by the area they cover (specification 01, section 11; 04, section 4; 05). Numbers only, no pictures."""

from __future__ import annotations

import math

SIDE_STEP_PX = 64
MAX_FITTING_ROUNDS = 256


def area_class(height: float, width: float) -> int:
    """The side of the square of the same area, rounded up to a multiple of 64 (``ceil64`` of the specification)."""
    return SIDE_STEP_PX * math.ceil(math.sqrt(height * width) / SIDE_STEP_PX)


def fitted_size(height_px: int, width_px: int, target_class: int) -> tuple[int, int]:
    """Height and width of the same shape, in multiples of 64, whose area class is ``target_class``.

    A size of that class stays as it is, whatever its sides.
    """
    height, width = height_px, width_px
    for _ in range(MAX_FITTING_ROUNDS):
        current = area_class(height, width)
        if current == target_class:
            break
        # On the numbers of the round before, already rounded: a second round moves on from where the first ended.
        height, width = (_multiple(side * (target_class / current)) for side in (height, width))
    return height, width


def _multiple(side: float) -> int:
    return max(1, round(side / SIDE_STEP_PX)) * SIDE_STEP_PX
