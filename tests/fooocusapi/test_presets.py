"""Presets by the names that requests give: which one is meant, and files that change while the server runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fooocus_core.presets.preset import Preset, load_preset
from fooocusapi.presets import NamedPresets

OWN = Preset("own", checkpoint="own.safetensors")


@pytest.fixture
def loaded() -> list[str]:
    """The names that were read from files."""
    return []


@pytest.fixture
def presets(tmp_path: Path, loaded: list[str]) -> NamedPresets:
    def load(name: str) -> Preset:
        loaded.append(name)
        return load_preset(name, [tmp_path])

    return NamedPresets(OWN, load, [tmp_path])


def write(folder: Path, scale: float, *, changed_ns: int) -> None:
    path = folder / "mine.json"
    path.write_text(json.dumps({"default_cfg_scale": scale}), encoding="utf-8")
    os.utime(path, ns=(changed_ns, changed_ns))


@pytest.mark.parametrize("name", [None, "", "initial", " Initial "])
def test_no_name_is_the_servers_own(presets: NamedPresets, name: str | None) -> None:
    assert presets.chosen(name) is OWN


def test_an_unknown_name_is_the_servers_own_and_the_log_says_so(
    presets: NamedPresets, caplog: pytest.LogCaptureFixture
) -> None:
    assert presets.chosen("absent") is OWN
    assert presets.chosen("../default") is OWN
    assert "unknown name 'absent'" in caplog.text


def test_names_are_found_in_any_case(presets: NamedPresets) -> None:
    assert presets.chosen("Realistic").name == "realistic"
    assert presets.chosen(" ANIME ").guidance.scale == 6


def test_a_file_is_read_once_and_again_when_it_has_changed(
    presets: NamedPresets, loaded: list[str], tmp_path: Path
) -> None:
    assert presets.chosen("mine") is OWN
    write(tmp_path, 9, changed_ns=10**18)
    assert [presets.chosen("mine").guidance.scale for _ in range(3)] == [9, 9, 9]
    assert loaded == ["mine", "mine"]
    write(tmp_path, 8, changed_ns=2 * 10**18)
    assert presets.chosen("mine").guidance.scale == 8
    (tmp_path / "mine.json").unlink()
    assert presets.chosen("mine") is OWN
