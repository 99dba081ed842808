"""The list of published files, and what is already there."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import get_args

import pytest

from fooocus_core.library import Library, ModelKind
from fooocus_core.model_files.catalogue import EXPANSION_FOLDER, Catalogue, ModelFile, ObtainableNames, Shelves
from fooocus_core.models.loaded import INTERPOSER_FILE, PREVIEW_FILE, REFINER_PREVIEW_FILE
from fooocus_core.presets.config_file import Config, Layer
from fooocus_core.presets.modes import MODES
from fooocus_core.presets.preset import Download, list_downloads, list_presets, load_preset
from fooocus_core.prompts.expansion import CONFIG_FILE, FOLDER, TOKENIZER_FILE, WEIGHT_FILES, WORD_FILE

WEB = "https://example.org"


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.of(list_downloads())


def test_every_file_has_a_place_and_an_address(catalogue: Catalogue) -> None:
    assert len(list(Catalogue.of())) >= 39
    for file in catalogue:
        assert file.folder in (*get_args(ModelKind), EXPANSION_FOLDER)
        assert PurePosixPath(file.name).name == file.name
        assert re.fullmatch(r"https://[a-z.]+/\S+", file.url)
        assert re.fullmatch(r"(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32})?", file.digest)
        assert file.size_bytes is None or file.size_bytes > 0


def test_the_specifications_renamed_files_and_sizes(catalogue: Catalogue) -> None:
    preview, expansion = (
        catalogue.find("vae_approx", "vaeapp_sd15.pth"),
        catalogue.find(EXPANSION_FOLDER, "pytorch_model"),
    )
    assert preview is not None
    assert preview.url == "https://huggingface.co/lllyasviel/misc/resolve/main/vaeapp_sd15.pt"
    assert expansion is not None
    assert expansion.url == "https://huggingface.co/lllyasviel/misc/resolve/main/fooocus_expansion.bin"
    assert (preview.size_bytes, expansion.size_bytes) == (213777, 351283802)


def test_everything_that_the_core_looks_for_is_known(catalogue: Catalogue) -> None:
    assert Path(EXPANSION_FOLDER) == FOLDER
    for name in (WEIGHT_FILES[-1], CONFIG_FILE, WORD_FILE, TOKENIZER_FILE):
        assert catalogue.find(EXPANSION_FOLDER, name), name
    for name in (INTERPOSER_FILE, PREVIEW_FILE, REFINER_PREVIEW_FILE):
        assert catalogue.find("vae_approx", name), name
    for mode in MODES.values():
        assert mode.lora is None or catalogue.find("loras", mode.lora.name)
    for preset in map(load_preset, list_presets()):
        assert preset.name == "pocket" or catalogue.find("checkpoints", preset.checkpoint), preset.name
        assert all(catalogue.find("loras", lora.name) for lora in preset.loras), preset.name


def test_the_weights_of_the_expansion_come_last(catalogue: Catalogue) -> None:
    """They are what says that the folder is complete."""
    assert catalogue.in_folder(EXPANSION_FOLDER)[-1].name == WEIGHT_FILES[-1]


def test_names_are_found_with_and_without_extension(catalogue: Catalogue) -> None:
    whole = catalogue.find("loras", "sdxl_lcm_lora.safetensors")
    assert whole is not None
    assert catalogue.find("loras", "sdxl_lcm_lora") == whole
    assert catalogue.find("checkpoints", "sdxl_lcm_lora") is None
    for name in (
        "sdxl_lcm_lora",
        "sdxl_lcm_lora.safetensors",
        "loras/sdxl_lcm_lora.safetensors",
        "loras\\sdxl_lcm_lora.safetensors",
    ):
        assert catalogue.asked_for(name) == [whole], name
    assert catalogue.asked_for("") == catalogue.asked_for("gone") == []


def test_a_folder_stands_for_its_files(catalogue: Catalogue) -> None:
    assert len(catalogue.asked_for("vae_approx")) == 3
    assert catalogue.asked_for("sam/") == catalogue.in_folder("sam")
    assert len(catalogue.asked_for("prompt_expansion/fooocus_expansion")) == 6


def test_the_first_address_of_a_file_counts(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({"lora_downloads": {"a.safetensors": f"{WEB}/preset"}}))
    config = Config(Layer("config.txt", {"lora_downloads": {"a.safetensors": f"{WEB}/config"}, "vae_downloads": {}}))
    downloads = list_downloads([tmp_path], config)
    addresses = [url for _, name, url in downloads if name == "a.safetensors"]
    assert addresses == [f"{WEB}/config", f"{WEB}/preset"]
    found = Catalogue.of(downloads).find("loras", "a")
    assert found is not None
    assert found.url == f"{WEB}/config"


# --- what is there --------------------------------------------------------------------------------------------------


@pytest.fixture
def shelves(tmp_path: Path) -> Shelves:
    return Shelves(Library.below(tmp_path), tmp_path / FOLDER)


@pytest.mark.parametrize(
    ("file", "place"),
    [
        (ModelFile("loras", "a.safetensors", WEB), "loras/a.safetensors"),
        (ModelFile("loras", "a.safetensors", WEB), "loras/deep/er/a.safetensors"),
        (ModelFile("inpaint", "a.fooocus.patch", WEB), "inpaint/a.fooocus.patch"),
        (ModelFile(EXPANSION_FOLDER, "config.json", WEB), f"{EXPANSION_FOLDER}/config.json"),
    ],
)
def test_what_is_on_disk_is_held(shelves: Shelves, tmp_path: Path, file: ModelFile, place: str) -> None:
    assert not shelves.holds(file)
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).touch()
    assert shelves.holds(file)


def test_of_several_folders_the_first_gets_the_new_files(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    shelves = Shelves(Library.below(tmp_path, {"loras": folders}), tmp_path / "theirs")
    assert shelves.folders("loras")[0] == folders[0]
    assert shelves.folders(EXPANSION_FOLDER) == (tmp_path / "theirs",)
    folders[1].mkdir()
    (folders[1] / "a.safetensors").touch()
    assert shelves.holds(ModelFile("loras", "a.safetensors", WEB))


def test_requests_may_name_what_can_be_fetched(tmp_path: Path) -> None:
    (tmp_path / "loras" / "deep").mkdir(parents=True)
    (tmp_path / "loras" / "deep" / "here.safetensors").touch()
    downloads = [Download("loras", "here.safetensors", WEB), Download("loras", "there.safetensors", WEB)]
    library = Library.below(tmp_path)
    names = ObtainableNames(library, Catalogue.of(downloads))
    assert names.find("loras", "here.safetensors") == "deep/here.safetensors"
    assert names.find("loras", "there") == "there.safetensors"
    assert names.find("loras", "nowhere") is None
    assert names.checkpoint_names() == library.checkpoint_names()
