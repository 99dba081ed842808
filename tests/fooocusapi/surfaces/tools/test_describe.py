"""Pictures in words over HTTP: where their type may stand, what is refused, and that nobody else waits."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image
from pydantic import SecretStr

from fooocus_core.describe.describer import CAPTION_FILE, Content, Describer
from fooocus_core.errors import UnreadableModel
from fooocus_core.library import Library
from fooocus_core.model_files.catalogue import Catalogue
from fooocusapi.settings import Settings
from tests.fooocus_core.describe.files import write_tagger
from tests.fooocusapi.fakes import PATIENCE_S
from tests.fooocusapi.served import House, in_background, serving

PATH = "/v1/tools/describe-image"
RED = np.full((12, 24, 3), (255, 0, 0), np.uint8)


def png_of(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


FILE = png_of(RED)
TEXT = base64.b64encode(FILE).decode()


class ShownDescriber:
    """Tells what it is asked; waits, where a test says so, until it may go on."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.began = threading.Event()
        self.unloaded = 0
        self.error: Exception | None = None

    def describe(self, picture: NDArray[np.uint8], contents: Collection[Content]) -> str:
        self.began.set()
        assert self.may_go_on.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return f"{'+'.join(sorted(contents))} {picture.shape}"

    def unload(self) -> None:
        self.unloaded += 1


@pytest.fixture
def describer(house: House) -> ShownDescriber:
    house.describer = ShownDescriber()
    return house.describer


@pytest.fixture
def client(house: House, describer: ShownDescriber) -> Iterator[TestClient]:
    assert house.describer is describer
    with serving(house) as client:
        yield client


def answer(client: TestClient, status: int = 200, **call: Any) -> Any:
    answered = client.post(PATH, **call)
    assert answered.status_code == status, answered.text
    return answered.json()


def form(**fields: Any) -> dict[str, Any]:
    return {"files": {"image": ("a.png", FILE, "image/png")}, "data": fields}


@pytest.mark.parametrize(
    ("call", "contents"),
    [
        (form(), "photo"),
        ({**form(), "params": {"image_type": "Photo"}}, "photo"),
        ({**form(), "params": {"image_type": "Anime"}}, "anime"),
        ({**form(), "params": {"type": "Anime"}}, "anime"),
        ({**form(), "params": {"type": "Anime", "image_type": "Photo"}}, "photo"),
        ({**form(), "params": {"image_type": " anime "}}, "anime"),
        ({**form(), "params": {"image_type": ""}}, "photo"),
        ({**form(), "params": {"image_type": ["Photo", "Anime"]}}, "anime+photo"),
        ({**form(image_type="Anime"), "params": {"image_type": "Photo"}}, "photo"),
        (form(image_type="Anime"), "anime"),
        (form(type="Anime"), "anime"),
        (form(image_type="Photo,Anime"), "anime+photo"),
        (form(image_type=["Photo", "Anime"]), "anime+photo"),
        ({"data": {"image": TEXT, "type": "anime"}}, "anime"),
        ({"json": {"image": TEXT}}, "photo"),
        ({"json": {"image": TEXT, "image_type": "Anime"}}, "anime"),
        ({"json": {"image": TEXT, "type": "ANIME"}}, "anime"),
        ({"json": {"image": TEXT, "image_type": None}}, "photo"),
        ({"json": {"image": TEXT, "image_type": ["Anime"]}}, "anime"),
        ({"json": {"image": TEXT, "image_type": ["Anime", "Photo", "anime"]}}, "anime+photo"),
        ({"json": {"image": f"data:image/png;base64,{TEXT}"}, "params": {"type": "Anime"}}, "anime"),
    ],
)
def test_both_dialects_spellings(client: TestClient, call: dict[str, Any], contents: str) -> None:
    assert answer(client, **call) == {"describe": f"{contents} (12, 24, 3)"}


def test_an_address_of_our_own(client: TestClient) -> None:
    (made,) = client.post("/v1/generation/text-to-image", json={}).json()
    assert answer(client, json={"image": made["url"]})["describe"].startswith("photo")


