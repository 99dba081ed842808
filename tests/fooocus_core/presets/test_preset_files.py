"""Preset files: the facts of the bundled ones, and that nothing written by hand stops the server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fooocus_core.errors import InvalidRequest
from fooocus_core.plan import Lora
from fooocus_core.presets.config_file import Config, Layer
from fooocus_core.presets.preset import (
    Preset,
    choose_default_preset,
    list_presets,
    load_preset,
    preset_from_layers,
)
from fooocus_core.presets.sizes import ASPECT_RATIOS, Size, SizeLimits, fit_size, parse_size

BUNDLED = ["anime", "default", "lcm", "lightning", "playground_v2.5", "pocket", "pony_v6", "realistic", "sai"]
JUGGERNAUT = "juggernautXL_v8Rundiffusion.safetensors"


def test_list() -> None:
    assert list_presets() == ("initial", *BUNDLED)


# Specification 01, section 12: model, guidance scale, sampler, scheduler, performance, size, number of LoRAs.
FACTS = [
    ("default", JUGGERNAUT, 4.0, "dpmpp_2m_sde_gpu", "karras", "Speed", (1152, 896), 1),
    ("realistic", "realisticStockPhoto_v20.safetensors", 3.0, "dpmpp_2m_sde_gpu", "karras", "Speed", (896, 1152), 1),
    ("anime", "animaPencilXL_v500.safetensors", 6.0, "dpmpp_2m_sde_gpu", "karras", "Speed", (896, 1152), 0),
    ("lcm", JUGGERNAUT, 4.0, "dpmpp_2m_sde_gpu", "karras", "Extreme Speed", (1152, 896), 0),
    ("lightning", JUGGERNAUT, 4.0, "dpmpp_2m_sde_gpu", "karras", "Lightning", (1152, 896), 0),
    (
        "playground_v2.5",
        "playground-v2.5-1024px-aesthetic.fp16.safetensors",
        2.0,
        "dpmpp_2m",
        "edm_playground_v2.5",
        "Speed",
        (1024, 1024),
        0,
    ),
    ("pony_v6", "ponyDiffusionV6XL.safetensors", 7.0, "dpmpp_2m_sde_gpu", "karras", "Speed", (896, 1152), 0),
    ("sai", "sd_xl_base_1.0_0.9vae.safetensors", 7.0, "dpmpp_2m_sde_gpu", "karras", "Speed", (1152, 896), 1),
]


@pytest.mark.parametrize(("name", "checkpoint", "scale", "sampler", "scheduler", "performance", "size", "loras"), FACTS)
def test_facts(
    name: str, checkpoint: str, scale: float, sampler: str, scheduler: str, performance: str, size: Any, loras: int
) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert preset.checkpoint == checkpoint
    assert preset.guidance.scale == scale
    assert preset.guidance.sharpness == 2.0
    assert (preset.sampler, preset.scheduler, preset.performance) == (sampler, scheduler, performance)
    assert preset.size == size
    assert len(preset.loras) == loras
    assert preset.max_loras == 5
    assert preset.overwrite_steps is None


DEFAULT_STYLES = ("Fooocus V2", "Fooocus Enhance", "Fooocus Sharp")
STYLES = {
    "anime": ("Fooocus V2", "Fooocus Semi Realistic", "Fooocus Masterpiece"),
    "default": DEFAULT_STYLES,
    "lcm": DEFAULT_STYLES,
    "lightning": DEFAULT_STYLES,
    "playground_v2.5": ("Fooocus V2",),
    "pocket": (),
    "pony_v6": ("Fooocus Pony",),
    "realistic": ("Fooocus V2", "Fooocus Photograph", "Fooocus Negative"),
    "sai": ("Fooocus V2", "Fooocus Cinematic"),
}


def test_more_facts() -> None:
    assert load_preset("sai").refiner == "sd_xl_refiner_1.0_0.9vae.safetensors"
    assert load_preset("sai").refiner_switch == 0.75
    assert load_preset("pony_v6").vae == "ponyDiffusionV6XL_vae.safetensors"
    assert load_preset("default").loras == (Lora("sd_xl_offset_example-lora_1.0.safetensors", 0.1),)
    assert {name: load_preset(name).styles for name in BUNDLED} == STYLES
    assert load_preset("realistic").negative_prompt == (
        "unrealistic, saturated, high contrast, big nose, painting, drawing, sketch, cartoon, anime, manga, render, CG,"
        " 3d, watermark, signature, label"
    )
    assert load_preset("realistic").loras == (Lora("SDXL_FILM_PHOTOGRAPHY_STYLE_V1.safetensors", 0.25),)
    assert load_preset("sai").loras == (Lora("sd_xl_offset_example-lora_1.0.safetensors", 0.5),)
    for name in set(BUNDLED) - {"sai"}:
        assert (load_preset(name).refiner, load_preset(name).refiner_switch) == (None, 0.5)
    assert [len(load_preset(name).previous_checkpoints) for name in ("default", "anime", "realistic")] == [5, 7, 1]


def test_every_file_of_a_bundled_preset_is_published_somewhere() -> None:
    for name in BUNDLED:
        preset = load_preset(name)
        used = {preset.checkpoint, preset.refiner, preset.vae, *(lora.name for lora in preset.loras)} - {None}
        assert {download.name for download in preset.downloads} == used - {"pocket.safetensors"}
        for _, file, url in preset.downloads:
            assert url.startswith("https://")
            assert url.endswith(f"/{file}")


@pytest.mark.parametrize("value", [[], "x", {"a.safetensors": 5}])
def test_downloads_that_are_none_are_passed_over(tmp_path: Path, value: Any) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({"checkpoint_downloads": value}), encoding="utf-8")
    assert load_preset("mine", [tmp_path]).downloads == load_preset("default").downloads


def test_pocket_needs_nothing_else() -> None:
    pocket = load_preset("pocket")
    assert pocket.checkpoint == "pocket.safetensors"
    assert (pocket.loras, pocket.styles, pocket.refiner, pocket.vae) == ((), (), None, None)


def test_names_are_found_in_any_case_and_never_outside_the_folders(tmp_path: Path) -> None:
    (tmp_path / "outside.json").write_text("{}", encoding="utf-8")
    (tmp_path / "presets").mkdir()
    assert load_preset("ANIME").name == "anime"
    for name in ("../outside", "outside", str(tmp_path / "outside"), "", "a\0b", "default.json"):
        with pytest.raises(InvalidRequest, match="known: initial, anime"):
            load_preset(name, [tmp_path / "presets"])


def test_a_user_s_preset_wins_and_falls_back_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "Anime.json").write_text('{"default_cfg_scale": 9}', encoding="utf-8")
    config = Config(Layer("config.txt", {"default_sampler": "euler", "default_cfg_scale": 2}))
    preset = load_preset("anime", [tmp_path], config)
    assert preset.name == "Anime"
    assert (preset.guidance.scale, preset.sampler, preset.checkpoint) == (9.0, "euler", JUGGERNAUT)
    assert load_preset("initial", [tmp_path], config).guidance.scale == 2.0


@pytest.mark.parametrize(
    ("on_disk", "name", "checkpoint"),
    [
        (["pocket.safetensors"], "pocket", "pocket.safetensors"),
        ([], "pocket", "pocket.safetensors"),
        (["pocket.safetensors", JUGGERNAUT], "initial", JUGGERNAUT),
        (["xl/" + JUGGERNAUT], "initial", JUGGERNAUT),
        (["pocket.safetensors", "juggernautXL_v6Rundiffusion.safetensors"], "initial", JUGGERNAUT),
        (["other.safetensors", "pocket.safetensors"], "initial", "other.safetensors"),
    ],
)
def test_the_default_follows_what_is_on_disk(on_disk: list[str], name: str, checkpoint: str) -> None:
    preset = choose_default_preset(on_disk)
    assert (preset.name, preset.checkpoint) == (name, checkpoint)


SETTINGS = [
    "default_model",
    "previous_default_models",
    "default_loras",
    "default_cfg_scale",
    "default_styles",
    "default_vae",
    "default_performance",
    "default_aspect_ratio",
    "default_overwrite_step",
    "default_clip_skip",
    "default_sampler",
    "default_max_lora_number",
    "default_save_metadata_to_images",
    "default_output_format",
]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@settings(deadline=None)  # each unusable value is logged, which a busy machine may take long for
@given(st.dictionaries(st.sampled_from(SETTINGS), ANY_JSON))
def test_unusable_values_are_left_at_their_default(values: dict[str, Any]) -> None:
    preset = preset_from_layers("x", [Layer("x.json", values)])
    assert 1.0 <= preset.guidance.scale <= 30.0
    assert 1 <= preset.clip_skip <= 12
    assert all(-2.0 <= lora.weight <= 2.0 for lora in preset.loras)


@pytest.mark.parametrize("text", ["", "[", "[]", "null", '{"default_cfg_scale": NaN}', "{" * 5000])
def test_a_broken_file_is_the_default_preset(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.json").write_text(text, encoding="utf-8")
    assert load_preset("mine", [tmp_path]).guidance.scale == 4.0


def test_every_bundled_file_is_plain_json() -> None:
    folder = Path(list_presets.__code__.co_filename).parent
    for name in BUNDLED:
        assert isinstance(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")), dict)


def test_both_shapes_of_lora_slots() -> None:
    slots = [["two.st", 0.5], [True, "three.st", 1], [False, "off.st", 1.0], [True, "None", 1.0], [True, "big.st", 9]]
    preset = preset_from_layers("x", [Layer("x.json", {"default_loras": slots})])
    assert preset.loras == (Lora("two.st", 0.5), Lora("three.st", 1.0))


@pytest.mark.parametrize("sign", ["*", "\u00d7", "x", "X", " "])
@pytest.mark.parametrize("rest", ["", " ", ' <span style="x"> \u2223 9:7</span>', "|9:7"])
def test_ways_to_write_a_size(sign: str, rest: str) -> None:
    assert parse_size(f"1152{sign}896{rest}") == Size(1152, 896)


@given(st.text(max_size=30) | st.text(alphabet="0123456789 *x\u00d7-", max_size=12))
def test_any_text_is_a_size_or_is_refused(text: str) -> None:
    size = _size_or_field(lambda: parse_size(text, "aspect"))
    assert size == "aspect" or isinstance(size, Size)


@given(st.integers(-10, 5000), st.integers(-10, 5000))
def test_sizes_fit_the_grid_and_the_limits(width: int, height: int) -> None:
    limits = SizeLimits(max_side_px=2048, max_pixels=1024 * 1024)
    size = _size_or_field(lambda: fit_size(Size(width, height), limits))
    if isinstance(size, str):
        assert size in ("width_px", "height_px", "width_px, height_px")
    else:
        assert size == (width - width % 8, height - height % 8)


def _size_or_field(call: Callable[[], Size]) -> Size | str:
    """What ``call`` returns, or the field that it refuses."""
    try:
        return call()
    except InvalidRequest as error:
        return error.field


def test_offered_sizes() -> None:
    assert len(ASPECT_RATIOS) == 26
    assert Preset("x").size in [parse_size(text) for text in ASPECT_RATIOS]
    assert all(fit_size(parse_size(text), SizeLimits()) == parse_size(text) for text in ASPECT_RATIOS)
