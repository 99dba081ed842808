"""Repainting behind a soft mask: the mask, the box, and what is cut out and put back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fooocus_core.images.masked_area import area_box, area_cut_out, grey_mask, soft_area_mask
from fooocus_core.images.resizing import lanczos
from fooocus_core.images.working_area import Box
from fooocus_core.plan import MaskedArea
from fooocus_core.presets.sizes import Size
from tests.cases import check_all

HARD = MaskedArea(blur_px=0.0, padding_px=0)
WHOLE = MaskedArea(blur_px=0.0, only_masked=False)


def scene(width: int = 60, height: int = 40) -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)


def mask_of(top: int, bottom: int, left: int, right: int, size: tuple[int, int] = (40, 60)) -> NDArray[np.uint8]:
    mask = np.zeros(size, np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


def test_masks_of_any_channels_stay_soft() -> None:
    soft = np.arange(16, dtype=np.uint8).reshape(4, 4)
    np.testing.assert_array_equal(grey_mask(soft), soft)
    np.testing.assert_array_equal(grey_mask(np.repeat(soft[:, :, None], 3, 2)), soft)
    assert grey_mask(np.zeros((4, 4, 4), np.uint8)).min() == 255


def test_the_blur_is_a_gauss_filter_each_way() -> None:
    """Deviation 4: the kernel reaches floor(2.5 * 4 + 0.5) = 10 pixels."""
    soft = soft_area_mask(mask_of(20, 21, 30, 31), MaskedArea(blur_px=4.0))
    weights = np.exp(-(np.arange(-10, 11) ** 2) / 32.0)
    weights /= weights.sum()
    across = np.rint(255 * weights)
    expected = np.rint(across[None, :] * weights[:, None])
    assert np.abs(soft[10:31, 20:41].astype(float) - expected).max() <= 1
    edge = soft_area_mask(mask_of(0, 40, 0, 30), MaskedArea(blur_px=2.0))
    assert (edge[:, 36:] == 0).all()
    assert (edge[:, 24] == 255).all()


def test_a_mask_is_inverted_first() -> None:
    mask = mask_of(10, 20, 10, 20)
    np.testing.assert_array_equal(soft_area_mask(mask, MaskedArea(invert=True, blur_px=0)), 255 - mask)


BOXES = {
    "as it is": ((10, 20, 20, 30), 0, (64, 64), (10, 20, 20, 30)),
    "grown": ((10, 20, 20, 30), 5, (64, 64), (5, 25, 15, 35)),
    "grown within": ((0, 20, 20, 60), 8, (64, 64), (0, 40, 12, 60)),
    "wider": ((10, 20, 20, 30), 0, (128, 64), (10, 20, 15, 35)),
    "higher": ((10, 20, 20, 30), 0, (64, 128), (5, 25, 20, 30)),
    "moved from the left": ((10, 20, 0, 10), 0, (128, 64), (10, 20, 0, 20)),
    "moved from the right": ((10, 20, 50, 60), 0, (128, 64), (10, 20, 40, 60)),
    "moved from below": ((30, 40, 20, 30), 0, (64, 128), (20, 40, 20, 30)),
    "no further than the picture": ((10, 30, 20, 50), 0, (64, 256), (0, 40, 20, 50)),
}


def test_boxes() -> None:
    def check(case: tuple[tuple[int, int, int, int], int, tuple[int, int], tuple[int, int, int, int]]) -> None:
        masked, padding, size, expected = case
        assert area_box(mask_of(*masked), padding, Size(*size)) == Box(*expected)

    check_all(BOXES, check)
    with pytest.raises(ValueError, match="empty"):
        area_box(mask_of(0, 0, 0, 0), 4, Size(8, 8))


@given(st.integers(0, 39), st.integers(0, 59), st.integers(1, 40), st.integers(1, 60), st.integers(0, 50), st.data())
def test_a_box_holds_the_mask_and_lies_in_the_picture(
    top: int, left: int, height: int, width: int, padding: int, data: st.DataObject
) -> None:
    bottom, right = min(40, top + height), min(60, left + width)
    size = Size(data.draw(st.integers(1, 30)) * 64, data.draw(st.integers(1, 30)) * 64)
    box = area_box(mask_of(top, bottom, left, right), padding, size)
    assert 0 <= box.top <= top < bottom <= box.bottom <= 40
    assert 0 <= box.left <= left < right <= box.right <= 60
    is_near = abs(box.width * size.height_px - box.height * size.width_px) <= max(size)
    assert is_near or box.height == 40 or box.width == 60


def test_only_what_is_masked_is_put_back_into_the_picture() -> None:
    soft = soft_area_mask(mask_of(10, 30, 20, 40), MaskedArea(blur_px=2.0))
    what = area_cut_out(scene(), mask_of(10, 30, 20, 40), MaskedArea(blur_px=2.0), Size(128, 64), Size(64, 32))
    assert what.picture.shape == (32, 64, 3)
    assert what.mask.shape == (32, 64)
    made = what.composited(np.full((32, 64, 3), 9, np.uint8))
    np.testing.assert_array_equal(made[soft == 0], scene()[soft == 0])
    assert (made[soft == 255] == 9).all()


def test_a_cut_out_keeps_its_proportions() -> None:
    """All of the height, which is too little for what is painted: bands lie above and below, and are cut off again."""
    what = area_cut_out(scene(), mask_of(0, 40, 0, 60), HARD, Size(64, 64), Size(64, 64))
    np.testing.assert_array_equal(what.picture[11:53], lanczos(scene(), 64, 42))
    generated = what.picture.copy()
    generated[:11], generated[53:] = 0, 0
    difference = what.composited(generated).astype(int) - lanczos(lanczos(scene(), 64, 42), 60, 40)
    assert np.abs(difference).mean() < 12
    assert what.fitting_size(64, 64) == (60, 60)


def test_the_whole_picture_has_the_size_that_is_painted() -> None:
    mask = np.full((40, 60), 100, np.uint8)
    mask[:, 30:] = 0
    for mode in ("stretch", "cover", "contain", "latent"):
        area = MaskedArea(blur_px=0, only_masked=False, resize=mode)  # type: ignore[arg-type]
        what = area_cut_out(scene(), mask, area, Size(48, 48), Size(48, 48))
        assert what.original.shape == what.picture.shape == (48, 48, 3)
        assert what.composited(np.zeros((48, 48, 3), np.uint8)).shape == (48, 48, 3)
        assert what.soft_mask[24, 2] == 200  # doubled
        assert (what.soft_mask[:, 40:] == 0).all()
        assert what.fill.shape == ((40, 60, 3) if mode == "latent" else (48, 48, 3))


def test_a_whole_picture_may_keep_its_size() -> None:
    mask = np.full((40, 60), 100, np.uint8)
    mask[:, 30:] = 0
    what = area_cut_out(
        scene(), mask, MaskedArea(blur_px=0, only_masked=False, keeps_size=True), Size(48, 48), Size(24, 24)
    )
    assert what.picture.shape == (24, 24, 3)
    made = what.composited(np.zeros((24, 24, 3), np.uint8))
    np.testing.assert_array_equal(made[:, 30:], scene()[:, 30:])
    assert what.soft_mask[0, 0] == 200


def test_the_whole_picture_without_a_mask_is_painted() -> None:
    what = area_cut_out(scene(), mask_of(0, 0, 0, 0), WHOLE, Size(48, 48), Size(24, 24))
    assert what.mask.min() == 255
    assert (what.composited(np.full((48, 48, 3), 7, np.uint8)) == 7).all()
    with pytest.raises(ValueError, match="empty"):
        area_cut_out(scene(), mask_of(0, 0, 0, 0), HARD, Size(48, 48), Size(24, 24))


def test_a_fill_hides_what_was_there() -> None:
    picture = np.full((40, 60, 3), 50, np.uint8)
    picture[15:25, 25:35] = 250
    for content in ("original", "fill", "noise", "nothing"):
        area = MaskedArea(blur_px=0, only_masked=False, content=content)  # type: ignore[arg-type]
        what = area_cut_out(picture, mask_of(15, 25, 25, 35), area, Size(60, 40), Size(60, 40))
        assert (int(what.fill[20, 30].max()) == 250) is (content == "original")
        assert (int(what.fill[20, 30].max()) < 120) is (content != "original")
        np.testing.assert_array_equal(what.fill[:10], picture[:10])
