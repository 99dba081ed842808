"""Staged jobs that are really painted: what they start from, and their pictures once they have ended."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from fooocus_core.models.upscaler import Upscaler
from tests.fooocus_core.stages.test_start import scene
from tests.fooocusapi.served import pixels_of, wait_until
from tests.fooocusapi.surfaces.tams.asking import FINAL, path_of, shown

MASK = "48203af7-6b07-4f1c-8506-f3f545613653"
PATIENCE_S = 120.0


def drawn(written: str, width_px: int, height_px: int) -> bytes:
    """A scene to start from, and masks that are white in the middle."""
    picture = Image.fromarray(scene(160)).resize((width_px, height_px))
    if written == MASK:
        picture = Image.new("L", (width_px, height_px))
        picture.paste(255, (width_px // 3, height_px // 3, width_px // 2, height_px // 2))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def ended(client: httpx.Client, job_id: str) -> Any:
    """The job once nothing can happen to it any more; painting takes its time."""
    wait_until(lambda: shown(client, job_id)["status"] in FINAL, PATIENCE_S)
    return shown(client, job_id)


def pictures(client: httpx.Client, job: Any) -> list[NDArray[np.uint8]]:
    return [pixels_of(client.get(path_of(image["url"])).content) for image in job["successInfo"]["images"]]


@pytest.fixture(autouse=True)
def quick_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that enlarge take most of the time, and nothing here looks at what they do to pixels."""
    monkeypatch.setattr(
        Upscaler, "_run", lambda self, pixels: functional.interpolate(pixels.float(), scale_factor=self.scale)
    )
