"""The real engine has what the settings and ``config.txt`` say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fooocus_core.engine import Engine as CoreEngine
from fooocus_core.library import Library
from fooocus_core.presets.config_file import read_config
from fooocus_core.presets.preset import load_preset
from fooocusapi import engine_maker
from fooocusapi.engine_maker import load_wildcards, make_core_engine
from fooocusapi.settings import Settings
from tests.fooocus_core.prompts.expansion_folder import write_expansion_folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        models_root=tmp_path / "models",
        output_path=tmp_path / "outputs",
        styles_path=tmp_path / "styles",
        wildcards_path=tmp_path / "words",
        presets_path=tmp_path / "presets",
        config_path=tmp_path / "config.txt",
        device="cpu",
    )


def test_word_lists_of_the_user_then_of_the_configured_folder_then_the_bundled_ones(
    settings: Settings, tmp_path: Path
) -> None:
    for folder, names in (("words", ["color"]), ("theirs", ["color", "hat"])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.txt").write_text(folder, encoding="utf-8")
    settings.config_path.write_text(json.dumps({"path_wildcards": str(tmp_path / "theirs")}), encoding="utf-8")
    wildcards = load_wildcards(settings, read_config(settings.config_path))
    assert wildcards.lines("color") == ["words"]
    assert wildcards.lines("hat") == ["theirs"]
    assert "cat" in wildcards.lines("animal")


@pytest.mark.parametrize("is_configured", [False, True])
def test_the_prompt_expansion_is_found(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_configured: bool
) -> None:
    monkeypatch.setattr(engine_maker, "_load_ahead", lambda *_: None)
    usual = settings.models_root / "prompt_expansion" / "fooocus_expansion"
    folder = write_expansion_folder(tmp_path / "theirs" if is_configured else usual)
    values = {"path_fooocus_expansion": str(folder)} if is_configured else {}
    settings.config_path.write_text(json.dumps(values), encoding="utf-8")
    config = read_config(settings.config_path)
    engine = make_core_engine(settings, Library.below(settings.models_root), load_preset("pocket"), config)
    assert isinstance(engine, CoreEngine)
    assert engine.expansion is not None
    assert (engine.expansion("a ban", 1) or "").startswith("a ban,")


@pytest.mark.parametrize("at_once", [1, 4])
def test_how_many_pictures_are_painted_together_is_a_setting(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(engine_maker, "_load_ahead", lambda *_: None)
    asked = settings.model_copy(update={"pictures_at_once": at_once})
    engine = make_core_engine(asked, Library.below(settings.models_root), load_preset("pocket"))
    assert isinstance(engine, CoreEngine)
    assert engine.pictures_at_once == at_once
