"""This dialect in the published document: its examples and defaults work, and its answers are as they are shown."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from fooocus_core.presets.preset import load_preset
from tests.fooocusapi.served import House, serving
from tests.fooocusapi.surfaces.unified.asking import GENERATE, task


@pytest.fixture(scope="module")
def schemas(shared_client: TestClient) -> Any:
    return shared_client.get("/openapi.json").json()["components"]["schemas"]


def test_every_field_has_a_description_a_default_and_an_example(schemas: Any) -> None:
    for title in ("GenerateRequest", "ImagePrompt", "EnhanceCtrlNets"):
        for name, described in schemas[title]["properties"].items():
            assert len(described["description"]) > 10, name
            assert described["examples"], name
            assert "default" in described or name in ("cn_img", "save_name"), name


def test_the_examples_work(shared_client: TestClient, schemas: Any) -> None:
    properties = schemas["GenerateRequest"]["properties"]
    one_by_one = {name: described["examples"][0] for name, described in properties.items()}
    for body in (*schemas["GenerateRequest"]["examples"], {**one_by_one, "async_process": False}):
        answer = shared_client.post(GENERATE, json=body)
        assert answer.status_code == 200, answer.text


def test_the_published_defaults_change_nothing(house: House) -> None:
    house.preset = load_preset("anime")
    with serving(house) as client:
        properties = client.get("/openapi.json").json()["components"]["schemas"]["GenerateRequest"]["properties"]
        assert properties["guidance_scale"]["default"] == 6
        assert properties["aspect_ratios_selection"]["default"] == "896*1152"
        defaults = {name: described.get("default") for name, described in properties.items()}
        assert client.post(GENERATE, json=defaults).status_code == 200
        assert client.post(GENERATE, json={}).status_code == 200
        said, unsaid = house.engine.plans
        assert said == unsaid


def test_records_are_as_published(shared_client: TestClient, schemas: Any) -> None:
    record = shared_client.post(GENERATE, json={}).json()
    published = list(schemas["TaskRecord"]["properties"])
    assert [name for name in published if name != "preview"] == list(record)
    assert task(shared_client, record["task_id"]) == record
    assert set(schemas["GenerateRequest"]["properties"]) == set(record["req_params"])
