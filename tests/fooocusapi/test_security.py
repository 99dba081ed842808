"""The key and the body limit, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from fooocusapi import security
from fooocusapi.security import Access
from fooocusapi.settings import Settings
from tests.fooocusapi.served import TEXT_TO_IMAGE, TODAY, House, serving

KEY = "gehëim-123"
HEADER = {"X-API-KEY": KEY.encode()}

OPEN = ["/", "/ping", "/ping/", "/healthz", "/readyz", "/docs", "/redoc", "/openapi.json", f"/files/{TODAY}/x-0.png",
        f"/outputs/{TODAY}/x-0.png"]  # fmt: skip
CLOSED = [
    ("POST", TEXT_TO_IMAGE),
    ("POST", TEXT_TO_IMAGE + "/"),
    ("POST", "/v1/generation/stop"),
    ("GET", "/v1/generation/query-job?job_id=1"),
    ("POST", "/v1/generation/query-job"),
    ("GET", "/v1/generation/job-queue"),
    ("GET", "/v1/generation/job-history"),
    ("GET", "/v1/engines/all-models"),
    ("POST", "/v1/engines/refresh-models"),
    ("GET", "/v1/engines/styles"),
    ("GET", "/v1/engines/clean_vram"),
    ("POST", "/v1/engine/generate/"),
    ("POST", "/v1/engine/control?action=stop"),
    ("GET", "/tasks"),
    ("GET", "/tasks/1"),
    ("GET", "/nowhere"),
    ("GET", "/files"),
    ("GET", "/files/"),
    ("GET", "/v1/generation/job-queue/%2e%2e/files/x"),
]


@pytest.fixture(scope="module")
def locked(shared: House) -> Iterator[TestClient]:
    shared.settings = Settings(apikey=KEY)  # type: ignore[arg-type]
    with serving(shared) as client:
        client.post(TEXT_TO_IMAGE, json={"save_name": "x"}, headers=HEADER)
        yield client


@pytest.mark.parametrize("path", OPEN)
def test_what_needs_no_key(locked: TestClient, path: str) -> None:
    assert locked.get(path).status_code == 200


def test_pictures_that_were_sent_need_no_key(locked: TestClient) -> None:
    assert locked.get(f"/inputs/{'0' * 64}.png").status_code == 404


@pytest.mark.parametrize(("method", "path"), CLOSED)
@pytest.mark.parametrize("key", [None, b"", b"wrong", KEY.encode()[:-1], KEY.encode() + b"x", b"\xff", b" "])
def test_what_needs_the_key(locked: TestClient, method: str, path: str, key: bytes | None) -> None:
    answer = locked.request(method, path, headers={} if key is None else {"X-API-KEY": key})
    assert (answer.status_code, answer.text) == (403, '{"detail":"Forbidden"}')
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("name", ["X-API-KEY", "x-api-key", "X-Api-Key"])
def test_the_key_in_any_case_of_its_header(locked: TestClient, name: str) -> None:
    assert locked.get("/v1/generation/job-queue", headers={name: KEY.encode()}).status_code == 200


def test_the_body_of_a_stranger_is_not_looked_at(locked: TestClient) -> None:
    assert locked.post(TEXT_TO_IMAGE, content=b"{ not json").status_code == 403


def test_without_a_configured_key_all_is_open(client: TestClient) -> None:
    assert client.get("/v1/generation/job-queue", headers={"x-api-key": "any"}).status_code == 200


def test_browsers_see_the_refusal_and_may_ask_beforehand(locked: TestClient) -> None:
    origin = {"Origin": "http://front.example"}
    refused = locked.get("/v1/generation/job-queue", headers=origin)
    assert refused.headers["access-control-allow-origin"]
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    preflight = locked.options(TEXT_TO_IMAGE, headers=asked)
    assert preflight.status_code == 200
    assert "x-api-key" in preflight.headers["access-control-allow-headers"].lower()


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(Access(("secret",)))


@pytest.mark.parametrize("key", ["first", "second", "third"])
def test_any_of_several_keys_opens(several: TestClient, key: str) -> None:
    assert several.get("/v1/generation/job-queue", headers={"X-API-KEY": key}).status_code == 200


@pytest.mark.parametrize("key", ["", "first,second", "first, second ,third", "firs", "first ,", ",", "secondthird"])
def test_nothing_between_several_keys_does(several: TestClient, key: str) -> None:
    assert several.get("/v1/generation/job-queue", headers={"X-API-KEY": key}).status_code == 403


def test_every_key_is_compared_whichever_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time must not tell which."""
    compared: list[bytes] = []

    def compare(sent: bytes, key: bytes) -> bool:
        compared.append(key)
        return sent == key

    monkeypatch.setattr(security.hmac, "compare_digest", compare)
    for key in ("a", "b", "c", "none"):
        Access(("a", "b", "c")).allows("/v1/engines/styles", key)
    assert compared == [b"a", b"b", b"c"] * 4


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(apikey="first, second ,third,")  # type: ignore[arg-type]
    with serving(House(tmp_path_factory.mktemp("several"), settings=settings)) as client:
        yield client


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(max_body_bytes=4000, max_json_bytes=2000)
    with serving(House(tmp_path_factory.mktemp("narrow"), settings=settings)) as client:
        yield client


def test_a_body_up_to_the_limit(narrow: TestClient) -> None:
    body = b'{"prompt":"' + b"a" * 1987 + b'"}'
    assert len(body) == 2000
    assert narrow.post(TEXT_TO_IMAGE, content=body).status_code == 200


def test_a_body_beyond_the_limit(narrow: TestClient) -> None:
    answer = narrow.post(TEXT_TO_IMAGE, content=b"{" + b" " * 2000)
    assert answer.status_code == 413
    assert "2000" in answer.json()["detail"]


def test_a_body_that_does_not_say_how_long_it_is(narrow: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        yield b"{"
        for _ in range(1000):
            yield b" " * 100

    answer = narrow.post(TEXT_TO_IMAGE, content=endless())
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("length", ["abc", "-1", "9" * 30, "²"])
def test_a_length_that_is_none_is_counted_instead(narrow: TestClient, length: str) -> None:
    answer = narrow.post(TEXT_TO_IMAGE, content=b"{}", headers={"content-length": length.encode("latin-1")})
    assert answer.status_code == 200


@pytest.mark.parametrize(("length", "status"), [(3500, 422), (4500, 413)])
def test_a_form_with_files_has_a_limit_of_its_own(narrow: TestClient, length: int, status: int) -> None:
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert narrow.post(TEXT_TO_IMAGE, content=b"-" * length, headers=kind).status_code == status


def test_the_whole_body_is_the_limit_of_both(house: House) -> None:
    house.settings = Settings(max_body_bytes=2000)
    with serving(house) as client:
        assert client.post(TEXT_TO_IMAGE, content=b"{" + b" " * 2000).status_code == 413
