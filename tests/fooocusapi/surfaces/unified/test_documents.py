"""What the guides of this dialect show, sent to a live server: nothing replaced but the host and the pictures.

Behind it is a thin copy of SDXL with thin copies of the files for image prompts and repainting, at one step a picture.
Finding what is named needs networks that cannot be made thin: where a face is, is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from fooocus_core.images import methods
from fooocus_core.images.masks import soft_mask
from fooocus_core.masks.boxes import Detections
from fooocus_core.presets.preset import load_preset
from fooocus_core.stages import repainting
from tests.fooocus_core.masks.test_generate import FakeDetector, FakeModels
from tests.fooocus_core.models.guide_files import write_guide_files, write_thin_base
from tests.fooocus_core.stages.rendering import Studio
from tests.fooocusapi.served import FakeLibrary, House, pixels_of
from tests.fooocusapi.surfaces.unified.asking import GENERATE, png
from tests.fooocusapi.test_socket import listening

HEIGHT, WIDTH = 96, 128
SIDE = 128
"""What variations and repaintings are brought to in place of 1024, at which even a thin SDXL takes minutes."""
PATIENCE_S = 60


def controller(prompt: str) -> dict[str, Any]:
    """A controller with all its fields, as the guides write them."""
    return {
        "enhance_enabled": True,
        "enhance_mask_dino_prompt": prompt,
        "enhance_prompt": "",
        "enhance_negative_prompt": "",
        "enhance_mask_model": "sam",
        "enhance_mask_cloth_category": "full",
        "enhance_mask_sam_model": "vit_b",
        "enhance_mask_text_threshold": 0.25,
        "enhance_mask_box_threshold": 0.3,
        "enhance_mask_sam_max_detections": 0,
        "enhance_inpaint_disable_initial_latent": False,
        "enhance_inpaint_engine": "v2.6",
        "enhance_inpaint_strength": 1.0,
        "enhance_inpaint_respective_field": 0.618,
        "enhance_inpaint_erode_or_dilate": 0.0,
        "enhance_mask_invert": False,
    }


ENHANCE = {
    "enhance_checkbox": True,
    "enhance_uov_method": "Vary (Strong)",
    "enhance_uov_processing_order": "Before First Enhancement",
    "enhance_uov_prompt_type": "Original Prompts",
    "enhance_ctrls": [controller("face"), controller("mouse"), controller("eye")],
}
INPAINT = {"prompt": "", "inpaint_additional_prompt": "a red ball"}
OUTPAINT = {"outpaint_selections": ["Left", "Bottom"]}
VARY = {"uov_method": "Vary (Strong)", "mixing_image_prompt_and_vary_upscale": True}
REPAINT = {"mixing_image_prompt_and_inpaint": True}
STEERED = {"cn_stop": 0.5, "cn_weight": 0.6, "cn_type": "ImagePrompt"}


class Told(FakeDetector):
    """Knows where things are, in shares of the picture: left, top, right, bottom."""

    def __init__(self) -> None:
        super().__init__(np.zeros((0, 4), np.float32))
        self.places = {"face": (0.3, 0.2, 0.6, 0.7), "eye": (0.35, 0.3, 0.45, 0.4)}

    def detect(self, picture: NDArray[np.uint8], prompt: str, **thresholds: float) -> Detections:
        boxes = self.boxes_in(picture, prompt)
        return Detections(boxes, (prompt,) * len(boxes), np.ones(len(boxes), np.float32))

    def boxes_in(self, picture: NDArray[np.uint8], prompt: str) -> NDArray[np.float32]:
        height_px, width_px = picture.shape[:2]
        places = [self.places[prompt]] if prompt in self.places else []
        sides = np.array([width_px, height_px, width_px, height_px], np.float32)
        return np.array(places, np.float32).reshape(-1, 4) * sides


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, told: Told) -> Iterator[httpx.Client]:
    models = tmp_path_factory.mktemp("models")
    write_guide_files(models)
    checkpoint = write_thin_base(models)
    preset = replace(load_preset("default"), overwrite_steps=1, styles=())
    house = House(tmp_path_factory.mktemp("documents"), library=FakeLibrary([checkpoint], []), preset=preset)
    house.engine = Studio(models, checkpoint).engine
    house.engine.pictures = lambda name: house.kept.read(name)
    house.engine.masks = FakeModels(np.zeros((0, 4), np.float32))
    house.engine.masks.found = told
    with pytest.MonkeyPatch.context() as patch, listening(house) as server:
        patch.setattr(methods, "SMALLEST_CLASS", SIDE)
        patch.setattr(repainting, "DIFFUSION_CLASS", SIDE)
        server.client.timeout = httpx.Timeout(PATIENCE_S)
        yield server.client


@pytest.fixture(scope="module")
def address(client: httpx.Client) -> str:
    """Where the server itself has a picture, as the guides name it: that of a task before."""
    (url,) = done(client, {"prompt": "a portrait", "aspect_ratios_selection": f"{WIDTH}*{HEIGHT}"})["result"]
    return str(url)


def done(client: httpx.Client, body: dict[str, Any]) -> Any:
    answer = client.post(GENERATE, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["task_status"] == "finished"
    return answer.json()


def pictures(client: httpx.Client, body: dict[str, Any]) -> list[NDArray[np.uint8]]:
    return [at(client, url) for url in done(client, body)["result"]]


def at(client: httpx.Client, url: str) -> NDArray[np.uint8]:
    return pixels_of(client.get(httpx.URL(url).path).content)


MASK = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
MASK[56:88, 88:120] = 255
MASK_TEXT = f"data:image/png;base64,{png(MASK)}"


def test_an_enhancement_gives_a_result_for_each_step_that_found_something(
    client: httpx.Client, address: str, told: Told
) -> None:
    """Three on a portrait, as the guide says: there is no mouse in it."""
    varied, face, eye = pictures(client, {"enhance_input_image": address, **ENHANCE})
    assert varied.shape == face.shape == eye.shape
    for before, after, place in ((varied, face, "face"), (face, eye, "eye")):
        mask = np.zeros(varied.shape[:2], np.uint8)
        left, top, right, bottom = told.boxes_in(varied, place).astype(int)[0]
        mask[top:bottom, left:right] = 255
        outside = soft_mask(mask) == 0
        np.testing.assert_array_equal(after[outside], before[outside])
        assert not np.array_equal(after, before)


def test_all_that_is_there_is_enhanced_and_the_last_alone_is_kept_if_asked(
    client: httpx.Client, address: str, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(told.places, "mouse", (0.4, 0.5, 0.5, 0.6))
    sent = {"enhance_input_image": address, **ENHANCE}
    every = pictures(client, sent)
    assert len(every) == 4
    (last,) = pictures(client, {**sent, "save_final_enhanced_image_only": True})
    np.testing.assert_array_equal(last, every[-1])


def test_an_inpainting_with_a_mask(client: httpx.Client, address: str) -> None:
    sent = {**INPAINT, "inpaint_input_image": address, "inpaint_mask_image_upload": MASK_TEXT}
    (picture,) = pictures(client, sent)
    before, outside = at(client, address), soft_mask(MASK[:, :, 0]) == 0
    np.testing.assert_array_equal(picture[outside], before[outside])
    assert not np.array_equal(picture, before)


def test_an_outpainting(client: httpx.Client, address: str) -> None:
    (picture,) = pictures(client, {**OUTPAINT, "inpaint_input_image": address})
    assert picture.shape == (HEIGHT + int(0.3 * HEIGHT), WIDTH + int(0.3 * WIDTH), 3)


@pytest.mark.parametrize(
    ("names", "mixed"),
    [
        (["uov_input_image"], VARY),
        (["inpaint_input_image"], REPAINT),
        (["uov_input_image", "inpaint_input_image"], {**VARY, **REPAINT}),
    ],
    ids=["vary", "inpaint", "all of them"],
)
def test_image_prompts_beside_other_pictures(
    client: httpx.Client, address: str, names: list[str], mixed: dict[str, Any]
) -> None:
    sent = {**mixed, **dict.fromkeys(names, address)}
    if "inpaint_input_image" in names:
        sent["inpaint_mask_image_upload"] = MASK_TEXT
    (steered,) = pictures(client, {**sent, "controlnet_image": [{"cn_img": address, **STEERED}]})
    (plain,) = pictures(client, sent if len(names) == 1 else {**sent, "uov_input_image": None})
    assert steered.shape == plain.shape
    assert not np.array_equal(steered, plain)
