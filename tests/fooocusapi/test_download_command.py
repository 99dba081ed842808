"""``main.py download``: what is meant by the names, what is told, what is on disk afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fooocus_core.model_files.catalogue import Catalogue
from fooocus_core.presets.preset import list_downloads, load_preset
from fooocusapi import cli
from fooocusapi.download_command import UnknownFile, chosen_files
from tests.fooocusapi.file_server import CONTENT, FileServer, file_server, refused


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.of(list_downloads())


def test_a_presets_files_and_its_modes_lora(catalogue: Catalogue) -> None:
    def names(preset: str) -> list[str]:
        return [file.name for file in chosen_files(catalogue, [], load_preset(preset))]

    assert names("pony_v6") == ["ponyDiffusionV6XL.safetensors", "ponyDiffusionV6XL_vae.safetensors"]
    assert names("lcm") == ["juggernautXL_v8Rundiffusion.safetensors", "sdxl_lcm_lora.safetensors"]
    assert names("pocket") == []


def test_a_file_is_meant_once(catalogue: Catalogue) -> None:
    assert len(chosen_files(catalogue, ["xlvaeapp", "vae_approx", "xlvaeapp.pth"])) == 3


def test_an_unknown_name_is_told_with_what_comes_near(catalogue: Catalogue) -> None:
    with pytest.raises(UnknownFile, match=r"'sdxl_lcm_lore'; near it: sdxl_lcm_lora\.safetensors"):
        chosen_files(catalogue, ["xlvaeapp", "sdxl_lcm_lore"])


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture
def flags(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A models' folder, and a configuration that publishes two LoRAs."""
    monkeypatch.setenv("NO_PROXY", "*")
    config, models = tmp_path / "config.txt", tmp_path / "models"
    config.write_text(
        json.dumps({"lora_downloads": {"one.safetensors": server.url, "two.safetensors": server.url}}), encoding="utf-8"
    )
    return ["--models-root", str(models), "--config-path", str(config), "--presets-path", str(tmp_path / "presets")]


def test_files_are_fetched_into_the_models_folder(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], server: FileServer
) -> None:
    assert cli.main(["download", *flags, "one", "loras/two.safetensors"]) == 0
    loras = tmp_path / "models" / "loras"
    assert {path.name: path.read_bytes() for path in loras.iterdir()} == {
        "one.safetensors": CONTENT,
        "two.safetensors": CONTENT,
    }
    assert "one.safetensors" in capsys.readouterr().out
    assert cli.main(["download", "one", *flags]) == 0
    assert "loras/one.safetensors is there" in capsys.readouterr().out
    assert len(server.asked) == 2


def test_fooocus_own_tree_is_used_as_it_is(flags: list[str], tmp_path: Path, server: FileServer) -> None:
    theirs = tmp_path / "Fooocus" / "models" / "loras"
    (theirs / "people").mkdir(parents=True)
    (theirs / "people" / "one.safetensors").touch()
    values = json.loads((tmp_path / "config.txt").read_text(encoding="utf-8"))
    values["path_loras"] = [str(theirs), str(tmp_path / "elsewhere")]
    (tmp_path / "config.txt").write_text(json.dumps(values), encoding="utf-8")
    assert cli.main(["download", *flags, "one", "two"]) == 0
    assert sorted(path.name for path in theirs.iterdir()) == ["people", "two.safetensors"]
    assert len(server.asked) == 1


def test_one_that_fails_stops_none_of_the_others(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], server: FileServer
) -> None:
    server.answers.append(refused(404))
    assert cli.main(["download", *flags, "one", "two"]) == 1
    assert "one.safetensors cannot be downloaded: 127.0.0.1 answered 404" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "models" / "loras").iterdir()] == ["two.safetensors"]


def test_a_presets_files(flags: list[str], tmp_path: Path, server: FileServer) -> None:
    preset = {"checkpoint_downloads": {"own.safetensors": server.url}, "lora_downloads": {}, "vae_downloads": {}}
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "mine.json").write_text(json.dumps(preset), encoding="utf-8")
    assert cli.main(["download", *flags, "--preset", "Mine"]) == 0
    assert (tmp_path / "models" / "checkpoints" / "own.safetensors").read_bytes() == CONTENT


def test_the_list_shows_what_is_there(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], server: FileServer
) -> None:
    (tmp_path / "models" / "loras").mkdir(parents=True)
    (tmp_path / "models" / "loras" / "one.safetensors").touch()
    assert cli.main(["download", "--list", *flags]) == 0
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert lines["loras/one.safetensors"] == ["on", "disk", server.url]
    assert lines["loras/two.safetensors"] == [server.url]
    assert lines["sam/sam_vit_b_01ec64.pth"][:2] == ["375.0", "MB"]
    assert server.asked == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gone"], "no published file is called 'gone'"),
        (["--preset", "gone"], "preset: unknown name 'gone'"),
        (["one", "--port", "x"], "--port / FOOOCUSAPI_PORT"),
    ],
)
def test_what_is_not_understood_is_told(
    flags: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert cli.main(["download", *arguments, *flags]) == 1
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--turbo"]])
def test_a_wrong_line_shows_how_it_is_used(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["download", *arguments])
    assert ended.value.code == 2
    assert "main.py download" in capsys.readouterr().err


def test_help_is_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["download", "--help"]) == 0
    told = capsys.readouterr().out
    assert "--list" in told
    assert "--queue-size" not in told
