"""The picture as it stands, for those who watch a job: small, and of the same size whatever the model samples at."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from fooocus_core.presets.sizes import Size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fooocus_core.plan import Plan

SHARE = 4
"""Sides of a finished picture to those of its preview."""


def preview_size(pixels: NDArray[np.uint8], plan: Plan | None) -> Size:
    """That at which uint8 ``[height, width, 3]`` are shown: a quarter of the plan's pictures where they are smaller.

    A model with a native area of its own samples at that, and its previews are as small: 24 pixels for the pocket
    model, which no client could show beside the 288 of a full-size one.
    """
    own = Size(pixels.shape[1], pixels.shape[0])
    if plan is None:
        return own
    quarter = Size(plan.main.width_px // SHARE, plan.main.height_px // SHARE)
    return quarter if own.width_px < quarter.width_px and own.height_px < quarter.height_px else own


def preview_png(pixels: NDArray[np.uint8], plan: Plan | None) -> bytes:
    """uint8 ``[height, width, 3]`` as a PNG of ``preview_size``."""
    from PIL import Image

    picture, size = Image.fromarray(pixels), preview_size(pixels, plan)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    target = io.BytesIO()
    picture.save(target, "PNG", compress_level=1)
    return target.getvalue()
