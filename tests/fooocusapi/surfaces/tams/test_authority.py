"""Who may call: Bearer keys, requests signed with keys made here, applications that do not see each other, the rate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from fooocusapi.settings import Settings
from fooocusapi.surfaces.tams.authority import RateLimit, bearer_keys, public_keys
from fooocusapi.surfaces.tams.failures import Refusal
from fooocusapi.surfaces.tams.signatures import PublicKey
from tests.fooocusapi.fakes import BIRTH_MS
from tests.fooocusapi.served import House, serving
from tests.fooocusapi.surfaces.tams.asking import JOBS, SigningKey, blank_engine, body, path_of, picture_file, reserved
from tests.fooocusapi.test_socket import listening

NOW_S = BIRTH_MS // 1000


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> House:
    root = tmp_path_factory.mktemp("authority")
    keys = root / "keys"
    keys.mkdir()
    (keys / "shop.pem").write_text(key.pem(), encoding="ascii")
    settings = Settings(
        tams_keys=SecretStr("shop=first, other=second"), tams_public_keys=str(keys), apikey=SecretStr("house")
    )
    return House(root, engine=blank_engine(), settings=settings)


@pytest.fixture(scope="module")
def client(house: House) -> Iterator[TestClient]:
    with serving(house) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def is_refused(answer: Any) -> bool:
    assert answer.status_code in (200, 401), answer.text
    if answer.status_code == 401:
        assert answer.json() == {"code": 16, "message": "unauthorized", "details": []}
    return bool(answer.status_code == 401)


def test_bearer_keys(client: TestClient) -> None:
    price = {"json": {"stages": body()["stages"]}}
    for headers in (bearer("first"), bearer("second"), bearer("house"), {"authorization": "bearer  first"}):
        assert not is_refused(client.post(f"{JOBS}/credits", headers=headers, **price))
    assert not is_refused(client.post(f"{JOBS}/credits", headers={"X-API-KEY": "house"}, **price))
    for headers in ({}, bearer("third"), bearer(""), {"Authorization": "Basic Zmlyc3Q="}, {"X-API-KEY": "first"}):
        assert is_refused(client.post(f"{JOBS}/credits", headers=headers, **price))


def test_callers_without_a_key_are_turned_away_before_their_body_comes(tmp_path: Path) -> None:
    house = House(tmp_path, settings=Settings(tams_keys=SecretStr("secret")))
    with listening(house) as server:
        head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nConnection: close\r\n"
        status, answered = server.answer(head + b"Authorization: Bearer wrong\r\n\r\n")
    assert (status, json.loads(answered)["code"]) == (401, 16)


def test_browsers_ask_without_a_key(client: TestClient) -> None:
    headers = {"Origin": "http://a.example", "Access-Control-Request-Method": "POST"}
    for path in (JOBS, "/v1/resource/image", "/v1/resource/image/x"):
        answer = client.options(path, headers={**headers, "Access-Control-Request-Headers": "authorization"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] in ("*", "http://a.example")
        assert {"GET", "POST", "PUT", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))


def test_applications_do_not_see_each_other(client: TestClient) -> None:
    job = client.post(JOBS, json=body("mine"), headers=bearer("first")).json()["job"]
    assert client.get(f"{JOBS}/{job['id']}", headers=bearer("first")).status_code == 200
    assert client.get(f"{JOBS}/{job['id']}", headers=bearer("second")).status_code == 404
    assert client.delete(f"{JOBS}/{job['id']}", headers=bearer("second")).status_code == 404
    # The key of a request is one of its application: the other one's makes a job of its own.
    others = client.post(JOBS, json=body("mine", notifyUrl=""), headers=bearer("second")).json()["job"]
    assert others["id"] != job["id"]


def test_uploads_belong_to_their_application(client: TestClient) -> None:
    slot = client.post("/v1/resource/image", json={}, headers=bearer("first")).json()
    assert client.put(path_of(slot["putUrl"]), content=picture_file()).status_code == 200
    request = body("theirs", start={"imageResourceId": slot["resourceId"]})
    assert client.post(JOBS, json=request, headers=bearer("second")).status_code == 400
    assert client.post(JOBS, json=request, headers=bearer("first")).status_code == 200


def signed(client: TestClient, key: SigningKey, **other: Any) -> Any:
    """The answer to a signed request of which something else was signed than what is sent."""
    data = b'\n\t{"stages": %s}\n' % json.dumps(body()["stages"]).encode()
    sent = {"app": "shop", "method": "POST", "target": f"{JOBS}/credits", "timestamp_s": NOW_S, "data": data, **other}
    return client.post(f"{JOBS}/credits", content=data, headers={"Authorization": key.header(**sent)})


def test_a_signature_is_of_the_bytes_that_were_sent(client: TestClient, key: SigningKey) -> None:
    assert not is_refused(signed(client, key))
    assert is_refused(signed(client, key, data=b"{}"))
    assert is_refused(signed(client, key, method="GET"))
    assert is_refused(signed(client, key, target=f"{JOBS}/credits?x=1"))
    assert is_refused(signed(client, key, app="other"))


def test_the_same_request_may_come_again(client: TestClient, key: SigningKey) -> None:
    """Clients make nonces of the clock's second, so that two of their polls are alike."""
    assert not is_refused(signed(client, key, nonce="1700000000"))
    assert not is_refused(signed(client, key, nonce="1700000000"))


