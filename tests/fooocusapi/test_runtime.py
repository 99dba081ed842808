"""What a user puts beside the models is found by the server that is joined together."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fooocus_core.errors import InvalidRequest, UnreadableModel
from fooocus_core.events import Event, Finished, Progress
from fooocus_core.masks.options import MaskOptions
from fooocus_core.plan import PNG_LEVEL, Plan
from fooocus_core.request import AskedStart, GenerationRequest
from fooocusapi import runtime as runtime_module
from fooocusapi.jobs import caretaker
from fooocusapi.jobs.job import JobState
from fooocusapi.runtime import Runtime
from fooocusapi.settings import Settings, load_settings
from tests.fooocusapi.fakes import HandEngine, ScriptedEngine
from tests.fooocusapi.served import wait_until


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        models_root=tmp_path / "models",
        output_path=tmp_path / "outputs",
        styles_path=tmp_path / "styles",
        wildcards_path=tmp_path / "words",
        presets_path=tmp_path / "presets",
        config_path=tmp_path / "config.txt",
    )


@pytest.fixture
def runtime(settings: Settings) -> Iterator[Runtime]:
    made = Runtime(settings, lambda *_: ScriptedEngine())
    yield made
    made.close()


def test_the_user_s_styles_are_listed(settings: Settings, runtime: Runtime) -> None:
    settings.styles_path.mkdir()
    (settings.styles_path / "own.json").write_text(json.dumps([{"name": "my-own"}]), encoding="utf-8")
    names = runtime.open().style_names
    assert names[:4] == ("Fooocus V2", "Random Style", "My Own", "Fooocus Enhance")
    assert len(names) == 280


def test_a_broken_style_file_is_named_and_the_others_count(
    settings: Settings, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    settings.styles_path.mkdir()
    (settings.styles_path / "broken.json").write_text("[{", encoding="utf-8")
    (settings.styles_path / "whole.json").write_text(json.dumps([{"name": "my-own"}]), encoding="utf-8")
    assert "My Own" in runtime.open().style_names
    assert "broken.json" in caplog.text


def write_preset(settings: Settings, name: str, text: str) -> None:
    settings.presets_path.mkdir(exist_ok=True)
    (settings.presets_path / f"{name}.json").write_text(text, encoding="utf-8")


def test_a_preset_of_the_user_is_found_by_name(settings: Settings) -> None:
    write_preset(settings, "mine", json.dumps({"default_cfg_scale": 9, "default_styles": ["Fooocus Sharp"]}))
    write_preset(settings, "Anime", json.dumps({"default_cfg_scale": 8}))
    for name, scale in (("mine", 9), ("anime", 8)):
        chosen = settings.model_copy(update={"preset": name, "output_path": settings.output_path / name})
        runtime = Runtime(chosen, lambda *_: ScriptedEngine())
        assert runtime.open().preset.guidance.scale == scale
        runtime.close()


def test_a_broken_preset_is_named_and_the_rest_is_the_default(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    write_preset(settings, "mine", "{")
    runtime = Runtime(settings.model_copy(update={"preset": "mine"}), lambda *_: ScriptedEngine())
    assert runtime.open().preset.guidance.scale == 4
    assert "mine.json" in caplog.text
    runtime.close()


def test_a_request_may_name_another_preset(settings: Settings, runtime: Runtime) -> None:
    write_preset(settings, "mine", json.dumps({"default_cfg_scale": 9}))
    services = runtime.open()
    plans = [services.resolve(GenerationRequest(), services.presets.chosen(name)) for name in (None, "Mine")]
    assert [plan.stages[0].guidance.scale for plan in plans] == [services.preset.guidance.scale, 9]


def test_a_preset_that_is_nowhere_stops_the_start_and_names_the_known_ones(settings: Settings) -> None:
    write_preset(settings, "mine", "{}")
    with pytest.raises(InvalidRequest, match=r"preset: unknown name 'absent'.*mine"):
        Runtime(settings.model_copy(update={"preset": "absent"}), lambda *_: ScriptedEngine()).open()


def test_missing_files_of_the_preset_are_told_with_where_they_are_published(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = settings.models_root / "checkpoints"
    checkpoints.mkdir(parents=True)
    runtime = Runtime(settings.model_copy(update={"preset": "pony_v6"}), lambda *_: ScriptedEngine())
    runtime.open()
    runtime.close()
    for name in ("ponyDiffusionV6XL.safetensors", "ponyDiffusionV6XL_vae.safetensors"):
        assert f"preset pony_v6: {name} is not in" in caplog.text
    caplog.clear()
    (checkpoints / "animaPencilXL_v300.safetensors").touch()
    runtime = Runtime(settings.model_copy(update={"preset": "anime"}), lambda *_: ScriptedEngine())
    runtime.open()
    runtime.close()
    assert "published" not in caplog.text, "an older checkpoint will do"


def test_config_txt_moves_folders_and_defaults(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "fooocus"
    (theirs / "checkpoints").mkdir(parents=True)
    (theirs / "checkpoints" / "mine.safetensors").touch()
    values = {
        "path_checkpoints": str(theirs / "checkpoints"),
        "path_outputs": str(theirs / "pictures"),
        "default_model": "mine.safetensors",
        "default_cfg_scale": 6,
        "default_sampler": "heun",
    }
    settings.config_path.write_text(json.dumps(values), encoding="utf-8")
    monkeypatch.setenv("default_sampler", "euler")
    unset = Settings(**{name: getattr(settings, name) for name in settings.model_fields_set - {"output_path"}})
    runtime = Runtime(unset, lambda *_: ScriptedEngine())
    services = runtime.open()
    runtime.close()
    plan = services.resolve(GenerationRequest())
    assert plan.stages[0].models.checkpoint == "mine.safetensors"
    assert (plan.stages[0].guidance.scale, plan.stages[0].sampling.sampler) == (6.0, "euler")
    assert (theirs / "pictures" / "journal.db").is_file()
    assert not settings.output_path.exists()


def test_a_named_outputs_folder_stands_above_config_txt(settings: Settings, tmp_path: Path) -> None:
    settings.config_path.write_text(json.dumps({"path_outputs": str(tmp_path / "theirs")}), encoding="utf-8")
    runtime = Runtime(settings, lambda *_: ScriptedEngine())
    runtime.open()
    runtime.close()
    assert (settings.output_path / "journal.db").is_file()
    assert not (tmp_path / "theirs").exists()


@pytest.mark.parametrize(("level", "mark"), [(PNG_LEVEL, 0x01), (6, 0x9C)])
def test_how_hard_pngs_are_packed_is_a_setting(settings: Settings, level: int, mark: int) -> None:
    runtime = Runtime(settings.model_copy(update={"png_level": level}), lambda *_: ScriptedEngine())
    services = runtime.open()
    job = services.jobs.submit(services.resolve(GenerationRequest()), "classic", "", {})
    wait_until(lambda: (seen := services.jobs.get(job.id)) is not None and seen.state is JobState.SUCCEEDED)
    (file,) = settings.output_path.rglob("*.png")
    assert file.read_bytes().partition(b"IDAT")[2][1] == mark, "the level as the packed data itself tells it"
    runtime.close()


def test_masks_are_made_with_the_files_of_the_configured_folder(
    settings: Settings, runtime: Runtime, tmp_path: Path
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "silueta.onnx").write_bytes(b"no network")
    settings.config_path.write_text(json.dumps({"path_inpaint": str(tmp_path / "theirs")}), encoding="utf-8")
    services = runtime.open()
    with pytest.raises(UnreadableModel, match=r"silueta\.onnx"):
        services.masks.make(np.zeros((16, 16, 3), np.uint8), MaskOptions("silueta"))


def test_the_longest_prompt_is_a_setting(settings: Settings) -> None:
    runtime = Runtime(settings.model_copy(update={"max_prompt_characters": 5}), lambda *_: ScriptedEngine())
    resolve = runtime.open().resolve
    assert isinstance(resolve(GenerationRequest(prompt="apple", negative_prompt="xxxxx")), Plan)
    for field in ("prompt", "negative_prompt"):
        with pytest.raises(InvalidRequest, match=f"{field}: must be at most 5 characters, got 6"):
            resolve(GenerationRequest(**{field: "apples"}))
    runtime.close()


def test_a_step_that_outlasts_the_shutdown_costs_the_job_no_attempt(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "LET_GO_WITHIN_S", 0.0)
    engine = HandEngine()
    runtime = Runtime(settings, lambda *_: engine)
    services = runtime.open()
    job = services.jobs.submit(services.resolve(GenerationRequest()), "classic", "Text to Image", {})
    engine.begin()
    wait_until(services.jobs.is_running)
    runtime.drain()
    assert not runtime.is_settled
    after = services.jobs.get(job.id)
    assert after is not None
    assert (after.state.value, after.attempts) == ("waiting", 0)
    engine.play(Finished())  # Lets the thread go.


def test_pictures_that_were_sent_go_with_the_last_job_that_shows_them(settings: Settings) -> None:
    """The runtime hands jobs that the history has no room for to the store of what records show."""
    runtime = Runtime(settings.model_copy(update={"queue_history": 1}), lambda *_: ScriptedEngine())
    services = runtime.open()
    sent = services.shown.show(np.zeros((8, 8, 3), np.uint8))
    for context in ({"record": {"input_image": sent}}, {"again": sent}, {}):
        assert services.shown.find_by_url(sent) is not None
        job = services.jobs.submit(services.resolve(GenerationRequest()), "unified", "", context)
        wait_until(lambda wanted=job.id: [kept.id for kept in services.jobs.history()] == [wanted])  # type: ignore[misc]
    wait_until(lambda: services.shown.find_by_url(sent) is None)
    runtime.close()


def endless(plan: Plan) -> Iterator[Event]:
    """Goes on until it is stopped."""
    while True:
        time.sleep(0.002)
        yield Progress(0.0, "going on")


def test_the_begin_of_a_job_is_soon_on_the_disk(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it has got out of the journal's log: a job that brings the machine down again and again is found out."""
    monkeypatch.setattr(caretaker, "LOOKS_EVERY_S", 0.01)
    runtime = Runtime(settings, lambda *_: ScriptedEngine(endless))
    services = runtime.open()
    services.jobs.submit(services.resolve(GenerationRequest()), "classic", "", {})
    wait_until(services.jobs.is_running)
    wait_until(lambda: b"running" in (settings.output_path / "journal.db").read_bytes())
    runtime.close()


