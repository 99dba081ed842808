"""Previews as clients get them: a quarter of the picture, from large and small models alike."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fooocus_core.plan import Plan
from fooocusapi.images.previews import preview_png
from tests.fooocusapi.fakes import a_plan


def plan_of(width_px: int, height_px: int) -> Plan:
    plan = a_plan()
    return replace(plan, stages=(replace(plan.stages[0], width_px=width_px, height_px=height_px),))


def shown(width_px: int, height_px: int, plan: Plan | None) -> Image.Image:
    pixels = np.full((height_px, width_px, 3), 90, np.uint8)
    return Image.open(io.BytesIO(preview_png(pixels, plan)))


@pytest.mark.parametrize(
    ("preview", "size"),
    [((288, 224), (288, 224)), ((28, 22), (288, 224)), ((400, 300), (400, 300))],
    ids=["full-size model", "pocket model", "larger than needed"],
)
def test_a_quarter_of_the_picture(preview: tuple[int, int], size: tuple[int, int]) -> None:
    picture = shown(*preview, plan_of(1152, 896))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", size)
    assert picture.getextrema() == ((90, 90),) * 3, "enlarging changes no colour"


def test_without_a_plan_it_stays_as_it_is() -> None:
    assert shown(8, 6, None).size == (8, 6)
