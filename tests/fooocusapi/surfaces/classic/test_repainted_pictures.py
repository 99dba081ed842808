"""Inpainted, outpainted and steered pictures of the pocket model, asked for over HTTP."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from fooocus_core.images.masks import soft_mask
from tests.fooocusapi.served import TEXT_TO_IMAGE, House, pixels_of, query
from tests.fooocusapi.surfaces.classic.pictures import nothing_kept, plain, png, text

INPAINT_V1, INPAINT_V2 = "/v1/generation/image-inpaint-outpaint", "/v2/generation/image-inpaint-outpaint"
WITH_PROMPTS = "/v2/generation/text-to-image-with-ip"
PROMPT_V1, PROMPT_V2 = "/v1/generation/image-prompt", "/v2/generation/image-prompt"
HEIGHT, WIDTH = 96, 128


def scene() -> NDArray[np.uint8]:
    """A slope of colours with a disc."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    slope = np.stack([rows, 40 + columns, np.full((HEIGHT, WIDTH), 120)], 2)
    disc = (rows - 48) ** 2 + (columns - 32) ** 2 < 400
    return np.where(disc[..., None], [230, 40, 30], slope).astype(np.uint8)


def corner(scale: int = 1) -> NDArray[np.uint8]:
    """A mask of the picture's shape, white in a box at its lower right."""
    mask = np.zeros((HEIGHT * scale, WIDTH * scale, 3), np.uint8)
    mask[56 * scale : 88 * scale, 88 * scale : 120 * scale] = 255
    return mask


SCENE, CORNER = png(scene()), png(corner())
SOFT = soft_mask(corner()[:, :, 0])
COMMON: dict[str, Any] = {
    "prompt": "a blue cup",
    "style_selections": "",
    "image_seed": "7",
    "aspect_ratios_selection": "96*64",
    "advanced_params": '{"overwrite_step": 2, "sampler_name": "euler"}',
}
AS_PICTURE = {"Accept": "image/png"}


def painted(client: TestClient, path: str, **sent: Any) -> NDArray[np.uint8]:
    answer = client.post(path, **sent, headers=AS_PICTURE)
    assert answer.status_code == 200, answer.text
    return pixels_of(answer.content)


def by_form(client: TestClient, path: str, mask: bytes | None = None, **fields: str) -> NDArray[np.uint8]:
    files = {"input_image": SCENE} if mask is None else {"input_image": SCENE, "input_mask": mask}
    return painted(client, path, files=files, data={**COMMON, **fields})


@pytest.fixture(scope="module")
def inpainted(painting: TestClient) -> NDArray[np.uint8]:
    return by_form(painting, INPAINT_V1, CORNER)


def changed(picture: NDArray[np.uint8], where: NDArray[np.bool_]) -> float:
    """How far the picture is from the one that was sent, on average."""
    return float(np.abs(picture[where].astype(int) - scene()[where]).mean())


def test_an_inpainting_changes_the_inside_alone(inpainted: NDArray[np.uint8], studio_house: House) -> None:
    assert inpainted.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(inpainted[SOFT == 0], scene()[SOFT == 0])
    assert changed(inpainted, SOFT == 255) > 10
    assert nothing_kept(studio_house)


@pytest.mark.parametrize("path", [INPAINT_V2, PROMPT_V1])
def test_every_way_to_ask_gives_the_same_picture(painting: TestClient, inpainted: NDArray[np.uint8], path: str) -> None:
    body = {**COMMON, "input_image": text(SCENE), "input_mask": f"data:image/png;base64,{text(CORNER)}"}
    np.testing.assert_array_equal(painted(painting, path, json=body), inpainted)


