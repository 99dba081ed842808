"""No body, query or path is answered with a 500, and none costs the server its worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from fooocusapi.surfaces.classic.schemas import AdvancedParams, CommonRequest
from fooocusapi.surfaces.enhancements import EnhanceCtrlNets
from tests.fooocusapi.served import TEXT_TO_IMAGE, House, serving
from tests.fooocusapi.surfaces.classic.pictures import bomb, half, plain, text

KINDLY = settings(max_examples=80, deadline=None)

NUMBERS = st.integers() | st.floats() | st.sampled_from([-1, 0, 1, 2**31, 2**63 - 1, 2**63, 10**30, 1e308, -0.0])
WORDS = st.sampled_from(
    [
        "",
        " ",
        "None",
        "null",
        "true",
        "-1",
        "1e999",
        "nan",
        "Speed",
        "png",
        "1152*896",
        "[]",
        "{}",
        "[[",
        '{"a":',
        "../",
        "\x00",
    ]
)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=20) | WORDS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
LORAS = st.lists(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("enabled", "model_name", "weight", "weights"), VALUES)) | VALUES
)
ADVANCED = st.fixed_dictionaries({}, optional=dict.fromkeys(AdvancedParams.model_fields, VALUES)) | VALUES
SPECIAL = {
    "advanced_params": ADVANCED,
    "loras": LORAS | VALUES,
    "image_number": st.sampled_from([1, 2, "1"]) | st.text(max_size=3),
}
BODIES = st.fixed_dictionaries({}, optional={name: SPECIAL.get(name, VALUES) for name in CommonRequest.model_fields})


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One server for all of them: what one body broke, the next would find."""
    folder: Path = tmp_path_factory.mktemp("fuzz")
    with serving(House(folder)) as client:
        yield client
        assert client.post(TEXT_TO_IMAGE, json={}).json()[0]["finish_reason"] == "SUCCESS"
        strangers = [path for path in folder.rglob("*") if path.is_file() and "journal" not in path.name]
        assert all(path.relative_to(folder).parts[0] == "files" for path in strangers)


@KINDLY
@given(body=BODIES)
def test_any_object(client: TestClient, body: dict[str, Any]) -> None:
    answer = client.post(TEXT_TO_IMAGE, content=_as_json(body), params={"accept": "application/json"})
    assert answer.status_code in (200, 422), answer.text
    answer.json()


@KINDLY
@given(body=VALUES)
def test_any_json(client: TestClient, body: Any) -> None:
    assert client.post(TEXT_TO_IMAGE, content=_as_json(body)).status_code in (200, 422)


PNGS = st.sampled_from([plain(16, 16), half(9, 30), plain(1, 1), bomb()])
PICTURES = PNGS.map(text) | st.just("http://192.0.2.1/a.png")
PICTURE_FIELDS = {
    "advanced_params": ADVANCED,
    "input_image": PICTURES,
    "input_mask": PICTURES | VALUES,
    "outpaint_selections": st.lists(st.sampled_from(["Left", "top", "Up", ""])) | VALUES,
    "cn_img1": PICTURES | VALUES,
    "image_prompts": st.lists(
        st.fixed_dictionaries({"cn_img": PICTURES}, optional=dict.fromkeys(("cn_stop", "cn_type"), VALUES)), max_size=6
    )
    | VALUES,
    "enhance_input_image": PICTURES,
    "enhance_uov_method": st.sampled_from(["Disabled", "Vary (Subtle)"]) | VALUES,
    "enhance_enabled_2": VALUES,
    "enhance_mask_model_2": st.sampled_from(["u2netp", "sam", ""]) | VALUES,
    "enhance_ctrlnets": st.lists(st.dictionaries(st.sampled_from(list(EnhanceCtrlNets.model_fields)), VALUES)) | VALUES,
    **{f"outpaint_distance_{side}": NUMBERS | WORDS for side in ("left", "right", "top", "bottom")},
}
PICTURE_BODIES = st.fixed_dictionaries({}, optional=PICTURE_FIELDS)
PICTURE_PATHS = st.sampled_from(
    [
        "/v2/generation/text-to-image-with-ip",
        *(
            f"/{version}/generation/image-{name}"
            for version in ("v1", "v2")
            for name in ("prompt", "inpaint-outpaint", "enhance")
        ),
    ]
)


@settings(KINDLY, max_examples=40)
@given(path=PICTURE_PATHS, body=PICTURE_BODIES)
def test_any_object_with_pictures(client: TestClient, path: str, body: dict[str, Any]) -> None:
    assert client.post(path, content=_as_json(body)).status_code in (200, 422)


@settings(KINDLY, max_examples=40)
@given(path=PICTURE_PATHS, body=PICTURE_BODIES, file=st.binary(max_size=60) | PNGS)
def test_any_form(client: TestClient, path: str, body: dict[str, Any], file: bytes) -> None:
    data = {name: _sendable(str(value)) for name, value in body.items()}
    assert client.post(path, data=data, files={"cn_img2": file, "enhance_input_image": file}).status_code in (200, 422)


TYPES = ["", "application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x/y", ";"]


@KINDLY
@given(body=st.binary(max_size=60), begins_like_json=st.booleans(), kind=st.sampled_from(TYPES))
def test_any_bytes_under_any_type(client: TestClient, body: bytes, begins_like_json: bool, kind: str) -> None:
    content = b"{" + body if begins_like_json else body
    answer = client.post(TEXT_TO_IMAGE, content=content, headers={"content-type": kind})
    assert answer.status_code in (200, 422)


@KINDLY
@given(text=st.text(max_size=60), other=st.text(max_size=20))
def test_any_query(client: TestClient, text: str, other: str) -> None:
    by_get = client.get(
        "/v1/generation/query-job", params={"job_id": _sendable(text), "require_step_preview": _sendable(other)}
    )
    assert by_get.status_code in (404, 422)
    body = _as_json({"job_id": text, "require_step_preview": other})
    assert client.post("/v1/generation/query-job", content=body).status_code in (404, 422)
    history = client.get("/v1/generation/job-history", params={"job_id": _sendable(text), "page": _sendable(other)})
    assert history.status_code in (200, 422)


@KINDLY
@given(path=st.text(st.characters() | st.sampled_from("./\\%\x00"), max_size=40))
def test_any_path(client: TestClient, path: str) -> None:
    for prefix in ("/files/", "/outputs/", "/", "/v1/"):
        assert client.get(prefix + quote(_sendable(path), safe="")).status_code in (200, 404, 405)


@KINDLY
@given(name=st.text(st.characters() | st.sampled_from("./\\\x00:"), max_size=60))
def test_any_name(client: TestClient, name: str) -> None:
    answer = client.post(TEXT_TO_IMAGE, content=_as_json({"save_name": name}))
    assert answer.status_code in (200, 422)
    if answer.status_code == 200:
        url = answer.json()[0]["url"]
        assert client.get(url.partition("8888")[2]).status_code == 200


def _as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _sendable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
