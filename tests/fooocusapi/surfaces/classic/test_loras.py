"""LoRAs and embeddings over HTTP, through the real engine with the model that ships with the project."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors import safe_open
from safetensors.torch import save_file

from fooocus_core.library import POCKET_FOLDER, POCKET_NAME, Library
from fooocus_core.presets.preset import load_preset
from fooocusapi.app import create_app
from fooocusapi.engine_maker import make_core_engine
from fooocusapi.runtime import Runtime
from fooocusapi.settings import Settings
from tests.fooocus_core.adapters.lora_files import foreign_tensors, lora_tensors, write_lora
from tests.fooocusapi.served import TEXT_TO_IMAGE, finished, pixels_of, wait_until

UNET_WEIGHT = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"
BODY = {
    "prompt": "a red apple",
    "image_seed": 7,
    "aspect_ratios_selection": "96*96",
    "advanced_params": {"overwrite_step": 1, "sharpness": 0},
}


def unet_width() -> int:
    with safe_open(POCKET_FOLDER / POCKET_NAME, framework="pt") as file:
        return int(file.get_slice(UNET_WEIGHT).get_shape()[0])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    paint = lora_tensors({"unet": unet_width()})
    write_lora(root / "loras" / "paint.safetensors", paint)
    write_lora(root / "loras" / "sub" / "ink.safetensors", paint)
    write_lora(root / "loras" / "foreign.safetensors", foreign_tensors(20))
    (root / "loras" / "cut.safetensors").write_bytes((root / "loras" / "paint.safetensors").read_bytes()[:-1])
    (root / "embeddings").mkdir()
    vectors = {"clip_l": torch.ones(1, 4), "clip_g": torch.ones(1, 4)}
    save_file(vectors, root / "embeddings" / "foreign.safetensors")
    (root / "embeddings" / "cut.pt").write_bytes(b"cut")
    return root


@pytest.fixture(scope="module")
def client(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("server")
    settings = Settings(
        models_root=models,
        output_path=folder / "outputs",
        styles_path=folder / "styles",
        wildcards_path=folder / "wildcards",
        config_path=folder / "config.txt",
        device="cpu",
    )
    # Made here, so that the heavy imports count against no test's patience.
    engine = make_core_engine(settings, Library.below(models), load_preset("pocket"))
    with TestClient(
        create_app(settings, Runtime(settings, lambda *_: engine).open), raise_server_exceptions=False
    ) as client:
        wait_until(lambda: client.get("/readyz").json()["status"] != "starting")
        yield client


def slot(name: str, weight: float = 1.0, **fields: Any) -> dict[str, Any]:
    return {"model_name": name, "weight": weight, **fields}


def picture(client: TestClient, *loras: dict[str, Any], **fields: Any) -> bytes:
    """The pixels of one picture with these LoRA slots."""
    answer = client.post(TEXT_TO_IMAGE, json={**BODY, "loras": list(loras), **fields}, headers={"accept": "image/png"})
    assert answer.status_code == 200, answer.text
    return pixels_of(answer.content).tobytes()


def reason(client: TestClient, **fields: Any) -> str:
    """Why the job fails."""
    job_id = client.post(TEXT_TO_IMAGE, json={**BODY, "async_process": True, **fields}).json()["job_id"]
    job = finished(client, job_id)
    assert (job["job_stage"], job["job_result"]) == ("ERROR", None)
    return str(job["job_status"])


@pytest.fixture(scope="module")
def plain(client: TestClient) -> bytes:
    return picture(client)


@pytest.fixture(scope="module")
def painted(client: TestClient) -> bytes:
    return picture(client, slot("paint.safetensors"))


def test_the_folder_is_listed(client: TestClient) -> None:
    assert client.get("/v1/engines/all-models").json() == {
        "model_filenames": [POCKET_NAME],
        "lora_filenames": ["sub/ink.safetensors", "cut.safetensors", "foreign.safetensors", "paint.safetensors"],
    }


def test_a_lora_changes_the_picture(client: TestClient, plain: bytes, painted: bytes) -> None:
    assert painted != plain
    assert picture(client, slot("paint.safetensors", -2)) not in (plain, painted)
    assert picture(client) == plain


@pytest.mark.parametrize(
    "empty",
    [
        slot("paint.safetensors", 0),
        slot("paint.safetensors", enabled=False),
        slot("None"),
        slot(""),
        slot("unknown.safetensors"),
    ],
)
def test_a_slot_that_changes_nothing(client: TestClient, plain: bytes, empty: dict[str, Any]) -> None:
    assert picture(client, empty) == plain


@pytest.mark.parametrize("name", ["paint", "sub/ink.safetensors", "sub\\ink.safetensors", "ink"])
def test_the_ways_to_name_a_file(client: TestClient, painted: bytes, name: str) -> None:
    assert picture(client, slot(name)) == painted


def test_a_tag_in_the_prompt(client: TestClient, plain: bytes, painted: bytes) -> None:
    assert picture(client, prompt="a red apple <lora:paint:1.0>") == painted
    assert picture(client, prompt="a red apple <lora:unknown:1.0>") == plain


def test_six_slots_are_five(client: TestClient, plain: bytes) -> None:
    assert picture(client, *[slot("None")] * 5, slot("paint.safetensors")) == plain


@pytest.mark.parametrize("weight", [-2.01, 2.01, "much"])
def test_a_weight_outside_its_range_is_refused(client: TestClient, weight: Any) -> None:
    answer = client.post(TEXT_TO_IMAGE, json={**BODY, "loras": [slot("paint.safetensors", weight)]})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][:2] == ["body", "loras"]


def test_metadata_names_the_file(client: TestClient) -> None:
    body = {**BODY, "loras": [slot("paint.safetensors", 0.5)], "save_meta": True, "meta_scheme": "fooocus"}
    url = client.post(TEXT_TO_IMAGE, json=body).json()[0]["url"]
    data = client.get(url.partition("8888")[2]).content
    text = data[data.index(b"parameters\0") + len(b"parameters\0") :]
    meta = json.JSONDecoder().raw_decode(text.decode("latin-1"))[0]
    assert meta["lora_combined_1"] == "paint : 0.5"
    assert [entry[:2] for entry in meta["loras"]] == [["paint", 0.5]]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"loras": [slot("foreign.safetensors")]},
            "foreign.safetensors: made for another kind of model: 20 of its 20 keys fit nothing here",
        ),
        ({"loras": [slot("cut.safetensors")]}, "cut.safetensors: not a complete safetensors file"),
        ({"prompt": "a red apple <lora:cut:1>"}, "cut.safetensors: not a complete safetensors file"),
        ({"prompt": "a red embedding:cut"}, "cut.pt: not a file of plain tensors"),
    ],
)
def test_a_file_that_cannot_be_used_fails_the_job_by_its_name(
    client: TestClient, plain: bytes, fields: dict[str, Any], expected: str
) -> None:
    assert reason(client, **fields).startswith(expected)
    assert picture(client) == plain


def test_an_embedding_for_another_model_is_padding(client: TestClient) -> None:
    """Its vectors have the width of neither encoder."""
    assert picture(client, prompt="a red embedding:foreign") == picture(client, prompt="a red")


@pytest.mark.parametrize("mode", ["Extreme Speed", "Lightning", "Hyper-SD"])
def test_distilled_modes_without_their_files(client: TestClient, mode: str) -> None:
    assert picture(client, performance_selection=mode)