@pytest.mark.parametrize(
    ("call", "field", "word"),
    [
        ({"json": {}}, ["body", "image"], "required"),
        ({"json": {"image": None}}, ["body", "image"], "required"),
        ({"json": {"image": "none"}}, ["body", "image"], "required"),
        ({"data": {"image_type": "Photo"}}, ["body", "image"], "required"),
        ({"files": {"image": ("empty.png", b"", "image/png")}}, ["body", "image"], "required"),
        ({"json": {"image": "not a picture!"}}, ["body", "image"], "base64"),
        ({"json": {"image": 7}}, ["body", "image"], "required"),
        ({"json": {"image": {"a": 1}}}, ["body", "image"], "required"),
        ({"json": {"image": base64.b64encode(b"hello").decode()}}, ["body", "image"], "no picture"),
        ({"json": {"image": "ftp://here/a.png"}}, ["body", "image"], "http"),
        ({"json": {"image": "http://nowhere.test/a.png"}}, ["body", "image"], "does not answer"),
        ({"files": {"image": ("a.png", FILE[:60], "image/png")}}, ["body", "image"], "damaged"),
        ({**form(), "params": {"image_type": "Painting"}}, ["query", "image_type", 0], "'Photo' or 'Anime'"),
        ({**form(), "params": {"type": "Painting"}}, ["query", "image_type", 0], "'Photo' or 'Anime'"),
        (form(image_type="Painting"), ["body", "image_type", 0], "'Photo' or 'Anime'"),
        ({"json": {"image": TEXT, "image_type": ["Photo", 3]}}, ["body", "image_type", 1], "'Photo' or 'Anime'"),
        ({"json": {"image": TEXT, "image_type": {"a": 1}}}, ["body", "image_type", 0], "'Photo' or 'Anime'"),
        ({"json": {"image": TEXT, "image_type": ["Photo"] * 17}}, ["body", "image_type"], "16"),
        ({"json": {"image": TEXT, "image_type": "Photo," * 200}}, ["body", "image_type", 0], "'Photo' or 'Anime'"),
        ({"content": b""}, ["body"], "required"),
        ({"content": b"{"}, ["body", 1], "JSON"),
    ],
)
def test_what_cannot_be_taken_is_named(client: TestClient, call: dict[str, Any], field: list[Any], word: str) -> None:
    fault = answer(client, 422, **call)["detail"][0]
    assert fault["loc"] == field
    assert word in fault["msg"]


def test_a_missing_file_is_named_with_its_folder_and_address(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house.describer = Describer(Library.below(tmp_path / "models"), Catalogue.of())
    with serving(house) as client:
        detail = answer(client, 503, **form())["detail"]
    assert detail.startswith(f"clip_vision: no file named '{CAPTION_FILE}', needed for describing photographs; ")
    assert f"https://huggingface.co/lllyasviel/misc/resolve/main/{CAPTION_FILE}" in detail
    assert str(tmp_path) not in detail
    (record,) = [record for record in caplog.records if CAPTION_FILE in record.getMessage()]
    assert (record.levelname, record.exc_info) == ("ERROR", None), "one line, and not where it was asked for"


def test_a_drawing_in_tags(house: House, tmp_path: Path) -> None:
    write_tagger(tmp_path / "models" / "clip_vision")
    house.describer = Describer(Library.below(tmp_path / "models"), Catalogue.of())
    with serving(house) as client:
        tags = answer(client, **form(), params={"image_type": "Anime"})
    assert tags == {"describe": r"hero \(story\), bluish, red \(colour\), greenish"}


def test_a_broken_file_is_named(client: TestClient, describer: ShownDescriber) -> None:
    describer.error = UnreadableModel(CAPTION_FILE, "cut")
    assert answer(client, 500, **form()) == {"detail": f"{CAPTION_FILE}: cut"}
    describer.error = None
    answer(client, **form())


def test_others_are_answered_while_a_picture_is_described(client: TestClient, describer: ShownDescriber) -> None:
    describer.may_go_on.clear()
    described = in_background(lambda: answer(client, **form()))
    assert describer.began.wait(PATIENCE_S)
    assert client.get("/ping").json() == "pong"
    assert client.post("/v1/generation/text-to-image", json={}).status_code == 200
    describer.may_go_on.set()
    assert described()["describe"].startswith("photo")


def test_the_memory_of_the_networks_can_be_had_back(client: TestClient, describer: ShownDescriber) -> None:
    client.get("/v1/engines/clean_vram")
    assert describer.unloaded == 1


def test_the_key_is_asked_for(house: House) -> None:
    house.settings = Settings(apikey=SecretStr("secret"))
    with serving(house) as client:
        answer(client, 403, **form())


def test_the_endpoint_keeps_its_names(client: TestClient) -> None:
    published = client.get("/openapi.json").json()
    operation = published["paths"][PATH]["post"]
    assert operation["operationId"] == "describe_image_v1_tools_describe_image_post"
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    (parameter,) = operation["parameters"]
    assert (parameter["name"], parameter["in"], parameter["schema"]["default"]) == ("image_type", "query", "Photo")
    schemas = published["components"]["schemas"]
    assert schemas["DescribeImageType"]["enum"] == ["Photo", "Anime"]
    assert list(schemas["DescribeImageResponse"]["properties"]) == ["describe"]
    assert schemas["DescribeImageForm"]["required"] == ["image"]
