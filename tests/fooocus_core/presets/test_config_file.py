"""``config.txt`` as the original program's users bring it: paths, defaults, their order, and everything unusable."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from fooocus_core.plan import Lora
from fooocus_core.presets.config_file import (
    BLACK_OUT_KEY,
    CONFIG_KEYS,
    OTHER_KEYS,
    TEXT_KEYS,
    Config,
    Layer,
    read_config,
)
from fooocus_core.presets.preset import choose_default_preset, load_preset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    return tmp_path


def written(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "config.txt"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def warnings(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)


def test_folders(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second, gone = (str(folder / name) for name in ("first", "second", "gone"))
    config = read_config(
        written(folder, {"path_checkpoints": [first, second, gone], "path_vae": first, "path_outputs": gone})
    )
    assert config.folders("path_checkpoints") == (Path(first), Path(second))
    assert warnings(caplog) == f"config.txt: path_checkpoints: there is no folder {gone}; left out"
    assert config.folders("path_vae") == (Path(first),)
    assert config.folders("path_loras") == ()
    assert config.new_folder("path_outputs") == Path(gone)
    assert config.new_folder("path_loras") is None


@pytest.mark.parametrize("value", [7, True, {"a": 1}, [1], ["ok", ""], "nul\0"])
def test_what_is_no_folder_is_named(folder: Path, caplog: pytest.LogCaptureFixture, value: Any) -> None:
    assert read_config(written(folder, {"path_loras": value})).folders("path_loras") == ()
    assert "config.txt: path_loras must be a folder or a list of folders" in warnings(caplog)


@pytest.mark.parametrize("value", ["", None])
def test_empty_paths_say_nothing(folder: Path, caplog: pytest.LogCaptureFixture, value: Any) -> None:
    assert read_config(written(folder, {"path_loras": value})).folders("path_loras") == ()
    assert not warnings(caplog)


def test_variables_stand_above_the_file(folder: Path) -> None:
    first, second = (str(folder / name) for name in ("first", "second"))
    path = written(folder, {"path_loras": first, "path_checkpoints": first})
    config = read_config(path, {"path_loras": second, "path_checkpoints": repr([first, second])})
    assert config.folders("path_loras") == (Path(second),)
    assert config.folders("path_checkpoints") == (Path(first), Path(second))


def test_the_order_of_the_places(folder: Path) -> None:
    (folder / "mine.json").write_text('{"default_cfg_scale": 9, "default_sampler": "euler"}', encoding="utf-8")
    values = {"default_cfg_scale": 8, "default_sampler": "heun", "default_clip_skip": 3, "default_prompt": "a hat"}
    config = read_config(written(folder, values), {"default_sampler": "lcm", "default_prompt": "7"})
    mine = load_preset("mine", [folder], config)
    assert (mine.sampler, mine.guidance.scale, mine.clip_skip, mine.scheduler) == ("lcm", 9.0, 3, "karras")
    assert mine.prompt == "7", "a variable that holds text is not read as a number"
    initial = load_preset("initial", [folder], config)
    assert (initial.sampler, initial.guidance.scale) == ("lcm", 8.0)


def test_the_author_and_the_step_of_the_switch(folder: Path) -> None:
    config = read_config(written(folder, {"metadata_created_by": "Ada", "default_overwrite_switch": 12}))
    initial = load_preset("initial", (), config)
    assert (initial.created_by, initial.overwrite_switch) == ("Ada", 12.0)
    (folder / "mine.json").write_text('{"default_overwrite_switch": -1}', encoding="utf-8")
    mine = load_preset("mine", [folder], config)
    assert (mine.created_by, mine.overwrite_switch) == ("Ada", None)


def test_variables_are_read_as_python_values() -> None:
    variables = {
        "default_loras": '[[True, "ink.safetensors", 0.5], ["None", 1.0]]',
        "default_cfg_scale": "5",
        "default_styles": "['Fooocus Sharp']",
        "default_save_metadata_to_images": "True",
        "default_clip_skip": "two",
    }
    preset = load_preset("default", (), read_config(Path("config.txt"), variables))
    assert preset.loras == (Lora("ink.safetensors", 0.5),)
    assert (preset.guidance.scale, preset.styles, preset.save_metadata) == (5.0, ("Fooocus Sharp",), True)
    assert (preset.max_loras, preset.clip_skip) == (2, 2)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("default_cfg_scale", "high", "a number from 1 to 30"),
        ("default_cfg_scale", 31, "a number from 1 to 30"),
        ("default_clip_skip", 2.5, "a whole number from 1 to 12"),
        ("default_sampler", "best", "one of euler"),
        ("default_performance", "Warp", "one of Quality, Speed"),
        ("default_styles", "Fooocus Sharp", "a list of texts"),
        ("default_model", 5, "a text"),
        ("default_aspect_ratio", "wide", "a size such as 1152*896"),
        ("default_save_metadata_to_images", 1, "true or false"),
        ("default_loras", {}, "a list of [enabled, name, weight]"),
        ("default_overwrite_switch", 201, "a number from -1 to 200"),
        ("metadata_created_by", ["Ada"], "a text"),
        ("default_max_lora_number", 0, "a whole number from 1 to 100"),
    ],
)
def test_an_unusable_value_is_named_and_the_next_default_counts(
    folder: Path, caplog: pytest.LogCaptureFixture, key: str, value: Any, expected: str
) -> None:
    config = read_config(written(folder, {key: value, "default_prompt": "kept"}))
    preset = load_preset("initial", (), config)
    assert f"config.txt: {key} must be {expected}" in warnings(caplog)
    assert preset == load_preset("initial", (), Config(Layer("", {"default_prompt": "kept"})))


def test_empty_texts_are_none_but_for_the_prompts(folder: Path) -> None:
    config = read_config(
        written(
            folder, {"default_model": "", "default_vae": "", "default_refiner": None, "default_prompt_negative": ""}
        )
    )
    preset = load_preset("initial", (), config)
    assert preset.checkpoint == load_preset("default").checkpoint
    assert (preset.vae, preset.refiner) == (None, None)
    assert load_preset("realistic", (), config).negative_prompt.startswith("unrealistic")
    (folder / "quiet.json").write_text('{"default_prompt": ""}', encoding="utf-8")
    assert load_preset("quiet", [folder], Config(Layer("", {"default_prompt": "a hat"}))).prompt == ""


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"path_loras": "C:\\models"}', "{" * 5000])
def test_a_broken_file_is_named_and_the_defaults_count(
    folder: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = folder / "config.txt"
    path.write_text(text, encoding="utf-8")
    config = read_config(path)
    assert "config.txt" in warnings(caplog)
    assert ("a backslash is written twice" in warnings(caplog)) == ("\\" in text)
    assert load_preset("initial", (), config) == load_preset("initial")


def test_no_file_is_no_message(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_config(folder / "config.txt").file.values == {}
    assert not warnings(caplog)


def test_the_weights_of_loras_may_be_wider(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    loras = {"default_loras": [[True, "ink.safetensors", 4]]}
    assert load_preset("initial", (), read_config(written(folder, loras))).loras == ()
    assert "'ink.safetensors' must have a weight from -2 to 2, got 4" in warnings(caplog)
    wide = load_preset("initial", (), read_config(written(folder, {**loras, "default_loras_max_weight": 5})))
    assert wide.loras == (Lora("ink.safetensors", 4.0),)
    crossed = read_config(written(folder, {"default_loras_min_weight": 3, "default_loras_max_weight": 1}))
    preset = load_preset("initial", (), crossed)
    assert (preset.min_lora_weight, preset.max_lora_weight) == (-2.0, 2.0)


def test_the_configured_model_is_the_default_if_it_is_there(folder: Path) -> None:
    config = read_config(written(folder, {"default_model": "mine.safetensors", "default_cfg_scale": 6}))
    assert (
        choose_default_preset(["mine.safetensors", "pocket.safetensors"], (), config).checkpoint == "mine.safetensors"
    )
    with_another = choose_default_preset(["another.safetensors", "pocket.safetensors"], (), config)
    assert (with_another.checkpoint, with_another.guidance.scale) == ("another.safetensors", 6.0)
    assert choose_default_preset(["pocket.safetensors"], (), config).name == "pocket"


def test_the_pocket_model_keeps_its_own_parts(folder: Path) -> None:
    values = {
        "default_vae": "pony_vae.safetensors",
        "default_refiner": "r.safetensors",
        "default_output_format": "webp",
    }
    pocket = load_preset("pocket", (), read_config(written(folder, values)))
    assert (pocket.vae, pocket.refiner, pocket.image_format) == (None, None, "webp")


def test_every_key_is_known_once() -> None:
    assert len(CONFIG_KEYS) == len(set(CONFIG_KEYS))
    source = Path(load_preset.__code__.co_filename).read_text(encoding="utf-8")
    assert all(f'"{key}"' in source for key in (*TEXT_KEYS, *OTHER_KEYS))


@pytest.mark.parametrize(
    ("variables", "values", "is_on"),
    [
        ({}, {}, False),
        ({}, {BLACK_OUT_KEY: True}, True),
        ({}, {BLACK_OUT_KEY: None}, False),
        ({BLACK_OUT_KEY: "True"}, {BLACK_OUT_KEY: False}, True),
        ({BLACK_OUT_KEY: "False"}, {BLACK_OUT_KEY: True}, False),
    ],
)
def test_a_switch_of_the_server(folder: Path, variables: dict[str, str], values: dict[str, Any], is_on: bool) -> None:
    assert read_config(written(folder, values), variables).is_on(BLACK_OUT_KEY) is is_on


def test_what_is_no_switch_is_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = read_config(written(folder, {BLACK_OUT_KEY: True}), {BLACK_OUT_KEY: "perhaps"})
    assert config.is_on(BLACK_OUT_KEY)
    assert warnings(caplog) == f"environment: {BLACK_OUT_KEY} must be true or false, got 'perhaps'; ignored"
