"""What variations, upscales and outpaintings are: how much is made anew, and at which size. Numbers only.

Specification: 05; 04, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from fooocus_core.images.area_classes import area_class, fitted_size
from fooocus_core.plan import Side

SMALLEST_CLASS, LARGEST_VARIED_CLASS = 1024, 2048
LARGEST_REFINED_CLASS = 2800
"""Above this area class an enlarged picture is not diffused once more."""
NETWORK_FACTOR = 4
"""How many times the super-resolution network enlarges."""

REFINING_DENOISE = 0.382
OUTPAINT_SHARE = 0.3
"""Of the height or width that is added at a side by default."""


@dataclass(frozen=True)
class Method:
    """``denoise``: how much of the picture is made anew. ``factor``: how much larger it gets; ``None``: a variation."""

    denoise: float
    factor: float | None = None
    fast: bool = False


DEFAULT_FACTOR: Final = 2.0

METHODS: Final[Mapping[str, Method]] = MappingProxyType(
    {
        "Vary (Subtle)": Method(0.5),
        "Vary (Strong)": Method(0.85),
        "Upscale (1.5x)": Method(REFINING_DENOISE, 1.5),
        "Upscale (2x)": Method(REFINING_DENOISE, 2.0),
        "Upscale (Fast 2x)": Method(REFINING_DENOISE, 2.0, fast=True),
        "Upscale (Custom)": Method(REFINING_DENOISE, DEFAULT_FACTOR),
    }
)
"""The methods by the names clients send."""

CUSTOM: Final = "Upscale (Custom)"
"""The method whose factor is asked for."""


class UpscaledSize(NamedTuple):
    """``refine``: whether a diffusion is to follow; without one the enlarged picture is the result."""

    height_px: int
    width_px: int
    refine: bool


def varied_size(height_px: int, width_px: int) -> tuple[int, int]:
    """Height and width a variation is made at: the picture's own area class, within 1024 and 2048."""
    own = area_class(height_px, width_px)
    return fitted_size(height_px, width_px, min(max(own, SMALLEST_CLASS), LARGEST_VARIED_CLASS))


def upscaled_size(height_px: int, width_px: int, factor: float, *, fast: bool) -> UpscaledSize:
    """The size after an upscale: at the least an area class of 1024. A ``fast`` one is not diffused."""
    target = area_class(height_px * factor, width_px * factor)
    refine = not fast and target <= LARGEST_REFINED_CLASS
    if target < SMALLEST_CLASS:
        sides = fitted_size(NETWORK_FACTOR * height_px, NETWORK_FACTOR * width_px, SMALLEST_CLASS)
        return UpscaledSize(*sides, refine)
    return UpscaledSize(int(height_px * factor), int(width_px * factor), refine)


def added_px(height_px: int, width_px: int, sides: Mapping[Side, int]) -> dict[Side, int]:
    """How much an outpainting adds at each of the four sides of a picture.

    ``sides`` says how many pixels; 0 and less is three tenths of the height before either, or of the width.
    """
    lengths: dict[Side, int] = {"top": height_px, "bottom": height_px, "left": width_px, "right": width_px}
    return {side: _added_at(sides.get(side), length) for side, length in lengths.items()}


def _added_at(asked_px: int | None, length_px: int) -> int:
    if asked_px is None:
        return 0
    return asked_px if asked_px > 0 else int(OUTPAINT_SHARE * length_px)
