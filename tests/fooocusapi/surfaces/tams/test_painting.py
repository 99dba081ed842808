"""The pocket model behind staged jobs: which stage works on what. The bodies of the contract are in ``test_live``."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image

from tests.fooocusapi.served import pixels_of
from tests.fooocusapi.surfaces.tams.asking import JOBS, body, diffusion, painted, path_of, uploaded
from tests.fooocusapi.surfaces.tams.drawing import MASK, drawn, ended, pictures, quick_networks

__all__ = ["quick_networks"]


def run(client: TestClient, request_id: str, *later: dict[str, Any], **start: Any) -> list[NDArray[np.uint8]]:
    """The pictures of a job."""
    answer = client.post(JOBS, json=body(request_id, *later, start=start))
    assert answer.status_code == 200, answer.text
    job = ended(client, answer.json()["job"]["id"])
    assert job["status"] == "SUCCESS", job
    return pictures(client, job)


def sent(client: TestClient, written: str, width_px: int, height_px: int) -> tuple[str, NDArray[np.uint8]]:
    """An upload, and its pixels."""
    data = drawn(written, width_px, height_px)
    return uploaded(client, data), pixels_of(data)


def test_what_the_mask_does_not_touch_stays(painting: TestClient) -> None:
    picture, pixels = sent(painting, "picture", 512, 512)
    mask, white = sent(painting, MASK, 512, 512)
    block = {"maskImageResourceId": mask, "maskBlur": 0, "diffusion": diffusion(steps=3, denoisingStrength=0.9)}
    later = {"type": "IMAGE_TO_INPAINT", "imageToInpaint": block}
    (made,) = run(painting, "inpaint", later, imageResourceId=picture, seed=3)
    assert np.array_equal(made[white == 0], pixels[white == 0])
    assert not np.array_equal(made[white > 0], pixels[white > 0])


def test_a_picture_without_a_face_comes_back_as_it_was(painting: TestClient) -> None:
    picture, pixels = sent(painting, "picture", 640, 512)
    block = {"args": [{"adConfidence": 0.99}], "diffusion": diffusion(steps=3)}
    later = {"type": "IMAGE_TO_ADETAILER", "imageToAdetailer": block}
    (made,) = run(painting, "faceless", later, imageResourceId=picture)
    assert np.array_equal(made, pixels)


def test_the_same_seed_makes_the_same_picture(painting: TestClient) -> None:
    (one,), (two,) = (run(painting, name, painted(steps=3), seed="7") for name in ("one", "two"))
    assert np.array_equal(one, two)
    _, other = run(painting, "other", painted(steps=3), seed=6, count=2)
    assert np.array_equal(one, other)


def test_a_stand_in_for_an_upscaler_is_told_in_the_file(painting: TestClient) -> None:
    block = {"hrUpscaler": "SwinIR_4x", "hrScale": 1, "hrSecondPassSteps": 0, "denoisingStrength": 0}
    later = {"type": "IMAGE_TO_UPSCALER", "imageToUpscaler": {**block, "diffusion": diffusion()}}
    picture, _ = sent(painting, "picture", 512, 512)
    request = body("stand-in", later, start={"imageResourceId": picture})
    job = ended(painting, painting.post(JOBS, json=request).json()["job"]["id"])
    (image,) = job["successInfo"]["images"]
    text = Image.open(io.BytesIO(painting.get(path_of(image["url"])).content)).info["parameters"]
    assert "Upscaler fallback for: SwinIR_4x" in text
    assert "Steps" not in text


def test_the_schedule_that_fooocus_does_not_know_paints(painting: TestClient) -> None:
    one, other = (
        run(painting, f"schedule-{name}", painted(steps=3, sampler="Euler", scheduleName=name), seed=4)[0]
        for name in ("beta", "normal")
    )
    assert not np.array_equal(one, other)


def test_stages_work_on_what_the_one_before_has_made(painting: TestClient) -> None:
    """Enlarged without a second pass, the result is the first stage's picture, pixel by pixel."""
    larger = {"hrUpscaler": "Nearest", "hrScale": 2, "hrSecondPassSteps": 0, "denoisingStrength": 0}
    later = {"type": "IMAGE_TO_UPSCALER", "imageToUpscaler": larger}
    (small,) = run(painting, "small", painted(steps=3), seed=9)
    (large,) = run(painting, "large", painted(steps=3), later, seed=9)
    assert np.array_equal(large[::2, ::2], small)
    (again,) = run(painting, "again", painted(steps=3), later, later, seed=9)
    assert np.array_equal(again[::4, ::4], small)
