"""What is repainted: cut out of a picture, brought to the size of diffusion, and put back (specification 04)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fooocus_core.images.area_classes import area_class
from fooocus_core.images.fill import filled
from fooocus_core.images.masks import resized_mask, soft_mask
from fooocus_core.images.pixels import Mask, Picture, mixed
from fooocus_core.images.resizing import Enlarge, covering, fitted, lanczos
from fooocus_core.images.working_area import Box, working_box
from fooocus_core.presets.sizes import Size

DIFFUSION_CLASS = 1024
"""The area class that the working picture is brought to: the side of a square, in pixels."""


Sized = Callable[[Picture], Picture]
"""Brings a cut-out to the size at which it is painted."""


@dataclass(frozen=True)
class CutOut:
    """What is repainted of a picture.

    The box and the soft mask belong to the whole picture, the rest to the part that is cut out.
    """

    original: Picture
    soft_mask: Mask
    box: Box
    picture: Picture
    """The cut-out at the size of diffusion; ``mask``, of 0 and 255, and ``fill`` have the same size."""
    mask: Mask
    fill: Picture
    is_contained: bool = False
    """Whether the cut-out keeps its proportions in what is diffused, between bands that continue its edges."""

    def composited(self, generated: Picture) -> Picture:
        """The whole picture with a generated cut-out in it, of any size.

        Where the soft mask is 0 the original's pixels are kept to the last bit.
        """
        front = self.original.copy()
        fit = covering if self.is_contained else lanczos
        front[self.box.part] = fit(generated, self.box.width, self.box.height)
        return mixed(front, self.original, self.soft_mask)

    def fitting_size(self, width_px: int, height_px: int) -> Size:
        """The size at which a generated picture of these sides fills the box."""
        if not self.is_contained:
            return Size(self.box.width, self.box.height)
        stretch = max(self.box.width / width_px, self.box.height / height_px)
        return Size(math.ceil(width_px * stretch), math.ceil(height_px * stretch))


def cut_out(picture: Picture, mask: Mask, respective_field: float, sized: Sized, *, fill: bool) -> CutOut:
    """Prepare a repainting.

    ``respective_field`` is the share of the picture that is looked at (0 to 1). Without ``fill`` the picture itself
    takes its place. Raises ``ValueError`` for a mask of nothing but 0.
    """
    box = working_box(mask, respective_field)
    working = sized(picture[box.part])
    working_mask = resized_mask(mask[box.part], working.shape[1], working.shape[0])
    guess = filled(working, working_mask) if fill else working
    return CutOut(picture, soft_mask(mask), box, working, working_mask, guess)


def at_diffusion_size(enlarge: Enlarge, target_class: int) -> Sized:
    """To ``target_class``; ``enlarge`` is asked where the cut-out is of a lower one."""

    def sized(picture: Picture) -> Picture:
        if area_class(*picture.shape[:2]) < target_class:
            picture = enlarge(picture)
        return fitted(picture, target_class)

    return sized
