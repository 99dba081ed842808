"""What clients send for a picture: files, texts, addresses, placeholders, and what is answered to the rest."""

from __future__ import annotations

import asyncio
import base64
import io
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image
from starlette.datastructures import FormData, UploadFile

from fooocusapi.errors import RefusedField, install_error_handlers
from fooocusapi.fetch import FetchFailed
from fooocusapi.images.decode import ImageLimits
from fooocusapi.images.inputs import InputImages, SentImage, SentPicture, holds_image, input_images
from fooocusapi.images.outputs import OutputStore
from fooocusapi.settings import Settings

LOC = ("body", "input_image")
LIMITS = ImageLimits(max_bytes=100_000, max_pixels=100_000)
PIXELS = np.random.default_rng(7).integers(0, 256, (12, 16, 3), np.uint8)


def file_of(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, kind)
    return target.getvalue()


PNG = file_of(PIXELS)
TEXT = base64.b64encode(PNG).decode()


async def no_network(url: str) -> bytes:
    raise AssertionError(f"{url} was fetched")


def store(tmp_path: Path, base_url: str = "http://127.0.0.1:8888") -> OutputStore:
    return OutputStore(tmp_path, base_url, now=lambda: datetime(2025, 2, 23))


def a_finished_picture(tmp_path: Path, name: str = "files/2025-02-23/some-id-0.png") -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PNG)


def read(
    value: SentImage,
    tmp_path: Path = Path("nowhere"),
    fetch: Callable[[str], Any] = no_network,
    base_url: str = "http://127.0.0.1:8888",
) -> NDArray[np.uint8] | None:
    return asyncio.run(InputImages([store(tmp_path, base_url)], fetch, LIMITS).read(LOC, value))


def refusal(value: SentImage, fetch: Callable[[str], Any] = no_network) -> str:
    with pytest.raises(RefusedField) as caught:
        read(value, fetch=fetch)
    assert caught.value.loc == LOC
    return caught.value.reason


def upload(data: bytes, name: str = "input_image") -> UploadFile:
    return UploadFile(io.BytesIO(data), size=len(data), filename=name)


# ------------------------------------------------------------------------------------------------------------- no image


@pytest.mark.parametrize(
    "value", [None, "", "   ", "\n", "None", "none", " NONE ", "null", "string", "String", upload(b"")], ids=repr
)
def test_no_picture_is_meant(value: SentImage) -> None:
    assert not holds_image(value)
    assert read(value) is None


@pytest.mark.parametrize("value", [TEXT, f"{' ' * 99}{TEXT}", "nonetheless", "stringy", "x", upload(b"x")], ids=repr)
def test_a_picture_is_meant(value: SentImage) -> None:
    assert holds_image(value)


@pytest.mark.parametrize("value", [5, True, [], {}, ["x"], b"x"])
def test_other_values_are_no_pictures(value: object) -> None:
    assert not holds_image(value)


@pytest.mark.parametrize("value", [None, "", "None", upload(b"")])
def test_a_field_that_must_have_a_picture(value: SentImage) -> None:
    async def required() -> NDArray[np.uint8]:
        return await InputImages([store(Path("nowhere"))], no_network, LIMITS).read_required(LOC, value)

    with pytest.raises(RefusedField, match=r"body\.input_image: a picture is required"):
        asyncio.run(required())


def test_a_field_that_has_the_picture_it_must_have() -> None:
    reader = InputImages([store(Path("nowhere"))], no_network, LIMITS)
    assert np.array_equal(asyncio.run(reader.read_required(LOC, TEXT)), PIXELS)


# ------------------------------------------------------------------------------------------------------------ several


def read_several(sent: list[SentPicture], fetch: Callable[[str], Any] = no_network) -> dict[Any, NDArray[np.uint8]]:
    return asyncio.run(InputImages([store(Path("nowhere"))], fetch, LIMITS).read_all(sent))


def test_several_lie_by_their_places() -> None:
    sent = [SentPicture(("a",), TEXT, is_required=True), SentPicture(("b",), None), SentPicture(("c", 1), upload(PNG))]
    assert list(read_several(sent)) == [("a",), ("c", 1)]


def test_the_first_in_order_that_cannot_be_taken_is_named() -> None:
    sent = [SentPicture(("a",), TEXT), SentPicture(("b",), "!"), SentPicture(("c",), "", is_required=True)]
    with pytest.raises(RefusedField, match="b: is neither"):
        read_several(sent)
    with pytest.raises(RefusedField, match="c: a picture is required"):
        read_several([sent[0], sent[2]])


def test_addresses_are_fetched_side_by_side() -> None:
    both = asyncio.Barrier(2)

    async def fetch(url: str) -> bytes:
        await asyncio.wait_for(both.wait(), 5)
        return PNG

    sent = [SentPicture((name,), f"http://pictures.test/{name}.png") for name in ("a", "b")]
    assert len(read_several(sent, fetch)) == 2


