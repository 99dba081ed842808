"""The pocket model behind staged jobs: the vendor's own bodies give pictures of the stated sizes, numbers and order."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from fooocus_core.models.upscaler import Upscaler
from tests.fooocus_core.stages.test_start import scene
from tests.fooocusapi.served import pixels_of, wait_until
from tests.fooocusapi.surfaces.tams.asking import FINAL, path_of, shown
from tests.fooocusapi.surfaces.tams.examples import EXAMPLES, OF_VENDOR, asked, check_answer
from tests.fooocusapi.surfaces.tams.matching import mismatch

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


def ended(client: TestClient, job_id: str) -> Any:
    wait_until(lambda: shown(client, job_id)["status"] in FINAL, PATIENCE_S)
    return shown(client, job_id)


def pictures(client: TestClient, job: Any) -> list[NDArray[np.uint8]]:
    return [pixels_of(client.get(path_of(image["url"])).content) for image in job["successInfo"]["images"]]


@pytest.fixture(autouse=True)
def quick_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that enlarge take most of the time, and nothing here looks at what they do to pixels."""
    monkeypatch.setattr(
        Upscaler, "_run", lambda self, pixels: functional.interpolate(pixels.float(), scale_factor=self.scale)
    )


@pytest.mark.parametrize("name", OF_VENDOR)
def test_the_vendors_bodies_give_what_they_should(painting: TestClient, name: str) -> None:
    example = EXAMPLES[name]
    answer = asked(painting, example, drawn)
    check_answer(answer, example["answer"])
    job = ended(painting, answer.json()["job"]["id"])
    assert mismatch(example["final"], {"job": job}) is None, (mismatch(example["final"], {"job": job}), job)
    sizes = [image["meta"]["image"] for image in job["successInfo"]["images"]]
    made = pictures(painting, job)
    assert [picture.shape[:2] for picture in made] == [(size["height"], size["width"]) for size in sizes]
    assert all(not np.array_equal(made[0], other) for other in made[1:])
