"""What is painted anew: the mask as it is assembled, and what is kept of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fooocus_core.request import AskedRepaint
from fooocusapi.images.repaints import SentRepaint, to_repaint

PICTURE = np.random.default_rng(7).integers(0, 256, (40, 60, 3), np.uint8)


def mask_of(height_px: int = 40, width_px: int = 60, *, channels: int = 3) -> NDArray[np.uint8]:
    """White in its right half."""
    mask = np.zeros((height_px, width_px, channels), np.uint8)
    mask[:, width_px // 2 :, :3] = 255
    mask[:, :, 3:] = 255
    return mask


def kept(sent: SentRepaint) -> tuple[AskedRepaint | None, list[NDArray[np.uint8]]]:
    """What is asked, and the pictures that were kept for it; their names are their places."""
    pictures: list[NDArray[np.uint8]] = []

    def keep(pixels: NDArray[np.uint8]) -> str:
        pictures.append(pixels)
        return str(len(pictures) - 1)

    return to_repaint(sent, keep), pictures


def kept_mask(sent: SentRepaint) -> NDArray[np.uint8]:
    asked, pictures = kept(sent)
    assert asked is not None
    assert asked.mask is not None
    return pictures[int(asked.mask)]


@pytest.mark.parametrize(("height_px", "width_px"), [(40, 60), (20, 30), (80, 120), (33, 100)])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_mask_of_any_size_is_brought_to_the_pictures(height_px: int, width_px: int, channels: int) -> None:
    mask = kept_mask(SentRepaint(PICTURE, mask_of(height_px, width_px, channels=channels)))
    assert mask.shape == (40, 60)
    assert set(np.unique(mask)) == {0, 255}
    assert not mask[:, :28].any()
    assert mask[:, 32:].all()


def test_the_picture_is_kept_as_it_came() -> None:
    asked, pictures = kept(SentRepaint(PICTURE, mask_of()))
    assert asked == AskedRepaint("0", 60, 40, mask="1")
    assert np.array_equal(pictures[0], PICTURE)


def test_inversion_comes_after_growing() -> None:
    sent = SentRepaint(PICTURE, mask_of(), erode_or_dilate=5)
    assert kept_mask(sent)[0, 25:].all()
    assert not kept_mask(sent)[0, :25].any()
    assert np.array_equal(kept_mask(replace(sent, invert=True)), 255 - kept_mask(sent))
    assert not kept_mask(replace(sent, erode_or_dilate=-5))[:, :35].any()


@pytest.mark.parametrize(
    "sent",
    [
        SentRepaint(PICTURE),
        SentRepaint(PICTURE, np.zeros_like(PICTURE)),
        SentRepaint(PICTURE, np.full_like(PICTURE, 127)),
        SentRepaint(PICTURE, np.full_like(PICTURE, 255), invert=True),
        SentRepaint(PICTURE, mask_of(), erode_or_dilate=-64),
    ],
    ids=["none", "black", "below the half", "white inverted", "shrunk to nothing"],
)
def test_nothing_to_repaint_keeps_nothing(sent: SentRepaint) -> None:
    assert kept(sent) == (None, [])
    asked, pictures = kept(replace(sent, sides=(("left", None), ("top", 9))))
    assert asked == AskedRepaint("0", 60, 40, outpaint=(("left", None), ("top", 9)))
    assert len(pictures) == 1


def test_no_mask_inverted_is_the_whole_picture() -> None:
    assert kept_mask(SentRepaint(PICTURE, invert=True)).all()