# -------------------------------------------------------------------------------------------------------- all its forms


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"data:image/png;base64,{TEXT}",
        f"DATA:IMAGE/PNG;BASE64,{TEXT}",
        f"data:image/jpeg;base64,{TEXT}",
        f"data:image/png;charset=utf-8;base64,{TEXT}",
        f"data:;base64,{TEXT}",
        f"data:image/png,{TEXT}",
        f"data:image/png;base64, {TEXT}",
        f"\n  {TEXT}\n",
        "\r\n".join(textwrap.wrap(TEXT, 76)),
        "data:image/png;base64," + "\n".join(textwrap.wrap(TEXT, 64)),
        TEXT.rstrip("="),
        TEXT + "=",
        base64.urlsafe_b64encode(PNG).decode(),
        base64.urlsafe_b64encode(PNG).decode().rstrip("="),
    ],
)
def test_base64_in_all_its_forms(text: str) -> None:
    assert np.array_equal(read(text), PIXELS)


def test_padding_of_every_length() -> None:
    for extra in range(3):
        data = PNG + b"\0" * extra
        assert np.array_equal(read(base64.b64encode(data).decode()), PIXELS)
        assert np.array_equal(read(base64.b64encode(data).decode().rstrip("=")), PIXELS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_bytes_that_a_form_took_for_text(kind: str) -> None:
    pixels = read(file_of(PIXELS, kind).decode("latin-1"))
    assert pixels is not None
    assert pixels.shape == PIXELS.shape


@pytest.mark.parametrize("name", ["input_image", "a.png", "../../etc/passwd", "x.txt", "", None])
def test_a_file_whatever_its_name(name: str | None) -> None:
    assert np.array_equal(read(UploadFile(io.BytesIO(PNG), size=len(PNG), filename=name)), PIXELS)


def test_a_file_of_unknown_length() -> None:
    assert np.array_equal(read(UploadFile(io.BytesIO(PNG), filename="x")), PIXELS)


def test_an_address() -> None:
    asked: list[str] = []

    async def fetch(url: str) -> bytes:
        asked.append(url)
        return PNG

    assert np.array_equal(read(" HTTPS://pictures.test/a.png ", fetch=fetch), PIXELS)
    assert asked == ["HTTPS://pictures.test/a.png"]


# ------------------------------------------------------------------------------------------- this server's own pictures


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8888/files/2025-02-23/some-id-0.png",
        "http://localhost:8888/files/2025-02-23/some-id-0.png",
        "https://me.example/files/2025-02-23/some-id-0.png",
        "http://192.168.1.5/outputs/2025-02-23/some-id-0.png",
        "http://127.0.0.1:8888/files/2025-02-23/some-id-0.png?cacheBust=1#x",
        "http://127.0.0.1:8888/files/2025%2D02-23/some%2Did-0.png",
    ],
)
def test_own_pictures_come_from_the_disk(tmp_path: Path, url: str) -> None:
    a_finished_picture(tmp_path)
    assert np.array_equal(read(url, tmp_path), PIXELS)


@pytest.mark.parametrize("url", ["https://me.example/api/files/{}", "http://localhost:8888/files/{}"])
def test_own_pictures_below_a_prefix(tmp_path: Path, url: str) -> None:
    a_finished_picture(tmp_path)
    own = url.format("2025-02-23/some-id-0.png")
    assert np.array_equal(read(own, tmp_path, base_url="https://me.example/api/"), PIXELS)


@pytest.mark.parametrize(
    "path",
    [
        "/files/2025-02-23/other-0.png",
        "/files/../secret.png",
        "/files/%2e%2e/secret.png",
        "/files/..%2Fsecret.png",
        "/files//etc/passwd.png",
        "/files/2025-02-23/link.png",
        "/files/2025-02-23/some-id-0.png%00.png",
        "/files/2025-02-23%5C..%5Csome-id-0.png",
        "/files/journal.db",
        "/files/",
        "/inside/files/2025-02-23/some-id-0.png",
    ],
)
def test_nothing_else_does(tmp_path: Path, path: str) -> None:
    a_finished_picture(tmp_path)
    a_finished_picture(tmp_path, "secret.png")
    (tmp_path / "files/2025-02-23/link.png").symlink_to(tmp_path / "secret.png")

    async def fetch(url: str) -> bytes:
        raise FetchFailed("the address answered 404")

    with pytest.raises(RefusedField, match="answered 404"):
        read(f"http://127.0.0.1:8888{path}", tmp_path, fetch)


