"""Long bodies: pictures as text pass, what would keep the parser busy is refused, and probes are answered meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fooocusapi.bodies import MAX_JSON_PARTS, MAX_WIDE_BYTES, LenientRequest
from tests.fooocusapi.served import TEXT_TO_IMAGE, House, serving


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serving(House(tmp_path_factory.mktemp("bodies"))) as client:
        yield client


def test_tens_of_megabytes_of_pictures_are_no_trouble(client: TestClient) -> None:
    picture = b'"data:image/png;base64,' + b"A" * (5 << 20) + b'"'
    body = b'{"prompt":"x","input_image":' + picture + b',"input_mask":' + picture + b"}"
    assert client.post(TEXT_TO_IMAGE, content=body).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"x":[' + b"[]," * MAX_JSON_PARTS + b"1]}",
        b'{"x":[' + b"1," * (MAX_JSON_PARTS + 1) + b"1]}",
        b'{"x":' + b"{" * (MAX_JSON_PARTS + 1),
    ],
    ids=["lists", "numbers", "objects"],
)
def test_more_values_than_any_request_has(client: TestClient, body: bytes) -> None:
    answer = client.post(TEXT_TO_IMAGE, content=body)
    assert answer.status_code == 413
    assert "values" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"k%d":1' % number for number in range(MAX_JSON_PARTS)) + b"}",
        b'{"style_selections":[' + b"5," * (MAX_JSON_PARTS - 2) + b"5]}",
        b'{"loras":"[' + b"\\u005b\\u005d\\u002c" * 1_000_000 + b'1]"}',
        b'{"prompt":5,"x":[' + b"[1]," * (MAX_JSON_PARTS // 2 - 2) + b"1]}",
    ],
    ids=["names", "wrong styles", "hidden lists", "echo"],
)
def test_as_many_values_as_are_read_are_answered_in_few_words(client: TestClient, body: bytes) -> None:
    answer = client.post(TEXT_TO_IMAGE, content=body)
    assert answer.status_code in (200, 422)
    assert len(answer.content) < 100_000


def test_escapes_within_a_picture_are_no_trouble() -> None:
    """Some clients escape the signs of base64, and a prompt may hold any character."""
    body = b'{"prompt":"\\u0416 \xd0\x96","input_image":"' + b"AAA\\u002B" * 1_000_000 + b'"}'
    values = asyncio.run(_as_json(body))
    assert values["prompt"] == "\u0416 \u0416"
    assert values["input_image"] == "AAA+" * 1_000_000


def test_long_bodies_are_read_as_short_ones() -> None:
    text = '\u00e4\u0416\N{GRINNING FACE}\\ " \u20ac'
    body = json.dumps({"a": text, text: [text], "x": "A" * 2**20}, ensure_ascii=False).encode()
    for written in (body, b"\xef\xbb\xbf" + body):
        assert asyncio.run(_as_json(written)) == json.loads(body)


@pytest.mark.parametrize("wide", [b"\xff", b"\xd0", b"\xed\xa0\x80"])
def test_long_bodies_that_are_no_utf_8(wide: bytes) -> None:
    with pytest.raises(json.JSONDecodeError, match="not UTF-8"):
        asyncio.run(_as_json(b'{"x":"' + b"A" * 2**20 + wide + b'"}'))


def test_more_characters_beyond_ascii_than_any_request_has(client: TestClient) -> None:
    answer = client.post(TEXT_TO_IMAGE, content=b'{"prompt":"' + b"\xd0\x96" * (MAX_WIDE_BYTES // 2 + 1) + b'"}')
    assert (answer.status_code, "beyond ASCII" in answer.json()["detail"]) == (413, True)


async def _as_json(body: bytes) -> Any:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return await LenientRequest({"type": "http", "headers": []}, receive).json()
