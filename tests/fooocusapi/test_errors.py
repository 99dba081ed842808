"""Every failure in one of two shapes, and nothing of the inside in either."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from fooocus_core.errors import CoreError, InvalidRequest, OutOfMemory, UnknownModel
from fooocusapi.errors import (
    MAX_ECHOED_CHARS,
    STATUS_OF,
    NotOpened,
    RefusedField,
    install_error_handlers,
    printable,
)
from fooocusapi.jobs.bridge import QueueClosed
from fooocusapi.jobs.journal_base import JournalError
from fooocusapi.jobs.queue import QueueFull, UnknownJob
from fooocusapi.middleware import ErrorBoundary
from tests.fooocusapi.served import TEXT_TO_IMAGE

FAILURES: list[tuple[Exception, int]] = [
    (UnknownJob("x"), 404),
    (QueueFull(3), 429),
    (QueueClosed(), 503),
    (JournalError("the journal of jobs cannot be written"), 503),
    (NotOpened(), 503),
    (UnknownModel("checkpoints", "x"), 503),
    (OutOfMemory("no room"), 500),
    (CoreError("something"), 500),
]


def answer_to(error: Exception) -> Any:
    app = FastAPI()
    app.add_middleware(ErrorBoundary)
    install_error_handlers(app)

    @app.get("/")
    def fail() -> None:
        raise error

    return TestClient(app, raise_server_exceptions=False).get("/")


@pytest.mark.parametrize(("error", "status"), FAILURES)
def test_each_failure_has_its_status_and_the_one_shape(error: Exception, status: int) -> None:
    answer = answer_to(error)
    assert (answer.status_code, answer.json()) == (status, {"detail": str(error)})


def test_the_table_is_tested_whole() -> None:
    assert {type(error) for error, _ in FAILURES} >= set(STATUS_OF)


@pytest.mark.parametrize("error", [RuntimeError("/root/secret.py"), KeyError("x"), OSError("disk"), AssertionError()])
def test_a_bug_tells_nothing(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    answer = answer_to(error)
    assert (answer.status_code, answer.text) == (500, '{"detail":"Internal Server Error"}')
    assert answer.headers["content-type"] == "application/json"
    assert any(record.exc_info for record in caplog.records)


def test_a_refused_field() -> None:
    answer = answer_to(RefusedField(("body", "a", 1), "is wrong", value="v", body={"a": ["", "v"]}))
    assert answer.status_code == 422
    assert answer.json() == {
        "detail": [{"type": "value_error", "loc": ["body", "a", 1], "msg": "is wrong", "input": "v"}],
        "body": {"a": ["", "v"]},
    }


def test_a_refusal_of_the_core_that_no_dialect_put_into_words() -> None:
    answer = answer_to(InvalidRequest("seed", "is wrong"))
    assert answer.json()["detail"][0]["loc"] == ["body", "seed"]


BROKEN_JSON = [
    b"{",
    b'{"a":}',
    b"{]",
    b'{"a":NaN}',
    b'{"a":-Infinity}',
    b"{\xff}",
    b'{"a":' + b"[" * 50000,
    b'{"a":' + b"9" * 5000 + b"}",
    b'{"a":"\x01"}',
    b'{"prompt": "a',
    b"{'prompt': 'a'}",
    b"\xef\xbb\xbf{",
    b"prompt=a",
]


@pytest.mark.parametrize("body", BROKEN_JSON)
def test_broken_json_is_422(client: TestClient, body: bytes) -> None:
    answer = client.post(TEXT_TO_IMAGE, content=body)
    assert answer.status_code == 422
    (fault,) = answer.json()["detail"]
    assert fault["type"] == "json_invalid"
    assert fault["loc"][0] == "body"
    assert isinstance(answer.json()["body"], str)
    assert len(answer.content) < 2000


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b'"text"', b"null", b"true"])
def test_json_that_is_no_object_is_422(client: TestClient, body: bytes) -> None:
    answer = client.post(TEXT_TO_IMAGE, content=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body"]


def test_long_texts_come_back_shortened(client: TestClient) -> None:
    answer = client.post(TEXT_TO_IMAGE, json={"prompt": 5, "input_image": "A" * 1_000_000, "image_number": "9" * 1000})
    assert answer.status_code == 422
    assert len(answer.content) < 3000
    assert answer.json()["body"]["input_image"] == "A" * MAX_ECHOED_CHARS + "... (1000000 characters)"


def test_a_wrong_method_and_a_wrong_path(client: TestClient) -> None:
    wrong = client.get(TEXT_TO_IMAGE)
    assert (wrong.status_code, wrong.text) == (405, '{"detail":"Method Not Allowed"}')
    nowhere = client.get("/v1/nowhere")
    assert (nowhere.status_code, nowhere.text) == (404, '{"detail":"Not Found"}')


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON_VALUES)
def test_whatever_was_sent_can_be_sent_back(value: Any) -> None:
    json.dumps(printable(value), allow_nan=False, ensure_ascii=False).encode()


def test_wide_things_on_many_levels_come_back_small() -> None:
    wide: Any = "end"
    for _ in range(6):
        wide = {"many": [wide] * 50, "more": [wide] * 50}
    assert len(json.dumps(printable(wide))) < 10000


def test_many_faults_are_told_in_part(client: TestClient) -> None:
    answer = client.post(TEXT_TO_IMAGE, json={"style_selections": [5] * 100_000})
    assert answer.status_code == 422
    assert len(answer.content) < 20_000


def test_huge_things_come_back_small() -> None:
    deep: Any = "end"
    for _ in range(1000):
        deep = [deep]
    huge = {"list": list(range(10000)), "deep": deep, "number": 10**4000, "text": "\ud800" * 5000, "object": object()}
    assert len(json.dumps(printable(huge), ensure_ascii=False).encode()) < 5000
