"""Unsafe pictures over HTTP, through the real engine and a safety checker that finds everything or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fooocus_core.library import Library
from fooocus_core.presets.preset import load_preset
from fooocus_core.request import GenerationRequest
from fooocusapi.app import create_app
from fooocusapi.engine_maker import make_core_engine
from fooocusapi.runtime import Runtime
from fooocusapi.settings import Settings
from tests.fooocus_core.filter.files import ALWAYS, NEVER, write_checker
from tests.fooocusapi.fakes import ScriptedEngine
from tests.fooocusapi.served import TEXT_TO_IMAGE, pixels_of, wait_until

BODY = {"prompt": "a red apple", "image_seed": 7, "aspect_ratios_selection": "96*112"}
CONTROLS = {"overwrite_step": 1, "sharpness": 0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


def settings_of(root: Path, **others: Any) -> Settings:
    return Settings(
        models_root=root / "models",
        output_path=root / "outputs",
        styles_path=root / "styles",
        wildcards_path=root / "wildcards",
        presets_path=root / "presets",
        config_path=root / "config.txt",
        device="cpu",
        **others,
    )


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[TestClient]:
    settings = settings_of(root)
    engine = make_core_engine(settings, Library.below(settings.models_root), load_preset("pocket"))
    app = create_app(settings, Runtime(settings, lambda *_: engine).open)
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/readyz").json()["status"] != "starting")
        yield client


def picture(client: TestClient, *, black_out_nsfw: bool) -> Any:
    body = {**BODY, "advanced_params": {**CONTROLS, "black_out_nsfw": black_out_nsfw}}
    answer = client.post(TEXT_TO_IMAGE, json=body, headers={"accept": "image/png"})
    assert answer.status_code == 200, answer.text
    return pixels_of(answer.content)


def test_an_unsafe_picture_is_black_and_of_its_own_size(client: TestClient, root: Path) -> None:
    write_checker(root / "models", ALWAYS)
    black = picture(client, black_out_nsfw=True)
    assert (black.shape, int(black.max())) == ((112, 96, 3), 0)
    assert picture(client, black_out_nsfw=False).any()


def test_the_unified_dialect_asks_alike(client: TestClient, root: Path) -> None:
    write_checker(root / "models", ALWAYS)
    body = {**BODY, "overwrite_step": 1, "sharpness": 0, "black_out_nsfw": True, "stream_output": True}
    stream = client.post("/v1/engine/generate", json=body).text
    events = [json.loads(line.removeprefix("data: ")) for line in stream.splitlines() if line.startswith("data: {")]
    assert {event["preview"] for event in events} == {None}
    (address,) = events[-1]["images"]
    assert not pixels_of(client.get(address).content).any()


def test_a_safe_picture_is_shown(client: TestClient, root: Path) -> None:
    """By the packaged judge, and by one that finds nothing."""
    shown = picture(client, black_out_nsfw=False)
    for threshold in (None, NEVER):
        (root / "models" / "safety_checker").mkdir(parents=True, exist_ok=True)
        for path in (root / "models" / "safety_checker").iterdir():
            path.unlink()
        if threshold is not None:
            write_checker(root / "models", threshold)
        client.get("/v1/engines/clean_vram")
        assert (picture(client, black_out_nsfw=True) == shown).all()


def test_a_broken_checker_fails_the_job_and_shows_nothing(client: TestClient, root: Path) -> None:
    write_checker(root / "models").write_bytes(b"cut")
    client.get("/v1/engines/clean_vram")
    body = {**BODY, "advanced_params": {**CONTROLS, "black_out_nsfw": True}}
    (result,) = client.post(TEXT_TO_IMAGE, json=body).json()
    assert (result["finish_reason"], result["url"]) == ("ERROR", None)


@pytest.mark.parametrize(
    ("settings", "config", "is_on"),
    [
        ({}, {}, False),
        ({"black_out_nsfw": True}, {}, True),
        ({}, {"default_black_out_nsfw": True}, True),
        ({"black_out_nsfw": True}, {"default_black_out_nsfw": False}, True),
    ],
)
def test_the_server_may_judge_every_picture(
    tmp_path: Path, settings: dict[str, Any], config: dict[str, Any], is_on: bool
) -> None:
    made = settings_of(tmp_path, **settings)
    made.config_path.write_text(json.dumps(config), encoding="utf-8")
    runtime = Runtime(made, lambda *_: ScriptedEngine())
    assert runtime.open().resolve(GenerationRequest()).output.black_out_nsfw is is_on
    runtime.close()
