"""What holds for every picture; the numbers themselves are in the golden family H."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fooocus_core.images.area_classes import area_class, fitted_size
from fooocus_core.images.faces import aligned_face
from fooocus_core.images.fill import filled
from fooocus_core.images.masks import assembled_mask, eroded_or_dilated, repaints, resized_mask, soft_mask
from fooocus_core.images.outpaint import extended
from fooocus_core.images.pixels import as_bytes, as_floats, to_rgb
from fooocus_core.images.preprocessors import cpds, pyramid_canny
from fooocus_core.images.repaint import at_diffusion_size, cut_out
from fooocus_core.images.resizing import contained, covering, lanczos
from fooocus_core.images.working_area import box_around, working_box

Bytes = NDArray[np.uint8]
SMALL_CLASS = 128


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def rectangle(height: int, width: int, rows: slice, columns: slice) -> Bytes:
    mask = np.zeros((height, width), np.uint8)
    mask[rows, columns] = 255
    return mask


def four_times(picture: Bytes) -> Bytes:
    return picture.repeat(4, axis=0).repeat(4, axis=1)


# --- pixels -------------------------------------------------------------------------------------------------------


def test_every_byte_survives_the_way_to_floats_and_back() -> None:
    picture = noise(20, 30)
    np.testing.assert_array_equal(as_bytes(as_floats(picture))[0], picture)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
def test_any_picture_becomes_rgb(shape: tuple[int, ...]) -> None:
    picture = to_rgb(np.full(shape, 255, np.uint8))
    assert picture.shape == (4, 5, 3)
    assert picture.min() == 255


def test_two_channels_are_no_picture() -> None:
    with pytest.raises(ValueError, match="not 2"):
        to_rgb(noise(4, 5, 2))


# --- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (1, 3000), (3000, 1), (17, 5), (33, 100)])
@pytest.mark.parametrize("resize", [lanczos, covering, contained])
def test_every_way_of_resizing_gives_the_size_asked_for(resize: object, size: tuple[int, int]) -> None:
    assert callable(resize)
    assert resize(noise(40, 50), *size).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("resize", [lanczos, covering, contained])
def test_a_thin_picture_can_be_resized(resize: object) -> None:
    assert callable(resize)
    assert resize(noise(1, 500), 64, 64).shape == (64, 64, 3)


def test_a_line_of_pixels_covers_a_square_without_a_gigantic_step_between() -> None:
    line = np.zeros((4000, 1, 3), np.uint8)
    line[1990:2010] = 255
    assert (covering(line, 1024, 1024) == 255).all()


def test_a_transparent_colour_does_not_bleed_into_its_neighbours() -> None:
    image = np.zeros((8, 8, 4), np.uint8)
    image[:, :4] = (255, 0, 0, 255)
    image[:, 4:] = (0, 255, 0, 0)
    visible = (resized := lanczos(image, 16, 5))[resized[..., 3] > 0]
    assert visible[:, 1].max() == 0


@pytest.mark.parametrize("shape", [(256, 320), (1000, 1500), (4000, 3000), (30, 2000), (1, 20000)])
def test_fitted_sizes_are_multiples_of_64_of_the_class(shape: tuple[int, int]) -> None:
    height, width = fitted_size(*shape, 1024)
    assert (height % 64, width % 64) == (0, 0)
    assert area_class(height, width) == 1024 or min(height, width) == 64


def test_a_size_of_the_class_is_left_alone() -> None:
    assert fitted_size(1001, 1003, 1024) == (1001, 1003)


# --- masks --------------------------------------------------------------------------------------------------------


def test_a_mask_keeps_to_two_values_at_every_size() -> None:
    mask = resized_mask(noise(40, 50, 1)[..., 0], 33, 77)
    assert mask.shape == (77, 33)
    assert set(np.unique(mask)) <= {0, 255}


def test_growing_comes_before_inverting() -> None:
    drawn = rectangle(20, 20, slice(8, 12), slice(8, 12))[..., None]
    mask = assembled_mask(drawn, None, erode_or_dilate=2, invert=True)
    assert (mask == 0).sum() == 8 * 8


def test_a_mask_at_the_edge_does_not_shrink_from_it() -> None:
    mask = rectangle(20, 20, slice(0, 10), slice(0, 20))
    np.testing.assert_array_equal(eroded_or_dilated(mask, -3), rectangle(20, 20, slice(0, 7), slice(0, 20)))


def test_the_soft_mask_falls_by_eight_a_pixel_in_every_direction() -> None:
    soft = soft_mask(rectangle(81, 81, slice(40, 41), slice(40, 41)))
    expected = [255, *(256 - 8 * distance for distance in range(1, 32)), 0, 0]
    assert soft[40, 40:74].tolist() == expected
    assert soft.diagonal()[40:74].tolist() == expected


@pytest.mark.parametrize(("value", "soft"), [(0, 0), (127, 0), (128, 255), (255, 255)])
def test_a_soft_mask_of_one_value(value: int, soft: int) -> None:
    mask = np.full((9, 70), value, np.uint8)
    assert repaints(mask) == bool(soft)
    assert (soft_mask(mask) == soft).all()


# --- repainting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("respective_field", [0.0, 0.3, 0.618, 1.0])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [(slice(30, 60), slice(40, 90)), (slice(0, 1), slice(0, 1)), (slice(0, 100), slice(149, 150))],
    ids=["inside", "corner", "edge"],
)
def test_a_repainted_picture_is_the_original_where_nothing_is_masked(
    rows: slice, columns: slice, respective_field: float
) -> None:
    picture, mask = noise(100, 150), rectangle(100, 150, rows, columns)
    repaint = cut_out(picture, mask, respective_field, at_diffusion_size(four_times, SMALL_CLASS), fill=False)
    generated = np.full_like(repaint.picture, 7)
    result = repaint.composited(generated)
    outside = repaint.soft_mask == 0
    assert outside.any()
    np.testing.assert_array_equal(result[outside], picture[outside])
    assert (result[mask == 255] == 7).all()


def test_the_working_picture_its_mask_and_its_fill_have_one_size() -> None:
    picture, mask = noise(90, 210), rectangle(90, 210, slice(20, 50), slice(20, 50))
    repaint = cut_out(picture, mask, 0.5, at_diffusion_size(four_times, SMALL_CLASS), fill=True)
    assert repaint.picture.shape == repaint.fill.shape == (*repaint.mask.shape, 3)
    assert area_class(*repaint.mask.shape) == SMALL_CLASS
    known = repaint.mask == 0
    np.testing.assert_array_equal(repaint.fill[known], repaint.picture[known])
    assert (repaint.fill[~known] != repaint.picture[~known]).any()


def test_a_picture_of_the_class_is_not_enlarged() -> None:
    picture, mask = noise(120, 130), np.full((120, 130), 255, np.uint8)

    def refuse(_: Bytes) -> Bytes:
        raise AssertionError("asked to enlarge")

    assert cut_out(picture, mask, 1.0, at_diffusion_size(refuse, SMALL_CLASS), fill=False).picture is not None


def test_a_hole_is_filled_from_around_it() -> None:
    picture = np.full((60, 60, 3), 200, np.uint8)
    mask = rectangle(60, 60, slice(20, 40), slice(20, 40))
    picture[mask == 255] = 0
    assert np.abs(filled(picture, mask).astype(int) - 200).max() <= 3


@pytest.mark.parametrize("respective_field", [0.0, 0.5, 1.0])
def test_the_working_box_holds_the_mask_and_its_share_of_the_picture(respective_field: float) -> None:
    mask = rectangle(200, 333, slice(150, 170), slice(10, 30))
    box = working_box(mask, respective_field)
    assert box.top <= 150 < 170 <= box.bottom
    assert box.left <= 10 < 30 <= box.right
    assert box.height >= 200 * respective_field
    assert box.width >= 333 * respective_field


def test_an_empty_mask_has_no_box() -> None:
    with pytest.raises(ValueError, match="empty"):
        box_around(np.zeros((5, 5), np.uint8))


# --- outpainting --------------------------------------------------------------------------------------------------


def test_sides_grow_by_their_distance_or_by_three_tenths() -> None:
    picture, mask = noise(50, 40), rectangle(50, 40, slice(0, 0), slice(0, 0))
    grown, grown_mask = extended(picture, mask, {"left": 7, "right": -1, "top": 0})
    assert grown.shape == (15 + 50, 7 + 40 + 12, 3)
    np.testing.assert_array_equal(grown[15:, 7:47], picture)
    inside = np.zeros(grown_mask.shape, bool)
    inside[15:, 7:47] = True
    np.testing.assert_array_equal(grown_mask, np.where(inside, 0, 255))


def test_without_sides_nothing_grows() -> None:
    picture, mask = noise(5, 6), np.zeros((5, 6), np.uint8)
    assert extended(picture, mask, {})[0].shape == picture.shape


# --- control pictures and faces -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("preprocessor", [pyramid_canny, cpds])
@pytest.mark.parametrize("value", [0, 90, 255])
def test_a_flat_picture_has_no_structure(preprocessor: object, value: int) -> None:
    assert callable(preprocessor)
    result = preprocessor(np.full((20, 30, 3), value, np.uint8))
    assert result.shape == (20, 30)
    assert result.max() == 0


@pytest.mark.filterwarnings("error")
def test_few_edges_are_all_white() -> None:
    picture = np.zeros((200, 200, 3), np.uint8)
    picture[100:102, 100:102] = 255
    assert set(np.unique(pyramid_canny(picture))) == {0, 255}


def test_five_points_in_one_place_are_no_face() -> None:
    picture = noise(30, 30)
    assert aligned_face(picture, np.full((5, 2), 10.0, np.float32)) is picture
