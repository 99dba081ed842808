"""The pictures that a variation and an upscale start from (specification 05, sections 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass

from fooocus_core.images.methods import upscaled_size, varied_size
from fooocus_core.images.pixels import Picture
from fooocus_core.images.resizing import Enlarge, lanczos


@dataclass(frozen=True)
class Upscaled:
    """An enlarged picture and whether a diffusion is to follow; without one it is the result."""

    picture: Picture
    refine: bool


def varied_start(picture: Picture) -> Picture:
    """The picture at the size a variation is made at: its own area class, within 1024 and 2048."""
    height, width = varied_size(*picture.shape[:2])
    return lanczos(picture, width, height)


def upscaled(picture: Picture, factor: float, enlarge: Enlarge, *, fast: bool) -> Upscaled:
    """``factor`` times as large, by way of four times; at the least an area class of 1024.

    A ``fast`` upscale ends here, and so does one too large to be diffused.
    """
    height, width = picture.shape[:2]
    size = upscaled_size(height, width, factor, fast=fast)
    return Upscaled(lanczos(enlarge(picture), size.width_px, size.height_px), size.refine)
