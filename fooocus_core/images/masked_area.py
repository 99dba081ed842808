"""What is repainted behind a soft mask, cut out and sized as the web UI does it (TAMS contract, section 13.11)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fooocus_core.images.fill import filled
from fooocus_core.images.masks import binary
from fooocus_core.images.pixels import Mask, Picture, to_rgb
from fooocus_core.images.repaint import CutOut
from fooocus_core.images.resizing import contained, covering, lanczos
from fooocus_core.images.working_area import Box
from fooocus_core.plan import MaskedArea, ResizeMode
from fooocus_core.presets.sizes import Size


def grey_mask(upload: NDArray[np.uint8]) -> Mask:
    """A mask of any number of channels as one; soft ones stay soft, and what is transparent counts as white."""
    if upload.ndim == 2:
        return upload
    return np.array(Image.fromarray(to_rgb(upload)).convert("L"))


def soft_area_mask(mask: Mask, area: MaskedArea) -> Mask:
    """The mask as it is drawn through, inverted if asked and blurred. Where it is 0 the picture stays."""
    import cv2

    soft = np.subtract(255, mask, dtype=np.uint8) if area.invert else mask
    if area.blur_px <= 0:
        return soft
    reach = 2 * math.floor(2.5 * area.blur_px + 0.5) + 1
    soft = np.asarray(cv2.GaussianBlur(soft, (reach, 1), area.blur_px), np.uint8)
    return np.asarray(cv2.GaussianBlur(soft, (1, reach), area.blur_px), np.uint8)


def area_cut_out(picture: Picture, mask: Mask, area: MaskedArea, size: Size, sampled: Size) -> CutOut:
    """Prepare a repainting. ``mask`` is of the picture's size.

    ``size``: that at which it is painted, and of the result if the whole picture is. ``sampled``: that at which the
    network sees it. Raises ``ValueError`` where only what is masked is painted and nothing is.
    """
    soft = soft_area_mask(mask, area)
    if area.only_masked:
        return _part(picture, soft, area, area_box(soft, area.padding_px, size), sampled)
    if area.keeps_size:
        return _part(picture, _doubled(soft), area, Box(0, mask.shape[0], 0, mask.shape[1]), sampled)
    return _whole(picture, soft, area, size, sampled)


def _part(picture: Picture, soft: Mask, area: MaskedArea, box: Box, sampled: Size) -> CutOut:
    working, working_mask = (contained(each[box.part], *sampled) for each in (picture, to_rgb(soft)))
    mask = np.ascontiguousarray(working_mask[:, :, 0])
    return CutOut(picture, soft, box, working, mask, _content(working, mask, area), is_contained=True)


def _whole(picture: Picture, soft: Mask, area: MaskedArea, size: Size, sampled: Size) -> CutOut:
    """Without anything masked all is painted: a plain image to image. Else the mask counts double, so that only its
    outer rim blends."""
    if not soft.any():
        soft = np.full_like(soft, 255)
    shown = resized(picture, size, area.resize)
    shown_soft = np.ascontiguousarray(resized(to_rgb(soft), size, area.resize)[:, :, 0])
    working, mask = lanczos(shown, *sampled), lanczos(shown_soft, *sampled)
    # As latents a picture is resized after it was encoded at its own size; a network with a size of its own sees that.
    is_encoded_first = area.resize == "latent" and sampled == size
    fill = _content(picture, soft, area) if is_encoded_first else _content(working, mask, area)
    return CutOut(shown, _doubled(shown_soft), Box(0, size.height_px, 0, size.width_px), working, mask, fill)


def _doubled(soft: Mask) -> Mask:
    return np.clip(2 * soft.astype(np.uint16), 0, 255).astype(np.uint8)


def _content(picture: Picture, mask: Mask, area: MaskedArea) -> Picture:
    """What is encoded. Where the masked latents are replaced, what they were must not shine through at the edges."""
    return picture if area.content == "original" else filled(picture, binary(mask))


def resized(picture: Picture, size: Size, mode: ResizeMode) -> Picture:
    """A picture ``[h, w, 3]`` at exactly this size."""
    match mode:
        case "cover":
            return covering(picture, *size)
        case "contain":
            return contained(picture, *size)
        case _:
            return lanczos(picture, *size)


def area_box(mask: Mask, padding_px: int, size: Size) -> Box:
    """The box around all that is not 0, grown by the padding, then on one side to the proportions of ``size`` as far
    as the picture reaches. Raises ``ValueError`` for a mask of nothing but 0.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise ValueError("the mask is empty")
    top, bottom, left, right = (int(edge) for edge in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    grown = Box(top - padding_px, bottom + padding_px, left - padding_px, right + padding_px)
    box = grown.within(*mask.shape)
    if box.width * size.height_px > box.height * size.width_px:
        wanted = int(box.width * size.height_px / size.width_px)
        return Box(*_widened(box.top, box.bottom, wanted, mask.shape[0]), box.left, box.right)
    wanted = int(box.height * size.width_px / size.height_px)
    return Box(box.top, box.bottom, *_widened(box.left, box.right, wanted, mask.shape[1]))


def _widened(start: int, end: int, wanted: int, limit: int) -> tuple[int, int]:
    """A stretch of the wanted length around the old one, moved into ``[0, limit]`` or cut to it."""
    missing = max(0, wanted - (end - start))
    start -= missing // 2
    end += missing - missing // 2
    start, end = (start - max(0, end - limit), min(end, limit))
    start, end = (max(0, start), end - min(0, start))
    return start, min(end, limit)
