"""``--auto-download`` from the request to the picture, with a checkpoint from a server on the loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fooocus_core.engine import Engine as CoreEngine
from fooocus_core.events import Event, Failed, Finished, ImageFinished, Progress
from fooocus_core.library import POCKET_NAME, Library
from fooocus_core.plan import Plan
from fooocus_core.presets.config_file import read_config
from fooocus_core.presets.preset import load_preset
from fooocus_core.request import GenerationRequest
from fooocusapi import engine_maker
from fooocusapi.engine_maker import make_core_engine
from fooocusapi.runtime import Runtime
from fooocusapi.settings import Settings
from tests.fooocus_core.models.tiny import write_checkpoint
from tests.fooocusapi.fakes import ScriptedEngine
from tests.fooocusapi.file_server import FileServer, file_server, refused, sent

NAME = "tiny.safetensors"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture
def settings(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(engine_maker, "_load_ahead", lambda *_: None)
    config = tmp_path / "config.txt"
    config.write_text(json.dumps({"checkpoint_downloads": {NAME: server.url}}), encoding="utf-8")
    return Settings(
        models_root=tmp_path / "models",
        output_path=tmp_path / "outputs",
        presets_path=tmp_path / "presets",
        config_path=config,
        device="cpu",
        auto_download=True,
    )


def planned(settings: Settings, checkpoint: str | None) -> Plan:
    runtime = Runtime(settings, lambda *_: ScriptedEngine())
    try:
        return runtime.open().resolve(
            GenerationRequest(prompt="a", checkpoint=checkpoint, width_px=64, height_px=64, overwrite_steps=1)
        )
    finally:
        runtime.close()


def events_of(settings: Settings, plan: Plan) -> list[Event]:
    config = read_config(settings.config_path)
    engine = make_core_engine(settings, Library.below(settings.models_root), load_preset("pocket"), config)
    assert isinstance(engine, CoreEngine)
    return list(engine.run(plan, lambda: False))


def test_a_checkpoint_that_a_request_names_is_fetched_and_used(
    settings: Settings, server: FileServer, tmp_path: Path
) -> None:
    published = tmp_path / "published.safetensors"
    write_checkpoint(published)
    server.answers = [sent(published.read_bytes(), stop_after=5000), sent(published.read_bytes())]
    plan = planned(settings, "tiny")
    assert plan.stages[0].models.checkpoint == NAME
    events = events_of(settings, plan)
    assert events[-1] == Finished()
    assert any(isinstance(event, ImageFinished) for event in events)
    texts = [event.text for event in events if isinstance(event, Progress)]
    assert texts[0].startswith(f"Downloading {NAME}: 0 % of ")
    assert (settings.models_root / "checkpoints" / NAME).read_bytes() == published.read_bytes()
    assert len(server.asked) == 2


def test_what_cannot_be_fetched_fails_the_job_alone(settings: Settings, server: FileServer) -> None:
    server.answers = [refused(404)]
    ending = events_of(settings, planned(settings, NAME))[-1]
    assert isinstance(ending, Failed)
    assert ending.reason.startswith(f"{NAME} cannot be downloaded: 127.0.0.1 answered 404")


def test_without_the_setting_nothing_is_fetched(settings: Settings, server: FileServer) -> None:
    settings = settings.model_copy(update={"auto_download": False})
    assert planned(settings, NAME).stages[0].models.checkpoint == POCKET_NAME
    assert server.asked == []


def test_an_older_checkpoint_of_the_preset_is_used_and_no_newer_one_fetched(settings: Settings) -> None:
    older = settings.models_root / "checkpoints" / "deep" / "realisticStockPhoto_v10.safetensors"
    settings = settings.model_copy(update={"preset": "realistic"})
    assert planned(settings, None).stages[0].models.checkpoint == "realisticStockPhoto_v20.safetensors"
    older.parent.mkdir(parents=True)
    older.touch()
    assert planned(settings, None).stages[0].models.checkpoint == f"deep/{older.name}"


def test_a_server_without_checkpoints_stays_with_the_pocket_model(settings: Settings) -> None:
    assert planned(settings, None).stages[0].models.checkpoint == POCKET_NAME
