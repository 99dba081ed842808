"""Sizes and pictures that are enlarged by means of choice."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fooocus_core.images.enlarging import covering_size, enlarged_picture, enlarged_size
from fooocus_core.plan import Enlarging
from fooocus_core.presets.sizes import Size
from tests.cases import check_all

SIZES: dict[str, tuple[tuple[int, int], Enlarging, tuple[int, int], tuple[int, int]]] = {
    "twice": ((512, 512), Enlarging("latent", factor=2.0), (1024, 1024), (1024, 1024)),
    "to multiples of 8": ((512, 768), Enlarging("lanczos", factor=1.3), (664, 1000), (664, 1000)),
    "halves go up": ((500, 500), Enlarging("lanczos", factor=1.0), (504, 504), (504, 504)),
    "a box": ((512, 768), Enlarging("network", width_px=1536, height_px=2304), (1536, 2304), (1536, 2304)),
    "a wider box": ((512, 768), Enlarging("network", width_px=1024, height_px=1024), (1024, 1024), (1024, 1536)),
    "a higher box": ((768, 512), Enlarging("network", width_px=1024, height_px=1024), (1024, 1024), (1536, 1024)),
    "a width": ((512, 768), Enlarging("lanczos", width_px=1024), (1024, 1536), (1024, 1536)),
    "a height": ((500, 300), Enlarging("lanczos", height_px=640), (1064, 640), (1064, 640)),
    "a factor before sides": ((512, 512), Enlarging("lanczos", None, 1.5, 128, 128), (768, 768), (768, 768)),
}


def scene(width: int = 24, height: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_sizes() -> None:
    def check(case: tuple[tuple[int, int], Enlarging, tuple[int, int], tuple[int, int]]) -> None:
        size, asked, result, covering = case
        assert enlarged_size(Size(*size), asked) == result
        assert covering_size(Size(*size), asked) == covering

    check_all(SIZES, check)


def test_nothing_asked_for() -> None:
    with pytest.raises(ValueError, match="side"):
        enlarged_size(Size(8, 8), Enlarging("lanczos"))


@pytest.mark.parametrize("method", ["nearest", "lanczos", "network"])
def test_a_box_shows_the_middle(method: str) -> None:
    picture = scene()
    picture[:, :4], picture[:, -4:] = 0, 0  # cut off
    asked = Enlarging(method, width_px=32, height_px=32)  # type: ignore[arg-type]

    def twice(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.repeat(np.repeat(small, 2, 0), 2, 1)

    made = enlarged_picture(picture, asked, twice)
    assert made.shape == (32, 32, 3)
    assert (made[:, [0, -1]].max(axis=(0, 1)) > 0).all()
    if method != "lanczos":
        np.testing.assert_array_equal(made, twice(picture)[:, 8:-8])


def test_a_network_is_asked_as_often_as_the_size_needs() -> None:
    asked: list[tuple[int, ...]] = []

    def twice(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
        asked.append(small.shape)
        return np.repeat(np.repeat(small, 2, 0), 2, 1)

    made = enlarged_picture(scene(), Enlarging("network", factor=3.0), twice)
    assert made.shape == (48, 72, 3)
    assert asked == [(16, 24, 3), (32, 48, 3)]
    assert enlarged_picture(scene(), Enlarging("network", factor=1.0), twice).shape == (16, 24, 3)
    assert len(asked) == 2
