"""Masks of the parts that were found, as they are painted."""

from __future__ import annotations

import numpy as np
import pytest

from fooocus_core.images.parts import boxed, grown_by_square, part_masks

BOXES = np.array([[2.2, 3.0, 6.0, 5.6], [-4.0, 8.0, 3.0, 99.0], [50.0, 50.0, 60.0, 60.0]], np.float32)


def test_boxes_are_cut_at_the_edges() -> None:
    one, other, outside = boxed(BOXES, 12, 16)
    assert one.shape == (12, 16)
    assert (one[3:6, 2:6] == 255).all()
    assert (one > 0).sum() == 12
    assert (other[8:, :3] == 255).all()
    assert (other > 0).sum() == 12
    assert not outside.any()


@pytest.mark.parametrize(("side", "pixels"), [(0, 16), (4, 49), (3, 36), (-3, 4), (-4, 1), (-5, 0)])
def test_masks_grow_by_a_square(side: int, pixels: int) -> None:
    """A square of 4 on a mask of 4 x 4: 4 + 4 - 1 pixels a side."""
    mask = np.zeros((16, 16), np.uint8)
    mask[6:10, 6:10] = 255
    assert (grown_by_square(mask, side) > 0).sum() == pixels


def test_merging() -> None:
    found = boxed(BOXES, 12, 16)
    assert len(part_masks(found, 0, "none")) == 2  # the third is empty
    [union] = part_masks(found, 0, "merge")
    assert (union > 0).sum() == 24
    [rest] = part_masks(found, 0, "merge and invert")
    np.testing.assert_array_equal(rest, 255 - union)
    assert part_masks(found[2:], 0, "merge and invert") == []