@pytest.mark.parametrize(("off_s", "refused"), [(299, False), (-299, False), (301, True), (-301, True)])
def test_clocks_may_be_off_by_five_minutes(client: TestClient, key: SigningKey, off_s: int, refused: bool) -> None:
    assert is_refused(signed(client, key, timestamp_s=NOW_S + off_s)) is refused


def test_a_signature_of_another_key_is_none(client: TestClient) -> None:
    assert is_refused(signed(client, SigningKey()))


@pytest.mark.parametrize("change", [("signature=", "signature=x"), ("timestamp=1", "timestamp=x"), (",", ";")])
def test_broken_headers_are_refused(client: TestClient, key: SigningKey, change: tuple[str, str]) -> None:
    header = key.header("shop", "GET", f"{JOBS}/1", NOW_S, b"").replace(*change)
    assert client.get(f"{JOBS}/1", headers={"Authorization": header}).status_code == 401


def test_the_query_is_signed_and_blanks_are_forgiven(client: TestClient, key: SigningKey) -> None:
    header = key.header("shop", "GET", f"{JOBS}/1?a=%20b", NOW_S, b"").replace(",", " ,  ")
    assert client.get(f"{JOBS}/1?a=%20b", headers={"authorization": header}).status_code == 404


def test_uploads_and_results_need_no_key_but_their_address(client: TestClient) -> None:
    slot = client.post("/v1/resource/image", json={}, headers=bearer("first")).json()
    assert client.put(path_of(slot["putUrl"]), content=picture_file()).json() == {}
    assert client.put(path_of(slot["putUrl"])[:-1], content=picture_file()).status_code == 403


def test_the_window_may_be_off(tmp_path: Path, key: SigningKey) -> None:
    (tmp_path / "shop.pem").write_text(key.pem(), encoding="ascii")
    house = House(tmp_path, settings=Settings(tams_public_keys=str(tmp_path), tams_clock_skew_s=0))
    with serving(house) as client:
        assert not is_refused(signed(client, key, timestamp_s=1))
        assert is_refused(client.get(f"{JOBS}/1", headers=bearer("")))


def test_without_keys_everybody_may_call(tmp_path: Path) -> None:
    with serving(House(tmp_path)) as client:
        answer = client.post("/v1/resource/image", headers=bearer("whatever"))
        assert answer.status_code == 200
        assert reserved(client)["resourceId"] != answer.json()["resourceId"]


def test_calls_beyond_the_rate_are_refused(tmp_path: Path) -> None:
    with serving(House(tmp_path, settings=Settings(tams_rate_limit=2))) as client:
        answers = [client.post(f"{JOBS}/credits", content="{") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [400, 400, 429]
    assert answers[-1].headers["retry-after"] == "1"
    assert answers[-1].json()["code"] == 8


def test_the_rate_is_that_of_the_last_second() -> None:
    now_s = 0.0
    limit = RateLimit(2, lambda: now_s)
    limit.count("a"), limit.count("a"), limit.count("b")
    with pytest.raises(Refusal):
        limit.count("a")
    now_s = 1.0
    limit.count("a")


def test_keys_of_a_setting() -> None:
    assert bearer_keys(" shop=abc=, def ,, =ghi") == {"abc=": "shop", "def": "", "ghi": ""}
    assert bearer_keys("") == {}


def test_files_without_a_key_are_left_out(tmp_path: Path, key: SigningKey) -> None:
    (tmp_path / "good.pem").write_text(key.pem(), encoding="ascii")
    (tmp_path / "none.pem").write_text("no key", encoding="ascii")
    (tmp_path / "cut.pem").write_text(key.pem().replace(key.pem()[60:300], ""), encoding="ascii")
    (tmp_path / "private.txt").write_text(key.pem(), encoding="ascii")
    assert public_keys(tmp_path) == {"good": PublicKey.from_pem(key.pem())}


def test_short_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="1024 bits"):
        PublicKey.from_pem(SigningKey(1024).pem())
