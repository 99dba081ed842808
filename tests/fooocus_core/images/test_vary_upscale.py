"""Sizes that variations and upscales start from (specification 05)."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fooocus_core.images.methods import METHODS, upscaled_size, varied_size
from fooocus_core.images.vary_upscale import upscaled, varied_start

Bytes = NDArray[np.uint8]


def unchanged(picture: Bytes) -> Bytes:
    """In place of an enlargement: the size comes out the same."""
    return picture


def plain(height: int, width: int) -> Bytes:
    return np.full((height, width, 3), 90, np.uint8)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((256, 320), (896, 1088)),
        ((1001, 1003), (1001, 1003)),
        ((1180, 1180), (1180, 1180)),
        ((2100, 2100), (2048, 2048)),
    ],
    ids=["enlarged", "of the class", "between the classes", "reduced"],
)
def test_a_variation_starts_within_the_classes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert varied_start(plain(*size)).shape == (*expected, 3)


@pytest.mark.parametrize(
    ("size", "factor", "fast", "expected", "refine"),
    [
        ((600, 700), 1.5, False, (900, 1050), True),
        ((601, 701), 1.5, False, (901, 1051), True),
        ((600, 700), 2.0, True, (1200, 1400), False),
        ((300, 300), 1.5, False, (1024, 1024), True),
        ((300, 300), 2.0, True, (1024, 1024), False),
        ((1390, 1400), 2.0, False, (2780, 2800), False),
        ((1350, 1370), 2.0, False, (2700, 2740), True),
    ],
)
def test_an_upscale_has_the_size_asked_for(
    size: tuple[int, int], factor: float, fast: bool, expected: tuple[int, int], refine: bool
) -> None:
    result = upscaled(plain(*size), factor, unchanged, fast=fast)
    assert result.picture.shape == (*expected, 3)
    assert result.refine is refine


def test_methods_differ_in_what_they_make_anew() -> None:
    subtle, strong = METHODS["Vary (Subtle)"], METHODS["Vary (Strong)"]
    assert (subtle.denoise, strong.denoise) == (0.5, 0.85)
    assert {method.factor for name, method in METHODS.items() if name.startswith("Vary")} == {None}
    assert [name for name, method in METHODS.items() if method.fast] == ["Upscale (Fast 2x)"]


def test_a_size_is_known_without_the_picture() -> None:
    for height, width in ((256, 320), (601, 701), (2100, 1500), (40, 900)):
        assert varied_start(plain(height, width)).shape[:2] == varied_size(height, width)
        picture = upscaled(plain(height, width), 1.5, unchanged, fast=True).picture
        assert picture.shape[:2] == upscaled_size(height, width, 1.5, fast=True)[:2]
