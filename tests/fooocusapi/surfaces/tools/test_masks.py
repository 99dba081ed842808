"""Masks over HTTP: what is understood, what is refused, and that nobody else waits."""

from __future__ import annotations

import base64
import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image
from pydantic import SecretStr

from fooocus_core.errors import InvalidRequest, OutOfMemory, UnreadableModel
from fooocus_core.library import Library
from fooocus_core.masks import options as core
from fooocus_core.masks.maker import MaskMaker
from fooocus_core.masks.models import MaskModels
from fooocus_core.masks.options import MaskOptions
from fooocus_core.model_files.catalogue import Catalogue
from fooocusapi.settings import Settings
from fooocusapi.surfaces.fields import ClothCategory, MaskModel, SamModel
from tests.fooocus_core.masks.photographs import coffee, overlap
from tests.fooocusapi.fakes import PATIENCE_S
from tests.fooocusapi.served import TEXT_TO_IMAGE, House, in_background, serving, wait_until

PATH = "/v1/tools/generate_mask"


def text_of(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


PICTURE = text_of(np.full((20, 30, 3), 90, np.uint8))


class ShownMasks:
    """Keeps what it is asked and answers ``mask``; waits, where a test says so, until it may go on."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[int, ...], MaskOptions]] = []
        self.mask = np.eye(20, 30, dtype=np.uint8) * 255
        self.error: Exception | None = None
        self.unloaded = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def make(self, picture: NDArray[np.uint8], options: MaskOptions) -> NDArray[np.uint8]:
        self.asked.append((picture.shape, options))
        assert self.may_go_on.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return self.mask

    def unload(self) -> None:
        self.unloaded += 1


@pytest.fixture(scope="module")
def shown() -> ShownMasks:
    return ShownMasks()


@pytest.fixture(scope="module")
def client(shown: ShownMasks, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(House(tmp_path_factory.mktemp("house"), masks=shown)) as client:
        yield client


@pytest.fixture(autouse=True)
def _nothing_asked(shown: ShownMasks) -> None:
    shown.__init__()  # type: ignore[misc]


def mask_of(text: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text, validate=True))))


def refused(client: TestClient, **fields: Any) -> Any:
    answer = client.post(PATH, json={"image": PICTURE, **fields})
    assert answer.status_code == 422, answer.text
    return answer.json()["detail"][0]


def test_the_enums_are_those_of_the_core() -> None:
    assert tuple(MaskModel) == core.MASK_MODELS
    assert tuple(ClothCategory) == core.CLOTH_CATEGORIES
    assert tuple(SamModel) == core.SAM_MODELS


def test_the_answer_is_a_json_text_of_a_png_of_the_picture_s_size(client: TestClient, shown: ShownMasks) -> None:
    answer = client.post(PATH, json={"image": PICTURE})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.text.startswith('"iVBOR')
    assert np.array_equal(mask_of(answer.json()), shown.mask)
    assert shown.asked == [((20, 30, 3), MaskOptions())]


def test_a_mask_of_three_channels_stays_one(client: TestClient, shown: ShownMasks) -> None:
    shown.mask = np.zeros((20, 30, 3), np.uint8)
    assert mask_of(client.post(PATH, json={"image": PICTURE}).json()).shape == (20, 30, 3)


def test_every_field_reaches_the_core(client: TestClient, shown: ShownMasks) -> None:
    fields = {
        "mask_model": "sam",
        "cloth_category": "upper",
        "dino_prompt_text": "Face . Eye",
        "sam_model": "vit_l",
        "box_threshold": 0.5,
        "text_threshold": 0.1,
        "sam_max_detections": 3,
        "dino_erode_or_dilate": -2.5,
        "dino_debug": True,
    }
    assert client.post(PATH, json={"image": PICTURE, **fields}).status_code == 200
    assert shown.asked[0][1] == MaskOptions("sam", "upper", "Face . Eye", "vit_l", 0.5, 0.1, 3, -2.5, True)


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"mask_model": " U2NetP ", "cloth_category": "LOWER"}, MaskOptions("u2netp", "lower")),
        ({"mask_model": None, "box_threshold": "", "sam_max_detections": "2"}, MaskOptions(max_detections=2)),
        ({"box_threshold": "0.75", "dino_debug": "True"}, MaskOptions(box_threshold=0.75, dino_debug=True)),
        ({"dino_prompt_text": "", "whatever": {"deep": []}}, MaskOptions()),
    ],
)
def test_what_clients_send_is_understood(
    client: TestClient, shown: ShownMasks, fields: Any, options: MaskOptions
) -> None:
    assert client.post(PATH, json={"image": f"data:image/png;base64,{PICTURE}", **fields}).status_code == 200
    assert shown.asked[0][1] == options


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({"mask_model": "bria-rmbg"}, "mask_model", "'u2net', 'u2netp', 'u2net_human_seg', 'u2net_cloth_seg'"),
        ({"mask_model": 7}, "mask_model", "isnet-anime"),
        ({"cloth_category": "hat"}, "cloth_category", "'full', 'upper' or 'lower'"),
        ({"sam_model": "vit_x"}, "sam_model", "'vit_b', 'vit_l' or 'vit_h'"),
        ({"box_threshold": 1.01}, "box_threshold", "less than or equal to 1"),
        ({"text_threshold": -0.01}, "text_threshold", "greater than or equal to 0"),
        ({"sam_max_detections": 11}, "sam_max_detections", "less than or equal to 10"),
        ({"sam_max_detections": 1.5}, "sam_max_detections", "integer"),
        ({"dino_erode_or_dilate": 65}, "dino_erode_or_dilate", "less than or equal to 64"),
        ({"dino_debug": "perhaps"}, "dino_debug", "boolean"),
        ({"mask_model": "sam"}, "dino_prompt_text", "what to look for"),
        ({"mask_model": "sam", "dino_prompt_text": " . "}, "dino_prompt_text", "what to look for"),
        ({"dino_prompt_text": "a" * 2001}, "dino_prompt_text", "at most 2000"),
    ],
)
def test_a_wrong_field_is_named_with_what_it_may_be(
    client: TestClient, shown: ShownMasks, fields: Any, field: str, told: str
) -> None:
    detail = refused(client, **fields)
    assert detail["loc"] == ["body", field]
    assert told in detail["msg"]
    assert not shown.asked


@pytest.mark.parametrize("image", ["", "None", None, "bm90IGEgcGljdHVyZQ==", "%%%", "http://127.0.0.1:1/a.png", 5, []])
def test_a_picture_that_is_none_is_named(client: TestClient, shown: ShownMasks, image: Any) -> None:
    answer = client.post(PATH, json={"image": image})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "image"]
    assert not shown.asked


def test_a_body_without_a_picture_or_without_sense(client: TestClient) -> None:
    assert client.post(PATH, json={}).json()["detail"][0]["loc"] == ["body", "image"]
    assert client.post(PATH, content=b"{").status_code == 422
    assert client.post(PATH).status_code == 422
    assert client.get(PATH).status_code == 405


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (UnreadableModel("u2net.onnx", "corrupt, or not an ONNX file"), 500, "u2net.onnx: corrupt"),
        (OutOfMemory("the device has no room"), 500, "no room"),
        (InvalidRequest("image", "too narrow"), 422, "too narrow"),
        (RuntimeError("deep inside"), 500, "Internal Server Error"),
    ],
)
def test_what_goes_wrong_is_told(
    client: TestClient, shown: ShownMasks, error: Exception, status: int, told: str
) -> None:
    shown.error = error
    answer = client.post(PATH, json={"image": PICTURE})
    assert (answer.status_code, told in answer.text) == (status, True)
    shown.error = None
    assert client.post(PATH, json={"image": PICTURE}).status_code == 200


def test_jobs_and_questions_go_on_while_masks_are_made(client: TestClient, shown: ShownMasks) -> None:
    """More than may wait with a picture in memory; the others wait without one."""
    shown.may_go_on.clear()
    waiting = [in_background(lambda: client.post(PATH, json={"image": PICTURE})) for _ in range(6)]
    wait_until(lambda: len(shown.asked) == 4)
    assert client.get("/ping").json() == "pong"
    assert client.post(TEXT_TO_IMAGE, json={"prompt": "an apple"}).json()[0]["finish_reason"] == "SUCCESS"
    assert len(shown.asked) == 4
    shown.may_go_on.set()
    assert [answer().status_code for answer in waiting] == [200] * 6


def test_clean_vram_forgets_the_networks(client: TestClient, shown: ShownMasks) -> None:
    assert client.post("/v1/engines/clean_vram").json() == {"message": "ok"}
    assert shown.unloaded == 1


def test_the_key_is_asked_for(tmp_path: Path) -> None:
    with serving(House(tmp_path, settings=Settings(apikey=SecretStr("secret")))) as closed:
        assert closed.post(PATH, json={"image": PICTURE}).status_code == 403


# --------------------------------------------------------------------------------------------- the networks themselves


@pytest.fixture
def real(tmp_path: Path) -> Any:
    models = MaskModels(Library.below(tmp_path / "models"), Catalogue.of(), lambda: pytest.fail("no device is needed"))
    with serving(House(tmp_path, masks=MaskMaker(models))) as client:
        yield client


def test_a_default_install_masks_a_photograph(real: TestClient) -> None:
    """A cup on its saucer, beside an outline by hand: intersection over union above 0.97."""
    picture, outline = coffee()
    answer = real.post(PATH, json={"image": text_of(picture), "mask_model": "u2netp"})
    assert answer.status_code == 200
    assert overlap(mask_of(answer.json()) > 127, outline) > 0.97


@pytest.mark.parametrize(
    ("fields", "file"),
    [
        ({}, "isnet-general-use.onnx"),
        ({"mask_model": "u2net_cloth_seg"}, "u2net_cloth_seg.onnx"),
        ({"mask_model": "sam", "dino_prompt_text": "cup", "sam_model": "vit_h"}, "sam_vit_h_4b8939.pth"),
        ({"mask_model": "sam", "dino_prompt_text": "cup", "dino_debug": True}, "groundingdino_swint_ogc.pth"),
    ],
)
def test_a_file_that_is_missing_is_named_with_its_address(real: TestClient, fields: Any, file: str) -> None:
    """And none is fetched: the call answers at once."""
    answer = real.post(PATH, json={"image": PICTURE, **fields})
    assert answer.status_code == 503
    assert f"no file named '{file}'" in answer.json()["detail"]
    assert "published at https://" in answer.json()["detail"]
    assert f"main.py download {file}" in answer.json()["detail"]
