"""The table of models: read again when it changes, and never at the price of what worked before."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fooocusapi.surfaces.tams.model_table import ModelTable, read_table


def write(path: Path, text: str, at_s: int) -> None:
    path.write_text(text, encoding="utf-8")
    os.utime(path, (at_s, at_s))


def test_the_bundled_table_has_what_the_vendors_bodies_name(tmp_path: Path) -> None:
    table = ModelTable(tmp_path / "none.json").current()
    assert {table.models[number].type for number in ("600423083519508503", "681693017352010007")} == {"CHECKPOINT"}
    assert table.checkpoint("1") is table.models[table.default_checkpoint]
    assert table.named("upscalers", " r-esrgan 4X+ ") == "RealESRGAN_x4plus.pth"


def test_a_changed_file_counts_at_once_and_a_broken_one_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "table.json"
    table = ModelTable(path)
    assert "7" not in table.current().models
    write(path, json.dumps({"models": {"7": {"file": "a.safetensors"}}}), 1)
    assert table.current().models["7"].file == "a.safetensors"
    assert table.current().checkpoint("8") is None
    write(path, "{", 2)
    assert table.current().models["7"].file == "a.safetensors"
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ([], "object"),
        ({"models": {"7": {"file": "../a.safetensors"}}}, "models.7.file"),
        ({"models": {"7": {"file": "/a.safetensors"}}}, "models.7.file"),
        ({"models": {"7": {"file": "C:\\a.safetensors"}}}, "models.7.file"),
        ({"models": {"7": {"type": "BRUSH"}}}, "models.7.type"),
        ({"models": {"7": 1}}, "models.7"),
        ({"models": []}, ""),
        ({"models": [1]}, "models"),
        ({"upscalers": {"Mine": "../x"}}, "upscalers.Mine"),
        ({"vaes": {"Mine": 1}}, "vaes.Mine"),
        ({"defaultCheckpoint": "7"}, "defaultCheckpoint"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, values: object, place: str) -> None:
    path = tmp_path / "table.json"
    write(path, json.dumps(values), 1)
    if not place:
        assert read_table(path).models == {}
        return
    with pytest.raises(ValueError, match=place):
        read_table(path)