def test_own_pictures_keep_to_the_limit(tmp_path: Path) -> None:
    a_finished_picture(tmp_path)
    reader = InputImages([store(tmp_path)], no_network, ImageLimits(len(PNG) - 1, 10**6))
    with pytest.raises(RefusedField, match=f"{len(PNG)} bytes, at most"):
        asyncio.run(reader.read(LOC, "http://127.0.0.1:8888/files/2025-02-23/some-id-0.png"))


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "text",
    ["x", "hello", "iVBORw0KGgo", TEXT[: len(TEXT) // 2], "data:,", "data:image/png;base64,", "AAAA" * 50, "0"],
)
def test_base64_of_something_else(text: str) -> None:
    assert refusal(text)


@pytest.mark.parametrize(
    "text", ["not base64!", "C:\\pictures\\a.png", "pictures/a b?.png", "b\u00e4r", "\ud800", "=" * 9 + "x"]
)
def test_texts_that_are_nothing(text: str) -> None:
    assert "neither base64 nor an address" in refusal(text)


@pytest.mark.parametrize("text", ["file:///etc/passwd", "ftp://pictures.test/a.png", "gopher://x", "HTTPX://y"])
def test_other_schemes(text: str) -> None:
    assert "only http:// and https://" in refusal(text)


def test_an_address_that_cannot_be_had() -> None:
    async def fetch(url: str) -> bytes:
        raise FetchFailed("the address answered 404")

    assert refusal("http://pictures.test/a.png", fetch) == "the address answered 404"


def test_an_address_of_a_page() -> None:
    async def fetch(url: str) -> bytes:
        return b"<!DOCTYPE html><html></html>"

    assert "is no picture" in refusal("http://pictures.test/", fetch)


class Unread(io.BytesIO):
    """A file that nobody may read."""

    def read(self, size: int | None = -1) -> bytes:
        raise AssertionError("the file was read")


def test_a_large_file_is_refused_unread() -> None:
    large = UploadFile(Unread(), size=200 * 2**20, filename="x")
    assert f"{200 * 2**20} bytes, at most 100000" in refusal(large)


def test_a_large_file_of_unknown_length_is_read_to_the_limit() -> None:
    data = io.BytesIO(b"x" * 1_000_000)
    assert "at most 100000" in refusal(UploadFile(data, filename="x"))
    assert data.tell() == 100_001


def test_a_large_text_is_refused_unpacked() -> None:
    assert "bytes, at most 100000" in refusal("A" * 140_000)
    assert "is no picture" in refusal("A" * 133_332)


# -------------------------------------------------------------------------------------------- over HTTP, as dialects do


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """An endpoint as the dialects' will be, with the reader that the settings describe."""
    reader = input_images(Settings(output_path=tmp_path, max_input_bytes=100_000), [store(tmp_path)])
    app = FastAPI()
    install_error_handlers(app)

    @app.post("/shape")
    async def shape(request: Request) -> list[int] | None:
        sent: FormData | dict[str, Any]
        sent = await request.json() if "json" in request.headers["content-type"] else await request.form()
        pixels = await reader.read(LOC, sent.get("input_image"))
        return None if pixels is None else list(pixels.shape)

    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize(
    "sent",
    [
        {"json": {"input_image": TEXT}},
        {"files": {"input_image": ("a.png", PNG, "image/png")}},
        {"files": {"input_image": PNG}},
        {"files": {"input_image": (None, PNG)}},
        {"files": {"input_image": (None, TEXT)}},
        {"data": {"input_image": TEXT}},
    ],
)
def test_every_encoding_of_a_request(client: TestClient, sent: dict[str, Any]) -> None:
    assert client.post("/shape", **sent).json() == [12, 16, 3]


@pytest.mark.parametrize(
    ("sent", "reason", "shown"),
    [
        ({"json": {"input_image": "http://127.0.0.1:9/a.png"}}, "does not fetch from", "http://127.0.0.1:9/a.png"),
        ({"json": {"input_image": "http://[::ffff:10.0.0.1]/"}}, "does not fetch from", "http://[::ffff:10.0.0.1]/"),
        ({"json": {"input_image": "A" * 500}}, "is no picture", "A" * 200 + "... (500 characters)"),
        ({"files": {"input_image": ("a.png", b"GIF89a junk")}}, "is no picture", "a.png"),
        ({"files": {"input_image": ("a.png", b"x" * 100_001)}}, "100001 bytes, at most 100000", "a.png"),
    ],
)
def test_the_answer_names_the_field(client: TestClient, sent: dict[str, Any], reason: str, shown: str) -> None:
    answer = client.post("/shape", **sent)
    assert answer.status_code == 422
    (fault,) = answer.json()["detail"]
    assert fault["loc"] == list(LOC)
    assert reason in fault["msg"]
    assert fault["input"] == shown


def test_pictures_are_unpacked_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from fooocusapi.images import inputs

    at_work, most = 0, 0

    def decode(data: bytes, limits: ImageLimits) -> NDArray[np.uint8]:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        time.sleep(0.002)
        at_work -= 1
        return PIXELS

    async def several() -> None:
        reader = InputImages([store(Path("nowhere"))], no_network, LIMITS)
        await asyncio.gather(*(reader.read(LOC, TEXT) for _ in range(20)))

    monkeypatch.setattr(inputs, "decode_image", decode)
    asyncio.run(several())
    assert most == 1
