"""The published document: complete, true to the contract's names, and with examples that work.

``surfaces/classic/contract/classic.json`` holds what the contract says: operation ids, fields, keys and enums.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fooocus_core.presets.preset import load_preset
from fooocusapi.settings import Settings
from tests.fooocusapi.served import TEXT_TO_IMAGE, House, serving

CONTRACT = json.loads((Path(__file__).parent / "surfaces/classic/contract/classic.json").read_text())
FIELDS = {field["name"]: field for field in CONTRACT["text_to_image_fields"]}
WIDER = {"advanced_params.overwrite_switch"}
"""Fields whose range the contract widens beyond the original's."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with serving(House(tmp_path_factory.mktemp("published"))) as client:
        return client.get("/openapi.json").json()  # type: ignore[no-any-return]


def property_of(published: dict[str, Any], name: str) -> dict[str, Any]:
    """The description of a field by its name in the contract, such as ``loras[].weight``."""
    schema, _, field = name.rpartition(".")
    title = {"": "CommonRequest", "loras[]": "Lora", "advanced_params": "AdvancedParams"}[schema]
    described: dict[str, Any] = published["components"]["schemas"][title]["properties"][field]
    return described


@pytest.mark.parametrize("operation", CONTRACT["operation_ids"])
def test_operations_keep_their_names(published: dict[str, Any], operation: str) -> None:
    method, path = operation.split()
    assert published["paths"][path][method.lower()]["operationId"] == CONTRACT["operation_ids"][operation]


def test_no_name_is_given_twice(client: TestClient) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        published = client.get("/openapi.json").json()
    names = [operation["operationId"] for path in published["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_described_with_default_and_example(published: dict[str, Any], name: str) -> None:
    described = property_of(published, name)
    assert len(described["description"]) > 10
    assert described["examples"]
    assert ("default" in described) is (name != "loras[].model_name")


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in WIDER])
def test_every_range_is_the_contracts(published: dict[str, Any], name: str) -> None:
    described, field = property_of(published, name), FIELDS[name]
    assert (described.get("minimum"), described.get("maximum")) == (field["min"], field["max"])


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "loras" and "loras[]" not in name])
def test_every_default_is_the_contracts(published: dict[str, Any], name: str) -> None:
    assert property_of(published, name)["default"] == FIELDS[name]["default"]


def test_every_published_field_says_what_it_is(published: dict[str, Any]) -> None:
    for title, schema in published["components"]["schemas"].items():
        for name, described in schema.get("properties", {}).items():
            assert described.get("description"), f"{title}.{name}"
    for path, operations in published["paths"].items():
        for operation in operations.values():
            assert operation.get("description"), path
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "query":
                    assert parameter.get("description"), f"{path} {parameter['name']}"


ENHANCE_FIELDS = [
    *(("ImageEnhanceForm", field) for field in CONTRACT["enhance_form_fields"]),
    *(
        ("EnhanceCtrlNetsJson" if "[]." in field["name"] else "ImageEnhanceRequestJson", field)
        for field in CONTRACT["enhance_json_fields"]
    ),
]
NEEDED_HERE = ("enhance_input_image",)
"""The contract has an empty text as default, which its program could not read."""
NEEDED_THERE = ("enhance_ctrlnets",)


@pytest.mark.parametrize(("title", "field"), ENHANCE_FIELDS, ids=[field["name"] for _, field in ENHANCE_FIELDS])
def test_fields_of_an_enhancement_are_the_contracts(
    published: dict[str, Any], title: str, field: dict[str, Any]
) -> None:
    schema = published["components"]["schemas"][title]
    name = field["name"].rpartition(".")[2]
    described = schema["properties"][name]
    assert described["examples"]
    assert (described.get("minimum"), described.get("maximum")) == (field["min"], field["max"])
    assert (name in schema.get("required", [])) is (name in NEEDED_HERE)
    if name not in (*NEEDED_HERE, *NEEDED_THERE):
        assert described["default"] == field["default"]


def test_null_is_not_published_for_fields_that_are_sent(published: dict[str, Any]) -> None:
    for title in ("CommonRequest", "AdvancedParams", "Lora", "ImageEnhanceForm", "EnhanceCtrlNetsJson"):
        assert "null" not in json.dumps(published["components"]["schemas"][title]["properties"])


