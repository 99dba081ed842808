"""From the parts that were found to the masks that are painted, one after the other (TAMS contract, section 13.10)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fooocus_core.images.pixels import Mask
from fooocus_core.plan import MaskMerge


def boxed(boxes: NDArray[np.float32], height_px: int, width_px: int) -> list[Mask]:
    """A mask ``[height, width]`` for each of ``[n, 4]`` boxes: left, top, right, bottom, cut at the picture's edges."""
    masks = []
    for box in boxes:
        left, top, right, bottom = np.clip(np.rint(box), 0, [width_px, height_px] * 2).astype(int)
        mask = np.zeros((height_px, width_px), np.uint8)
        mask[top:bottom, left:right] = 255
        masks.append(mask)
    return masks


def part_masks(found: Sequence[Mask], dilate_px: int, merge: MaskMerge) -> list[Mask]:
    """What is painted of what was found. Without anything found that is nothing, inverted or not."""
    masks = [mask for mask in (grown_by_square(each, dilate_px) for each in found) if mask.any()]
    if not masks or merge == "none":
        return masks
    union = _union(masks)
    return [np.subtract(255, union, dtype=np.uint8) if merge == "merge and invert" else union]


def _union(masks: Iterable[Mask]) -> Mask:
    return np.asarray(np.maximum.reduce(list(masks)), np.uint8)


def grown_by_square(mask: Mask, side_px: int) -> Mask:
    """The mask grown by a square of so many pixels a side, or shrunk by it below 0."""
    import cv2

    if side_px == 0:
        return mask
    change = cv2.dilate if side_px > 0 else cv2.erode
    return np.asarray(change(mask, np.ones((abs(side_px), abs(side_px)), np.uint8)), np.uint8)
