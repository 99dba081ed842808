"""Finished pictures over HTTP: bytes, conversions, parts, and nothing from outside."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from fooocusapi.settings import Settings
from tests.fooocusapi.served import TEXT_TO_IMAGE, TODAY, House, serving

PICTURE = f"/files/{TODAY}/x-0.png"


@pytest.fixture
def house(shared: House) -> House:
    return shared


@pytest.fixture(scope="module")
def stored(shared: House, shared_client: TestClient) -> TestClient:
    """A server with three pictures, and beside them what must not be told."""
    for fields in ({}, {"save_extension": "jpg"}, {"save_name": "deep/er/x", "save_extension": "webp"}):
        shared_client.post(TEXT_TO_IMAGE, json={"save_name": "x", **fields})
    folder = shared.root / "files" / TODAY
    for secret in (shared.root / "secret.png", folder / "notes.txt", folder / ".0123.part"):
        secret.write_bytes(b"secret")
    (folder / "link.png").symlink_to(shared.root / "secret.png")
    (folder / "linked").symlink_to(shared.root)
    (folder / "folder.png").mkdir()
    return shared_client


@pytest.mark.parametrize("prefix", ["files", "outputs"])
@pytest.mark.parametrize("accept", [None, "*/*", "image/*", "image/png, image/webp", "text/html", "image/gif", ""])
def test_the_stored_bytes(stored: TestClient, house: House, prefix: str, accept: str | None) -> None:
    request = stored.build_request("GET", f"/{prefix}/{TODAY}/x-0.png")
    if accept is None:
        del request.headers["accept"]
    else:
        request.headers["accept"] = accept
    answer = stored.send(request)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == (house.root / "files" / TODAY / "x-0.png").read_bytes()


@pytest.mark.parametrize(("name", "media_type"), [("x-0.jpg", "image/jpeg"), ("deep/er/x-0.webp", "image/webp")])
def test_the_type_comes_from_the_suffix(stored: TestClient, name: str, media_type: str) -> None:
    answer = stored.get(f"/files/{TODAY}/{name}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)


@pytest.mark.parametrize("name", ["x-0.png", "x-0.jpg", "deep/er/x-0.webp"])
@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("image/png", "PNG"),
        ("image/jpeg", "JPEG"),
        ("image/jpg", "JPEG"),
        ("image/webp", "WEBP"),
        ("IMAGE/WebP", "WEBP"),
    ],
)
def test_one_kind_in_accept_converts(stored: TestClient, name: str, accept: str, kind: str) -> None:
    answer = stored.get(f"/files/{TODAY}/{name}", headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == f"image/{kind.lower()}"
    assert Image.open(io.BytesIO(answer.content)).format == kind


def test_parts_heads_and_tags(stored: TestClient) -> None:
    whole = stored.get(PICTURE)
    part = stored.get(PICTURE, headers={"range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, b"PNG")
    assert part.headers["content-range"] == f"bytes 1-3/{len(whole.content)}"
    assert stored.get(PICTURE, headers={"range": "bytes=999999-"}).status_code == 416
    head = stored.head(PICTURE)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))
    assert head.headers["etag"] == whole.headers["etag"]
    unchanged = stored.get(PICTURE, headers={"if-none-match": whole.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


def test_another_kind_has_another_tag(stored: TestClient) -> None:
    tags = {
        stored.get(PICTURE, headers={"accept": kind}).headers["etag"] for kind in ("*/*", "image/webp", "image/jpeg")
    }
    assert len(tags) == 3
    head = stored.head(PICTURE, headers={"accept": "image/webp"})
    assert (head.status_code, head.headers["content-type"]) == (200, "image/webp")


def test_a_query_behind_the_name_changes_nothing(stored: TestClient) -> None:
    assert stored.get(PICTURE, params={"cacheBust": "123"}).content == stored.get(PICTURE).content


def test_pictures_are_not_compressed_again(stored: TestClient, house: House) -> None:
    Image.new("RGB", (64, 64)).save(house.root / "files" / TODAY / "large.png", compress_level=0)
    answer = stored.get(f"/files/{TODAY}/large.png", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers
    assert int(answer.headers["content-length"]) > 1000


OUTSIDE = [
    "",
    "/",
    "/../journal.db",
    "/%2e%2e/secret.png",
    "/%2e%2e%2fsecret.png",
    "/..%2fsecret.png",
    "/..%5csecret.png",
    "/%252e%252e/secret.png",
    f"/{TODAY}/../../secret.png",
    f"/{TODAY}/%2e%2e/%2e%2e/secret.png",
    "//etc/passwd",
    "/%2fetc/passwd",
    "//secret.png",
    "/x%00.png",
    f"/{TODAY}/x-0.png%00",
    f"/{TODAY}/x-0.png%00.png",
    f"/{TODAY}",
    f"/{TODAY}/",
    f"/{TODAY}/link.png",
    f"/{TODAY}/linked/secret.png",
    f"/{TODAY}/folder.png",
    f"/{TODAY}/nothing.png",
    f"/{TODAY}/x-0",
    f"/{TODAY}/notes.txt",
    f"/{TODAY}/.0123.part",
    "/%ff%fe.png",
    "/" + "a" * 4000 + ".png",
]


@pytest.mark.parametrize("prefix", ["files", "outputs"])
@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_from_outside(stored: TestClient, prefix: str, path: str) -> None:
    answer = stored.get(f"/{prefix}{path}")
    assert answer.status_code == 404
    assert b"secret" not in answer.content


@pytest.mark.parametrize("accept", ["image/webp", "*/*"])
def test_a_file_that_is_no_picture_is_no_error(stored: TestClient, house: House, accept: str) -> None:
    (house.root / "files" / TODAY / "broken.png").write_bytes(b"no picture")
    answer = stored.get(f"/files/{TODAY}/broken.png", headers={"accept": accept})
    assert answer.status_code == (404 if accept == "image/webp" else 200)
    assert answer.headers.get("x-content-type-options", "nosniff") == "nosniff"


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[TestClient]:
    settings = Settings(apikey="secret", pictures_need_key=True)  # type: ignore[arg-type]
    with serving(House(tmp_path, settings=settings)) as client:
        client.post(TEXT_TO_IMAGE, json={"save_name": "x"}, headers={"x-api-key": "secret"})
        yield client


def test_pictures_can_be_closed(locked: TestClient) -> None:
    assert locked.get(PICTURE).status_code == 403
    assert locked.get(PICTURE, headers={"x-api-key": "secret"}).status_code == 200
