"""Masks from what was drawn and sent to what is repainted and how softly (specification 04, sections 1, 4 and 5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fooocus_core.images.pixels import Mask
from fooocus_core.images.resizing import lanczos

HALF = 127
"""What is brighter counts as masked."""

SOFT_STEP = 8
"""How much the soft mask loses from one pixel to the next, outwards."""


def binary(mask: Mask, threshold: int = HALF) -> Mask:
    """255 where brighter than ``threshold``, else 0."""
    return np.where(mask > threshold, 255, 0).astype(np.uint8)


def resized_mask(mask: Mask, width_px: int, height_px: int) -> Mask:
    """A mask of 0 and 255 at another size."""
    return binary(lanczos(mask, width_px, height_px))


def joined_layers(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A mask sent as a picture with a drawing over it: the brighter of both, ``[h, w, channels]`` each."""
    return np.maximum(image, mask)


def uploaded_mask(upload: NDArray[np.uint8], width_px: int, height_px: int) -> Mask:
    """A mask sent as a picture ``[h, w, channels]`` of any size; opacity counts as one of the channels."""
    return binary_of_mean(lanczos(upload, width_px, height_px))


def binary_of_mean(layer: NDArray[np.uint8]) -> Mask:
    """255 where the channels' mean is above the half. 127.3 is: nothing is rounded before."""
    total = layer.sum(axis=2, dtype=np.uint16)  # A quarter of the memory of the mean, and exact too.
    return np.where(total > HALF * layer.shape[2], np.uint8(255), np.uint8(0))


def assembled_mask(
    drawn: NDArray[np.uint8], upload: NDArray[np.uint8] | None, *, erode_or_dilate: float, invert: bool
) -> Mask:
    """What is repainted: the first channel of ``drawn`` joined with ``upload``, then grown or shrunk, then inverted.

    ``drawn`` is ``[h, w, channels]`` of the picture's size. An ``upload`` without channels is left out, as the
    reference does. ``erode_or_dilate`` is in pixels, truncated towards 0; above 0 the mask grows.
    """
    mask = drawn[:, :, 0]
    if upload is not None and upload.ndim == 3:
        mask = np.maximum(mask, uploaded_mask(upload, mask.shape[1], mask.shape[0]))
    mask = eroded_or_dilated(mask, int(erode_or_dilate))
    return np.subtract(255, mask, dtype=np.uint8) if invert else mask


def eroded_or_dilated(mask: Mask, pixels: int) -> Mask:
    """Grown by as many pixels in all eight directions, or shrunk where ``pixels`` is below 0."""
    import cv2

    if pixels == 0:
        return mask
    change = cv2.dilate if pixels > 0 else cv2.erode
    return np.asarray(change(mask, np.ones((3, 3), np.uint8), iterations=abs(pixels)), np.uint8)


def repaints(mask: Mask) -> bool:
    """Whether anything is masked at all."""
    return bool((mask > HALF).any())


def soft_mask(mask: Mask) -> Mask:
    """255 inside and ``256 - 8 d`` at ``d`` pixels from it, counted as a king moves; 0 from 32 pixels on."""
    import cv2

    if not repaints(mask):
        return np.zeros_like(mask)
    outside = np.where(mask > HALF, 0, 1).astype(np.uint8)
    distance = np.asarray(cv2.distanceTransform(outside, cv2.DIST_C, 3))
    soft: Mask = np.clip(256.0 - SOFT_STEP * distance, 0, 255).astype(np.uint8)
    return soft
