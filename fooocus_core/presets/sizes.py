"""Picture sizes: reading them from text and bringing them onto the grid (specification 01, section 9)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from fooocus_core.errors import InvalidRequest

GRID_PX: Final = 8
"""One latent cell: every side is a multiple of it."""

ASPECT_RATIOS: Final = (
    "704*1408",
    "704*1344",
    "768*1344",
    "768*1280",
    "832*1216",
    "832*1152",
    "896*1152",
    "896*1088",
    "960*1088",
    "960*1024",
    "1024*1024",
    "1024*960",
    "1088*960",
    "1088*896",
    "1152*896",
    "1152*832",
    "1216*832",
    "1280*768",
    "1344*768",
    "1344*704",
    "1408*704",
    "1472*704",
    "1536*640",
    "1600*640",
    "1664*576",
    "1728*576",
)
"""The sizes offered, width first."""

# Width; an asterisk, a multiplication sign, an x or blanks; height. What follows (the ratio and the markup of the
# interface's label, whose bar is U+2223) must stand apart from the height.
_SIZE = re.compile(r"\s*([0-9]{1,6})(?:\s*[*\u00d7xX]\s*|\s+)([0-9]{1,6})(?:[\s<|\u2223].*)?", re.DOTALL)


class Size(NamedTuple):
    """Width and height in pixels."""

    width_px: int
    height_px: int


@dataclass(frozen=True)
class SizeLimits:
    """What a server is willing to paint."""

    min_side_px: int = 64
    max_side_px: int = 4096
    max_pixels: int = 2048 * 2048
    max_repainted_pixels: int = 25_000_000
    """Of a whole picture of which only a part is painted."""


def parse_size(text: str, field: str = "size") -> Size:
    """``W*H``, ``WxH``, ``W H`` or with a multiplication sign, alone or as the interface's label, as numbers.

    Raises ``InvalidRequest`` naming ``field`` for anything else.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidRequest(field, "not a size; write width*height, such as 1152*896")
    return Size(int(found[1]), int(found[2]))


def fit_size(size: Size, limits: SizeLimits) -> Size:
    """``size`` rounded down to the grid.

    Raises ``InvalidRequest`` naming the side that is outside ``limits``, or both when the area is.
    """
    width = _fit_side("width_px", size.width_px, limits)
    height = _fit_side("height_px", size.height_px, limits)
    if width * height > limits.max_pixels:
        raise InvalidRequest("width_px, height_px", f"{width}*{height} is more than {limits.max_pixels} pixels")
    return Size(width, height)


def _fit_side(field: str, side_px: int, limits: SizeLimits) -> int:
    if not limits.min_side_px <= side_px <= limits.max_side_px:
        raise InvalidRequest(field, f"must be from {limits.min_side_px} to {limits.max_side_px}, got {side_px}")
    return side_px - side_px % GRID_PX
