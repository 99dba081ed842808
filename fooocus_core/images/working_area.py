"""The part of a picture that is looked at while some of it is repainted (specification 04, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fooocus_core.images.pixels import Mask

MARGIN = 1.15


@dataclass(frozen=True)
class Box:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, the ends not included."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def part(self) -> tuple[slice, slice]:
        """To index an array ``[height, width, ...]`` with."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def within(self, height_px: int, width_px: int) -> Box:
        """What of it lies in a picture of this size."""
        return Box(max(self.top, 0), min(self.bottom, height_px), max(self.left, 0), min(self.right, width_px))


def box_around(mask: Mask) -> Box:
    """A square around all that is not 0, with a margin, cut at the picture's edges.

    Raises ``ValueError`` for a mask of nothing but 0.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise ValueError("the mask is empty")
    top, bottom, left, right = (int(index) for index in (rows[0], rows[-1], columns[0], columns[-1]))
    row, column = (top + bottom) // 2, (left + right) // 2
    reach = int(max((bottom - top) // 2, (right - left) // 2) * MARGIN)
    return Box(row - reach, row + reach + 1, column - reach, column + reach + 1).within(*mask.shape)


def working_box(mask: Mask, respective_field: float) -> Box:
    """The box around the mask, grown until it has this share of the picture's height and of its width.

    ``respective_field``: 0 is the box as it is, 1 the whole picture. Raises ``ValueError`` for an empty mask.
    """
    height, width = mask.shape
    box = box_around(mask)
    if respective_field >= 1:
        return Box(0, height, 0, width)
    while box.height < height * respective_field or box.width < width * respective_field:
        box = _grown(box, height, width)
    return box


def _grown(box: Box, height_px: int, width_px: int) -> Box:
    """One pixel more on both ends of the shorter side, or of the side that still can grow."""
    taller = box.height < box.width or box.width == width_px
    wider = box.height >= box.width or box.height == height_px
    return Box(box.top - taller, box.bottom + taller, box.left - wider, box.right + wider).within(height_px, width_px)
