"""What a user puts beside the models is found by the server that is joined together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fooocusapi.runtime import Runtime, load_wildcards
from fooocusapi.settings import Settings
from tests.fooocusapi.fakes import ScriptedEngine


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        models_root=tmp_path / "models",
        output_path=tmp_path / "outputs",
        styles_path=tmp_path / "styles",
        wildcards_path=tmp_path / "words",
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


def test_word_lists_of_the_user_then_of_the_configured_folder_then_the_bundled_ones(
    settings: Settings, tmp_path: Path
) -> None:
    for folder, names in (("words", ["color"]), ("theirs", ["color", "hat"])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.txt").write_text(folder, encoding="utf-8")
    settings.config_path.write_text(json.dumps({"path_wildcards": str(tmp_path / "theirs")}), encoding="utf-8")
    wildcards = load_wildcards(settings)
    assert wildcards.lines("color") == ["words"]
    assert wildcards.lines("hat") == ["theirs"]
    assert "cat" in wildcards.lines("animal")