def test_a_mask_of_twice_the_size_is_the_same_mask(painting: TestClient, inpainted: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(by_form(painting, PROMPT_V2, png(corner(2))), inpainted)


def test_a_mask_of_another_shape_and_inverted(painting: TestClient) -> None:
    """Its left third, stretched over the picture, is kept; all else is repainted."""
    mask = np.zeros((30, 90, 3), np.uint8)
    mask[:, :30] = 255
    inverted = COMMON["advanced_params"].replace("{", '{"invert_mask_checkbox": true, ')
    picture = by_form(painting, INPAINT_V1, png(mask), advanced_params=inverted)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(picture[:, :8], scene()[:, :8])
    assert changed(picture, np.broadcast_to(np.arange(WIDTH) > 50, (HEIGHT, WIDTH))) > 10


def test_a_white_mask_repaints_everything(painting: TestClient) -> None:
    picture = by_form(painting, INPAINT_V1, plain(16, 16))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert changed(picture, np.ones((HEIGHT, WIDTH), bool)) > 10


def test_a_black_mask_is_text_to_image(painting: TestClient) -> None:
    picture = by_form(painting, INPAINT_V1, plain(16, 16, 0), inpaint_additional_prompt="a dog")
    assert picture.shape == (64, 96, 3)
    np.testing.assert_array_equal(picture, painted(painting, TEXT_TO_IMAGE, json=COMMON))


def test_an_outpainting_keeps_the_picture_in_its_frame(painting: TestClient) -> None:
    sides = {"outpaint_selections": "left, Bottom", "outpaint_distance_left": "40", "outpaint_distance_top": "99"}
    picture = by_form(painting, INPAINT_V1, **sides)
    below = int(0.3 * HEIGHT)
    assert picture.shape == (HEIGHT + below, WIDTH + 40, 3)
    np.testing.assert_array_equal(picture[: HEIGHT - 32, 40 + 32 :], scene()[:-32, 32:])
    edges = np.pad(scene(), ((0, below), (40, 0), (0, 0)), mode="edge")
    assert np.abs(picture[:, :40].astype(int) - edges[:, :40]).mean() > 5


def test_what_would_be_repainted_can_be_looked_at(painting: TestClient) -> None:
    body = {**COMMON, "advanced_params": {"debugging_inpaint_preprocessor": True}, "require_base64": True}
    answer = painting.post(INPAINT_V2, json={**body, "input_image": text(SCENE), "input_mask": text(CORNER)})
    fill, mask, area = answer.json()
    assert {result["finish_reason"] for result in (fill, mask, area)} == {"SUCCESS"}
    assert len({result["url"] for result in (fill, mask, area)}) == 3


def test_what_an_image_prompt_becomes_can_be_looked_at(painting: TestClient) -> None:
    """The edges of a disc, at the size of the picture that would be painted; without any model."""
    finer = {"debugging_cn_preprocessor": True}
    prompts = [{"cn_img": text(SCENE), "cn_type": "PyraCanny"}, {"cn_img": text(SCENE), "cn_type": "CPDS"}]
    body = {**COMMON, "advanced_params": finer, "image_prompts": prompts}
    answer = painting.post(WITH_PROMPTS, json=body).json()
    assert [result["finish_reason"] for result in answer] == ["SUCCESS", "SUCCESS"]
    edges = painted(painting, WITH_PROMPTS, json=body)
    assert edges.shape == (64, 96, 3)
    assert 0 < (edges > 127).mean() < 0.3


@pytest.mark.parametrize(
    ("kind", "file"),
    [("ImagePrompt", "ip-adapter-plus_sdxl_vit-h.bin"), ("PyraCanny", "control-lora-canny-rank128.safetensors")],
)
def test_a_missing_file_is_named_by_the_job(painting: TestClient, kind: str, file: str) -> None:
    body = {**COMMON, "image_prompts": [{"cn_img": text(SCENE), "cn_type": kind}]}
    began = time.monotonic()
    answer = painting.post(PROMPT_V2, json=body)
    assert answer.status_code == 200
    assert answer.json() == [{"base64": None, "url": None, "seed": "", "finish_reason": "ERROR"}]
    job = query(painting, painting.get("/v1/generation/job-queue").json()["last_job_id"])
    assert (job["job_stage"], job["job_type"], job["job_result"]) == ("ERROR", "Image Prompt", None)
    assert file in job["job_status"]
    assert time.monotonic() - began < 15
    assert painting.post(PROMPT_V2, json=body, headers=AS_PICTURE).status_code == 500
