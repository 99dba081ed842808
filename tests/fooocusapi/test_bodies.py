"""Long bodies: pictures as text pass, what would keep the parser busy is refused, and probes are answered meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from fooocusapi.bodies import MAX_JSON_PARTS, LenientRequest
from fooocusapi.surfaces.classic.schemas import CommonRequest
from tests.fooocusapi.served import TEXT_TO_IMAGE, House, serving

BUSY_S = 1.0
"""Processor time for which the event loop may stand still; an idle machine needs a fraction of it."""


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
def test_the_worst_body_that_is_read_does_not_hold_up_the_rest(client: TestClient, body: bytes) -> None:
    begun_s = time.thread_time()
    values = asyncio.run(_as_json(body))
    with contextlib.suppress(ValidationError):
        CommonRequest.model_validate(values)
    busy_s = time.thread_time() - begun_s
    assert busy_s < BUSY_S
    answer = client.post(TEXT_TO_IMAGE, content=body)
    assert answer.status_code in (200, 422)
    assert len(answer.content) < 100_000


async def _as_json(body: bytes) -> Any:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return await LenientRequest({"type": "http", "headers": []}, receive).json()
