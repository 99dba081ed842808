"""No body and no query of this dialect is answered with a 500, and none costs the server its worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from fooocusapi.surfaces.enhancements import EnhanceCtrlNets
from fooocusapi.surfaces.unified.schemas import GenerateRequest
from tests.fooocusapi.served import House, serving
from tests.fooocusapi.surfaces.classic.test_fuzz import LORAS, NUMBERS, PICTURES, SCALARS, VALUES
from tests.fooocusapi.surfaces.unified.asking import GENERATE

KINDLY = settings(max_examples=60, deadline=None)

PICTURE_FIELDS = ("uov_input_image", "inpaint_input_image", "inpaint_mask_image_upload", "enhance_input_image")
SPECIAL = {
    **dict.fromkeys(PICTURE_FIELDS, PICTURES | VALUES),
    "loras": LORAS | VALUES,
    "image_number": st.sampled_from([1, 2, "1"]) | st.text(max_size=3),
    "controlnet_image": st.lists(
        st.fixed_dictionaries(
            {"cn_img": PICTURES}, optional=dict.fromkeys(("cn_stop", "cn_weight", "cn_type"), SCALARS)
        ),
        max_size=6,
    ),
    "enhance_ctrls": st.lists(
        st.dictionaries(st.sampled_from(list(EnhanceCtrlNets.model_fields)), SCALARS, max_size=2), max_size=4
    ),
    "outpaint_selections": st.lists(st.sampled_from(["Left", "top", "Up", ""])) | VALUES,
    "outpaint_distance": st.lists(NUMBERS, max_size=6) | VALUES,
}
BODIES = st.lists(st.sampled_from(list(GenerateRequest.model_fields)), max_size=6, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: SPECIAL.get(name, VALUES) for name in names})
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One server for all of them: what one body broke, the next would find."""
    folder: Path = tmp_path_factory.mktemp("fuzz")
    with serving(House(folder)) as client:
        yield client
        assert client.post(GENERATE, json={}).json()["task_status"] == "finished"
        strangers = [path for path in folder.rglob("*") if path.is_file() and "journal" not in path.name]
        assert {path.relative_to(folder).parts[0] for path in strangers} <= {"files", "sent"}


@KINDLY
@given(body=BODIES)
def test_any_object(client: TestClient, body: dict[str, Any]) -> None:
    answer = client.post(GENERATE, content=json.dumps(body, allow_nan=True))
    assert answer.status_code in (200, 422), answer.text


@KINDLY
@given(
    asked=st.dictionaries(
        st.sampled_from(["query", "page", "page_size", "start_at", "end_at", "action"]),
        st.text(max_size=12) | st.sampled_from(["all", "delete", "2025-01-01T00:00:00", "99999-01-01T00:00:00", "-1"]),
    )
)
def test_any_query(client: TestClient, asked: dict[str, str]) -> None:
    answer = client.get("/tasks", params=asked)
    assert answer.status_code in (200, 422), answer.text


@KINDLY
@given(accept=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20))
def test_any_accept(client: TestClient, accept: str) -> None:
    assert client.post(GENERATE, json={}, headers={"accept": accept}).status_code == 200
