"""The picture as it stands, for those who watch a job: small, and of the same size whatever the model samples at."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fooocus_core.plan import Plan

SHARE = 4
"""Sides of a finished picture to those of its preview."""


def preview_png(pixels: NDArray[np.uint8], plan: Plan | None) -> bytes:
    """uint8 ``[height, width, 3]`` as a PNG, enlarged to a quarter of the plan's pictures where it is smaller.

    A model with a native area of its own samples at that, and its previews are as small: 24 pixels for the pocket
    model, which no client could show beside the 288 of a full-size one.
    """
    from PIL import Image

    picture = Image.fromarray(pixels)
    if plan is not None:
        stage = plan.main
        size = (stage.width_px // SHARE, stage.height_px // SHARE)
        if picture.width < size[0] and picture.height < size[1]:
            picture = picture.resize(size, Image.Resampling.BICUBIC)
    target = io.BytesIO()
    picture.save(target, "PNG", compress_level=1)
    return target.getvalue()