def test_a_picture_that_was_sent_is_there_after_a_restart_and_gone_after_its_job(settings: Settings) -> None:
    pixels = np.arange(64 * 72 * 3, dtype=np.uint8).reshape(64, 72, 3)
    before = Runtime(settings, lambda *_: ScriptedEngine(endless))
    services = before.open()
    services.kept.keep(pixels[:32])  # of a request that was lost before it became a job
    start = AskedStart(services.kept.keep(pixels), 72, 64, "Vary (Subtle)")
    job = services.jobs.submit(services.resolve(GenerationRequest(start=start)), "classic", "", {})
    wait_until(services.jobs.is_running)
    before.close()
    found: list[bool] = []

    def looking(plan: Plan) -> Iterator[Event]:
        (stage,) = plan.stages
        assert stage.start is not None
        found.append(np.array_equal(services.kept.read(stage.start.picture), pixels))
        yield Finished()

    after = Runtime(settings, lambda *_: ScriptedEngine(looking))
    services = after.open()
    wait_until(lambda: (seen := services.jobs.get(job.id)) is not None and seen.state is JobState.SUCCEEDED)
    after.close()
    assert found == [True]
    assert not list((settings.output_path / "inputs").iterdir())


def test_no_grace_unless_it_is_asked_for() -> None:
    assert load_settings({}).shutdown_grace_s == 0
