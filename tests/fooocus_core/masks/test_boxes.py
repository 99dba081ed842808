"""From the detector's answer to boxes, on numbers made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fooocus_core.masks.boxes import Detections, caption_of, detections_of, detector_size, drawn, grown

SCORES = np.array([[0.1, 0.29, 0.0], [0.31, 0.2, 0.0], [0.9, 0.26, 0.8], [0.3, 0.3, 0.3]], np.float32)
BOXES = np.array([[0.5, 0.5, 1, 1], [0.5, 0.25, 0.2, 0.1], [0.1, 0.9, 0.4, 0.4], [0, 0, 0.1, 0.1]], np.float32)


def found(box_threshold: float = 0.3, text_threshold: float = 0.25) -> Detections:
    return detections_of(
        SCORES,
        BOXES,
        (200, 100),
        box_threshold=box_threshold,
        text_threshold=text_threshold,
        words=lambda places: "+".join(map(str, places)),
    )


@pytest.mark.parametrize(
    ("prompt", "caption"),
    [("A Cat", "a cat."), ("  face . eye. ", "face . eye."), ("hair.", "hair."), ("ÄRMEL", "ärmel.")],
)
def test_a_prompt_is_read_in_lower_case_and_ends(prompt: str, caption: str) -> None:
    assert caption_of(prompt) == caption


@pytest.mark.parametrize(
    ("width_px", "height_px", "seen"),
    [
        (512, 512, (800, 800)),
        (640, 427, (1199, 800)),
        (427, 640, (800, 1199)),
        (2000, 1000, (1332, 666)),  # 1333 would be half a pixel too long for a whole shorter side
        (1000, 3000, (444, 1332)),
        (800, 800, (800, 800)),
        (800, 1100, (800, 1100)),
        (8, 8, (800, 800)),
    ],
)
def test_a_picture_is_seen_at_the_size_of_the_original(width_px: int, height_px: int, seen: tuple[int, int]) -> None:
    assert detector_size(width_px, height_px) == seen


def test_a_box_is_kept_above_its_threshold_and_not_at_it() -> None:
    """The fourth has exactly 0.3; the order is the detector's."""
    assert found().phrases == ("0", "0+1+2")
    assert found(box_threshold=0.31).phrases == ("0+1+2",)
    assert len(found(box_threshold=0.0).boxes) == 4
    assert found(box_threshold=1.0).boxes.shape == (0, 4)


def test_the_text_threshold_only_names() -> None:
    assert np.array_equal(found(text_threshold=0.85).boxes, found().boxes)
    assert found(text_threshold=0.85).phrases == ("", "0")


def test_centre_and_size_become_corners_in_pixels() -> None:
    assert np.allclose(found().boxes, [[80, 20, 120, 30], [-20, 70, 60, 110]])


def test_boxes_grow_and_shrink_on_every_side_and_leave_the_picture() -> None:
    boxes = np.array([[1, 2, 30, 40]], np.float32)
    assert grown(boxes, 5).tolist() == [[-4, -3, 35, 45]]
    assert grown(boxes, -2.5).tolist() == [[3.5, 4.5, 27.5, 37.5]]
    assert grown(boxes, 0).tolist() == boxes.tolist()


def test_boxes_are_drawn_in_white_on_black() -> None:
    boxes = np.array([[2, 1, 4, 2], [-9, 7, 3, 99], [6, 6, 5, 5]], np.float32)
    picture = drawn(boxes, (8, 10))
    assert picture.shape == (10, 8, 3)
    expected = np.zeros((10, 8), bool)
    expected[1:3, 2:5] = expected[7:, :4] = True
    assert np.array_equal(picture.all(axis=2), expected)
    assert np.array_equal(picture.any(axis=2), expected)


def test_no_box_is_black() -> None:
    assert not drawn(np.zeros((0, 4), np.float32), (8, 10)).any()
