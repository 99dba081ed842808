"""Uploads: a slot, its address, what is taken there and until when, and what becomes of it in jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from fooocus_core.errors import CoreError, MissingPicture
from fooocusapi.settings import Settings
from fooocusapi.surfaces.tams import resources
from fooocusapi.surfaces.tams.resources import SHORT_TERM_MS
from tests.fooocusapi.served import HeldEngine, House, serving
from tests.fooocusapi.surfaces.tams.asking import (
    JOBS,
    blank_engine,
    body,
    diffusion,
    ended,
    fields,
    path_of,
    picture_file,
    reserved,
    uploaded,
)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, engine=blank_engine(), settings=Settings(tams_upload_bytes=100_000))


@pytest.fixture
def client(house: House) -> Iterator[TestClient]:
    with serving(house) as client:
        yield client


def put(client: TestClient, slot: Any, data: bytes = b"", **options: Any) -> Any:
    return client.put(path_of(slot["putUrl"]), content=data or picture_file(64, 64), **options)


def test_addresses_begin_as_the_client_reached_the_server(client: TestClient) -> None:
    assert reserved(client)["putUrl"].startswith("http://testserver/v1/resource/image/")
    answer = client.post("/v1/resource/image", headers={"Host": "paint.example:7866"})
    assert answer.json()["putUrl"].startswith("http://paint.example:7866/")


def test_addresses_begin_as_configured(tmp_path: Path) -> None:
    with serving(House(tmp_path, settings=Settings(base_url="https://pictures.example/"))) as client:
        assert reserved(client)["putUrl"].startswith("https://pictures.example/v1/resource/image/")


@pytest.mark.parametrize(
    ("asked", "open_for_s"),
    [({}, 3600), ({"expireSec": "7200"}, 7200), ({"expire_sec": 1}, 60), ({"expireSec": 10**9}, 86_400)],
)
def test_slots_close(client: TestClient, house: House, asked: dict[str, Any], open_for_s: int) -> None:
    slot = reserved(client, **asked)
    house.clock.advance(open_for_s * 1000 - 1)
    assert put(client, slot).status_code == 200
    house.clock.advance(1)
    late = put(client, slot)
    assert (late.status_code, late.json()["code"]) == (403, 7)


@pytest.mark.parametrize("asked", [{"expireSec": "undefined"}, {"term": 3}, {"expireSec": 2.5}, {"term": True}])
def test_values_that_make_no_slot(client: TestClient, asked: dict[str, Any]) -> None:
    answer = client.post("/v1/resource/image", json=asked)
    assert answer.status_code == 400
    assert fields(answer) == list(asked)


def test_what_is_no_picture_is_not_taken(client: TestClient) -> None:
    slot = reserved(client)
    for data in (b"text", picture_file(64, 64)[:80]):
        answer = put(client, slot, data)
        assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert put(client, slot).status_code == 200


def test_too_many_bytes_or_pixels(client: TestClient) -> None:
    slot = reserved(client)
    answer = put(client, slot, b"\x89PNG" + bytes(100_000))
    assert (answer.status_code, answer.json()["code"]) == (413, 3)
    assert put(client, slot, picture_file(8200, 8)).status_code == 400


def test_addresses_are_for_one_slot_and_one_method(client: TestClient) -> None:
    slot, other = reserved(client), reserved(client)
    swapped = {"putUrl": slot["putUrl"].replace(slot["resourceId"], other["resourceId"])}
    assert put(client, swapped).status_code == 403
    assert put(client, {"putUrl": slot["putUrl"].partition("?")[0]}).status_code == 403
    assert client.get(path_of(slot["putUrl"])).status_code == 403


def test_bytes_may_come_again_until_a_job_has_read_them(client: TestClient, house: House) -> None:
    slot = reserved(client)
    assert put(client, slot, picture_file(64, 64)).status_code == 200
    assert put(client, slot, picture_file(72, 64, value=200)).status_code == 200
    assert house.staged.read(house.kept.read)(f"resource-{slot['resourceId']}").shape == (64, 72, 3)
    again = put(client, slot)
    assert (again.status_code, again.json()["code"]) == (409, 6)


def test_jobs_may_name_what_has_not_come_yet(client: TestClient) -> None:
    answer = client.post(JOBS, json=body(start={"imageResourceId": reserved(client)["resourceId"]}))
    assert answer.json()["job"]["status"] == "CREATED"


def test_what_never_comes_is_missed_at_the_start(
    client: TestClient, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "AWAITED_S", 0.0)
    with pytest.raises(MissingPicture):
        house.staged.read(house.kept.read)(f"resource-{reserved(client)['resourceId']}")


def test_a_late_upload_that_would_get_too_large_is_refused_at_the_start(tmp_path: Path) -> None:
    engine = HeldEngine()
    house = House(tmp_path, engine=engine)
    upscaler = {"hrUpscaler": "None", "hrScale": 4, "hrSecondPassSteps": 1, "denoisingStrength": 0}
    with serving(house) as client:
        slot = reserved(client)
        later = {"type": "IMAGE_TO_UPSCALER", "imageToUpscaler": {**upscaler, "diffusion": diffusion()}}
        answer = client.post(JOBS, json=body("late", later, start={"imageResourceId": slot["resourceId"]}))
        assert answer.status_code == 200
        engine.begin()
        put(client, slot, picture_file(1024, 1024))
        with pytest.raises(CoreError, match="invalid_height_or_width"):
            house.staged.read(house.kept.read)(f"resource-{slot['resourceId']}")


def test_uploads_end_after_a_week_unless_they_are_for_good(client: TestClient, house: House) -> None:
    short, long = uploaded(client, picture_file(64, 64)), reserved(client, term=2)
    put(client, long)
    house.clock.advance(SHORT_TERM_MS)
    for resource_id, status in ((short, 400), (long["resourceId"], 200)):
        assert client.post(JOBS, json=body(resource_id, start={"imageResourceId": resource_id})).status_code == status
    reserved(client)
    left = {path.stem for path in (house.root / "resources").glob("*.bin")}
    assert left == {long["resourceId"]}


def test_what_a_job_made_may_be_sent_again(client: TestClient, house: House) -> None:
    first = client.post(JOBS, json=body("first", start={"count": 2, "seed": 7})).json()["job"]
    images = ended(client, first["id"])["successInfo"]["images"]
    for image in images:
        assert client.post(JOBS, json=body(image["id"], start={"imageResourceId": image["id"]})).status_code == 200
    read = house.staged.read(house.kept.read)
    assert [read(f"resource-{image['id']}")[0, 0, 0] for image in images] == [7, 8]


def test_masks_are_read_as_grey_and_transparency_as_white(client: TestClient, house: House, tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    Image.fromarray(np.full((64, 64, 4), (255, 0, 0, 128), np.uint8)).save(path)
    resource_id = uploaded(client, path.read_bytes())
    read = house.staged.read(house.kept.read)
    assert read(f"resource-{resource_id}")[0, 0].tolist() == [255, 127, 127]
    assert read(f"mask-{resource_id}").shape == (64, 64)
    assert read(f"mask-{resource_id}")[0, 0] == round(0.299 * 255 + 0.701 * 127)


def test_slots_and_their_addresses_outlive_the_server(tmp_path: Path) -> None:
    with serving(House(tmp_path)) as client:
        slot = reserved(client)
    with serving(House(tmp_path)) as client:
        assert put(client, slot).status_code == 200


def test_results_expire_and_are_signed_anew(client: TestClient, house: House) -> None:
    job = client.post(JOBS, json=body()).json()["job"]
    (image,) = ended(client, job["id"])["successInfo"]["images"]
    assert client.get(path_of(image["url"])).content.startswith(b"\x89PNG")
    house.clock.advance(3600 * 1000)
    late = client.get(path_of(image["url"]))
    assert (late.status_code, late.json()["code"]) == (403, 7)
    (again,) = ended(client, job["id"])["successInfo"]["images"]
    assert again["id"] == image["id"]
    assert client.get(path_of(again["url"])).status_code == 200