@pytest.mark.parametrize("title", CONTRACT["enums"])
def test_enums_keep_their_values(published: dict[str, Any], title: str) -> None:
    assert set(published["components"]["schemas"][title]["enum"]) >= set(CONTRACT["enums"][title])


@pytest.mark.parametrize("title", CONTRACT["answers"])
def test_answers_keep_their_keys(published: dict[str, Any], title: str) -> None:
    assert set(published["components"]["schemas"][title]["properties"]) >= set(CONTRACT["answers"][title])


def test_the_key_is_published(published: dict[str, Any]) -> None:
    assert published["components"]["securitySchemes"] == {
        "APIKeyHeader": {"type": "apiKey", "in": "header", "name": "X-API-KEY"},
        "Bearer": {"type": "http", "scheme": "bearer", "description": "A key of this dialect, if there are any."},
    }
    assert published["paths"][TEXT_TO_IMAGE]["post"]["security"] == [{"APIKeyHeader": []}]
    assert "security" not in published["paths"]["/ping"]["get"]


def test_the_framework_shows_no_shapes_of_its_own(published: dict[str, Any]) -> None:
    assert not {"HTTPValidationError", "ValidationError"} & set(published["components"]["schemas"])


def test_the_examples_work(client: TestClient, published: dict[str, Any]) -> None:
    schemas = published["components"]["schemas"]
    (whole,) = schemas["CommonRequest"]["examples"]
    assert client.post(TEXT_TO_IMAGE, json=whole).status_code == 200
    one_by_one = {name: described["examples"][0] for name, described in schemas["CommonRequest"]["properties"].items()}
    one_by_one["async_process"] = False
    assert client.post(TEXT_TO_IMAGE, json=one_by_one).status_code == 200
    finer = {name: described["examples"][0] for name, described in schemas["AdvancedParams"]["properties"].items()}
    assert client.post(TEXT_TO_IMAGE, json={"advanced_params": finer}).status_code == 200


def test_the_published_defaults_can_be_sent(client: TestClient, published: dict[str, Any]) -> None:
    properties = published["components"]["schemas"]["CommonRequest"]["properties"]
    defaults = {name: described["default"] for name, described in properties.items()}
    assert client.post(TEXT_TO_IMAGE, json=defaults).status_code == 200


@pytest.fixture
def lightning(house: House) -> Iterator[TestClient]:
    house.preset = load_preset("lightning")
    with serving(house) as client:
        yield client


def test_defaults_are_those_of_the_preset(lightning: TestClient, house: House) -> None:
    published = lightning.get("/openapi.json").json()
    assert house.preset.performance == "Lightning"
    assert property_of(published, "performance_selection")["default"] == "Lightning"
    assert property_of(published, "base_model_name")["default"] == house.preset.checkpoint
    assert property_of(published, "style_selections")["default"] == list(house.preset.styles)


def test_the_longest_prompt_is_that_of_the_settings(house: House) -> None:
    house.settings = Settings(max_prompt_characters=9)
    with serving(house) as client:
        published = client.get("/openapi.json").json()
        for field in ("prompt", "negative_prompt"):
            longest = property_of(published, field)["maxLength"]
            assert client.post(TEXT_TO_IMAGE, json={field: "a" * longest}).status_code == 200
            answer = client.post(TEXT_TO_IMAGE, json={field: "a" * (longest + 1)})
            assert answer.status_code == 422
            assert answer.json()["detail"][0]["loc"] == ["body", field]


def test_answers_are_as_published(client: TestClient, published: dict[str, Any]) -> None:
    """The keys of real answers, in the order in which they are published."""
    client.post(TEXT_TO_IMAGE, json={})
    job = client.get(
        "/v1/generation/query-job", params={"job_id": client.get("/v1/generation/job-queue").json()["last_job_id"]}
    )
    schemas = published["components"]["schemas"]
    assert list(job.json()) == list(schemas["AsyncJobResponse"]["properties"])
    assert list(job.json()["job_result"][0]) == list(schemas["GeneratedImageResult"]["properties"])
