"""Pictures that the pocket model enhances, asked for over HTTP in every dialect: led by the bundled network for masks.

What is found is the disc of a drawn scene.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image

from fooocus_core.images.masks import soft_mask
from fooocus_core.masks.generate import generate_mask
from fooocus_core.masks.options import MaskOptions
from fooocus_core.plan import DetailPass
from fooocus_core.stages.detail import finished_mask
from tests.fooocusapi.served import House, pixels_of, query
from tests.fooocusapi.surfaces.classic.pictures import accepted, nothing_kept, text
from tests.fooocusapi.surfaces.classic.test_repainted_pictures import SCENE, scene
from tests.fooocusapi.surfaces.unified.asking import GENERATE
from tests.fooocusapi.surfaces.unified.test_painting import events_of

V1, V2 = "/v1/generation/image-enhance", "/v2/generation/image-enhance"
FINER: dict[str, Any] = {"overwrite_step": 2, "sampler_name": "euler"}
COMMON: dict[str, Any] = {
    "prompt": "a blue cup",
    "style_selections": "",
    "image_seed": 7,
    "enhance_uov_method": "Disabled",
}
BALL = {
    "enhance_enabled": True,
    "enhance_mask_model": "u2netp",
    "enhance_prompt": "a green ball",
    "enhance_inpaint_strength": 0.6,
}
GROWN = {**BALL, "enhance_prompt": "", "enhance_inpaint_erode_or_dilate": 4}
NOTHING_THERE = {**BALL, "enhance_inpaint_erode_or_dilate": -60}
CLASSIC = {**COMMON, "enhance_input_image": text(SCENE), "advanced_params": FINER}
UNIFIED = {**COMMON, **FINER, "enhance_input_image": text(SCENE), "enhance_checkbox": True}


def found_in(picture: NDArray[np.uint8], house: House) -> NDArray[np.uint8]:
    return generate_mask(picture, MaskOptions("u2netp"), house.engine.masks).mask


@pytest.fixture(scope="module")
def mask(studio_house: House) -> NDArray[np.uint8]:
    """What the bundled network finds."""
    found = found_in(scene(), studio_house)
    assert 0.05 < (found > 127).mean() < 0.2
    return found


@pytest.fixture(scope="module")
def ball(painting: TestClient) -> NDArray[np.uint8]:
    """The picture after the first step, by JSON."""
    (result,) = accepted(painting, V2, json={**CLASSIC, "enhance_ctrlnets": [BALL]})
    return at(painting, result["url"])


def at(client: TestClient, url: str) -> NDArray[np.uint8]:
    return pixels_of(client.get(url.removeprefix("http://127.0.0.1:8888")).content)


def parameters_at(client: TestClient, url: str) -> Any:
    with Image.open(io.BytesIO(client.get(url.removeprefix("http://127.0.0.1:8888")).content)) as picture:
        return json.loads(picture.info["parameters"])


def changed_alone(before: NDArray[np.uint8], after: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    """Asserts that what is white has changed, and that what is far from it has not."""
    outside = soft_mask(mask) == 0
    assert outside.any()
    np.testing.assert_array_equal(after[outside], before[outside])
    assert np.abs(after[mask > 127].astype(int) - before[mask > 127]).mean() > 5


def results(client: TestClient, **sent: Any) -> list[NDArray[np.uint8]]:
    """All pictures of a task."""
    record = client.post(GENERATE, json={**UNIFIED, **sent}).json()
    assert record["task_status"] == "finished"
    return [at(client, url) for url in record["result"]]


def test_an_enhancement_changes_what_was_found_alone(
    ball: NDArray[np.uint8], mask: NDArray[np.uint8], studio_house: House
) -> None:
    assert ball.shape == scene().shape
    changed_alone(scene(), ball, mask)
    assert nothing_kept(studio_house)


def test_a_form_gives_the_same_picture(painting: TestClient, ball: NDArray[np.uint8]) -> None:
    fields = {f"{name}_2": str(value) for name, value in BALL.items()}
    data = {**COMMON, **fields, "advanced_params": json.dumps(FINER)}
    answer = painting.post(V1, files={"enhance_input_image": SCENE}, data=data, headers={"Accept": "image/png"})
    np.testing.assert_array_equal(pixels_of(answer.content), ball)


def test_every_step_is_a_result_that_the_next_one_begins_with(
    painting: TestClient, ball: NDArray[np.uint8], studio_house: House
) -> None:
    """One that finds nothing is left out."""
    controllers = [BALL, NOTHING_THERE, GROWN]
    first, last = results(painting, enhance_ctrls=controllers)
    np.testing.assert_array_equal(first, ball)
    grown = finished_mask(found_in(first, studio_house), DetailPass(MaskOptions("u2netp"), erode_or_dilate=4))
    changed_alone(first, last, grown)
    (only,) = results(painting, enhance_ctrls=controllers, save_final_enhanced_image_only=True)
    np.testing.assert_array_equal(only, last)


def test_the_stream_ends_with_all_results_in_their_order(painting: TestClient, ball: NDArray[np.uint8]) -> None:
    """The larger one comes last, after the steps, whatever its number in time."""
    upscale = {"enhance_uov_method": "Upscale (Fast 2x)", "enhance_uov_processing_order": "After Last Enhancement"}
    sent = {**UNIFIED, **upscale, "enhance_ctrlnets": [BALL], "stream_output": True}
    *running, last = events_of(painting.post(GENERATE, json=sent))
    shares = [event["progress"] for event in running]
    assert shares == sorted(shares)
    assert any("mask" in event["message"] for event in running)
    first, large = (at(painting, url) for url in last["images"])
    np.testing.assert_array_equal(first, ball)
    assert large.shape[0] > 2 * ball.shape[0] - 1


def test_pictures_that_are_made_are_followed_by_their_enhancements(painting: TestClient, studio_house: House) -> None:
    sent = {
        "enhance_input_image": None,
        "image_number": 2,
        "aspect_ratios_selection": "128*96",
        "enhance_ctrls": [BALL],
    }
    made = results(painting, **sent, enhance_checkbox=False)
    assert len(made) == 2
    every = iter(results(painting, **sent))
    for picture in made:
        np.testing.assert_array_equal(next(every), picture)
        found = found_in(picture, studio_house)
        assert (found > 127).any()
        changed_alone(picture, next(every), found)
    assert not list(every)


def test_masks_are_shown_if_asked(painting: TestClient, mask: NDArray[np.uint8], ball: NDArray[np.uint8]) -> None:
    shown, enhanced = results(painting, enhance_ctrls=[BALL], debugging_enhance_masks_checkbox=True)
    np.testing.assert_array_equal(shown, np.repeat(mask[:, :, None], 3, 2))
    np.testing.assert_array_equal(enhanced, ball)
    finer = {**FINER, "debugging_enhance_masks_checkbox": True}
    answer = accepted(painting, V2, json={**CLASSIC, "advanced_params": finer, "enhance_ctrlnets": [BALL]})
    assert [result["url"].rpartition("-")[2] for result in answer] == ["0.png", "1.png"]


def test_the_settings_of_a_step_are_in_its_file(painting: TestClient) -> None:
    (result,) = accepted(painting, V2, json={**CLASSIC, "enhance_ctrlnets": [BALL]})
    told = parameters_at(painting, result["url"])
    assert (told["prompt"], told["seed"]) == ("a green ball", "7")


def test_without_anything_to_do_there_is_no_result(painting: TestClient) -> None:
    assert results(painting) == []
    assert results(painting, enhance_ctrls=[BALL], enhance_checkbox=False) == []
    assert results(painting, enhance_ctrls=[NOTHING_THERE]) == []
    assert painting.post(GENERATE, json=UNIFIED, headers={"Accept": "image/png"}).status_code == 204


def test_a_missing_file_is_named_by_the_job(painting: TestClient) -> None:
    """Masks of words need networks that do not come with the server."""
    answer = painting.post(V2, json={**CLASSIC, "enhance_ctrlnets": [{"enhance_enabled": True}]})
    assert answer.json()[0]["finish_reason"] == "ERROR"
    job = query(painting, painting.get("/v1/generation/job-queue").json()["last_job_id"])
    assert (job["job_stage"], job["job_type"]) == ("ERROR", "Image Enhancement")
    assert "sam_vit_b_01ec64.pth" in job["job_status"]
