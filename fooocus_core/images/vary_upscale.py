"""The pictures that a variation and an upscale start from (specification 05, sections 1 and 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fooocus_core.images.pixels import Picture
from fooocus_core.images.resizing import Enlarge, area_class, fitted, lanczos

SMALLEST_CLASS, LARGEST_VARIED_CLASS = 1024, 2048
LARGEST_REFINED_CLASS = 2800
"""Above this area class an enlarged picture is not diffused once more."""


REFINING_DENOISE = 0.382


@dataclass(frozen=True)
class Method:
    """``denoise``: how much of the picture is made anew. ``factor``: how much larger it gets; ``None``: a variation."""

    denoise: float
    factor: float | None = None
    fast: bool = False


METHODS: Final[Mapping[str, Method]] = {
    "Vary (Subtle)": Method(0.5),
    "Vary (Strong)": Method(0.85),
    "Upscale (1.5x)": Method(REFINING_DENOISE, 1.5),
    "Upscale (2x)": Method(REFINING_DENOISE, 2.0),
    "Upscale (Fast 2x)": Method(REFINING_DENOISE, 2.0, fast=True),
}
"""The methods that say all of themselves, by the names clients send. ``Upscale (Custom)`` brings its own factor."""


@dataclass(frozen=True)
class Upscaled:
    """An enlarged picture and whether a diffusion is to follow; without one it is the result."""

    picture: Picture
    refine: bool


def varied_start(picture: Picture) -> Picture:
    """The picture at the size a variation is made at: its own area class, within 1024 and 2048."""
    own = area_class(*picture.shape[:2])
    return fitted(picture, min(max(own, SMALLEST_CLASS), LARGEST_VARIED_CLASS))


def upscaled(picture: Picture, factor: float, enlarge: Enlarge, *, fast: bool) -> Upscaled:
    """``factor`` times as large, by way of four times; at the least an area class of 1024.

    A ``fast`` upscale ends here, and so does one too large to be diffused.
    """
    height, width = picture.shape[:2]
    target = area_class(height * factor, width * factor)
    if target < SMALLEST_CLASS:
        target, larger = SMALLEST_CLASS, fitted(enlarge(picture), SMALLEST_CLASS)
    else:
        larger = lanczos(enlarge(picture), int(width * factor), int(height * factor))
    return Upscaled(larger, refine=not fast and target <= LARGEST_REFINED_CLASS)
