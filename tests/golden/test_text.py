"""Golden family I: texts, tasks, modes, metadata. Exact."""

from __future__ import annotations

import random
from datetime import datetime
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fooocus_core.metadata.files import encode_image
from fooocus_core.metadata.read import FileNames, SavedMetadata, parse_metadata, read_metadata
from fooocus_core.metadata.record import ImageRecord, RecordedLora
from fooocus_core.metadata.schemes import metadata_text
from fooocus_core.plan import Lora, Prompts
from fooocus_core.presets.modes import MODES, mode_of_steps
from fooocus_core.presets.preset import Preset
from fooocus_core.presets.sizes import SizeLimits, parse_size
from fooocus_core.prompts.arrays import pick_from_arrays
from fooocus_core.prompts.lines import safe_str
from fooocus_core.prompts.lora_tags import find_by_stem, merge_loras, take_lora_tags, tidy_commas
from fooocus_core.prompts.styles import RANDOM_STYLE, Style, StyleBook, display_name
from fooocus_core.prompts.tasks import prepare_stage, prepare_tasks
from fooocus_core.prompts.wildcards import Wildcards, fill_wildcards
from fooocus_core.request import GenerationRequest
from fooocus_core.resolve import resolve_request
from fooocusapi.images.names import fooocus_path
from tests.golden.vectors import GOLDEN_DIR, golden_json

FOLDER = "I_text"
OPS = golden_json(f"{FOLDER}/text_ops.json")
MODE_CASES = golden_json(f"{FOLDER}/modes.json")
METADATA = golden_json(f"{FOLDER}/metadata.json")
FILES = golden_json(f"{FOLDER}/metadata_files.json")
FILE_NAME_CASES = golden_json(f"{FOLDER}/file_names.json")["cases"]

STYLES = StyleBook(
    Style(display_name(entry["name"]), entry["prompt"], entry["negative_prompt"]) for entry in OPS["style_file"]
)
LORA_FILES = OPS["loras"][0]["files"]


@pytest.fixture(scope="module")
def wildcards(tmp_path_factory: pytest.TempPathFactory) -> Wildcards:
    folder = tmp_path_factory.mktemp("wildcards")
    for name, text in OPS["wildcard_files"].items():
        (folder / name).write_text(text, encoding="utf-8")
    return Wildcards((folder,))


def _loras(pairs: list[list[Any]]) -> tuple[Lora, ...]:
    return tuple(Lora(name, weight) for name, weight in pairs)


def _pairs(loras: tuple[Lora, ...]) -> list[list[Any]]:
    return [[lora.name, lora.weight] for lora in loras]


@pytest.mark.parametrize(("text", "expected"), OPS["safe_str"])
def test_safe_str(text: str, expected: str) -> None:
    assert safe_str(text) == expected


@pytest.mark.parametrize(("text", "expected"), OPS["clean"])
def test_punctuation(text: str, expected: str) -> None:
    assert tidy_commas(text) == expected


@pytest.mark.parametrize("case", OPS["arrays"])
def test_arrays(case: dict[str, Any]) -> None:
    assert pick_from_arrays(case["text"], case["index"]) == case["out"]


@pytest.mark.parametrize("case", OPS["wildcards"])
def test_wildcards(case: dict[str, Any], wildcards: Wildcards) -> None:
    rng = random.Random(int(case["seed"]))
    assert fill_wildcards(case["text"], wildcards, rng, case["index"], case["read_in_order"]) == case["out"]


@pytest.mark.parametrize(("name", "expected"), OPS["style_name_normalisation"])
def test_style_names(name: str, expected: str) -> None:
    assert display_name(name) == expected


@pytest.mark.parametrize(("name", "expected"), OPS["style_display_names"].items())
def test_style_names_of_the_file(name: str, expected: str) -> None:
    assert display_name(name) == expected
    assert expected in STYLES.names


@pytest.mark.parametrize("case", OPS["style_apply"])
def test_styles(case: dict[str, Any]) -> None:
    style = STYLES.find(case["style"])
    assert style is not None
    texts = style.apply(case["prompt"])
    assert list(texts.positive) == case["positive"]
    assert list(texts.negative) == case["negative"]
    assert texts.holds_prompt == case["has_placeholder"]


@pytest.mark.parametrize(("seed", "expected"), OPS["random_style"])
def test_random_style(seed: str, expected: str) -> None:
    (style,) = STYLES.choose([RANDOM_STYLE], random.Random(int(seed)))
    assert style.name == expected


@pytest.mark.parametrize("case", OPS["loras"])
def test_lora_tags(case: dict[str, Any]) -> None:
    find = (lambda name: f"{name}.safetensors") if case["skip_file_check"] else find_by_stem(case["files"])
    tagged = take_lora_tags(case["prompt"], find)
    assert tagged.prompt == case["out_prompt"]
    assert _pairs(merge_loras(_loras(case["ui_loras"]), tagged.loras, case["limit"])) == case["out_loras"]


@pytest.mark.parametrize("case", OPS["tasks"])
def test_tasks(case: dict[str, Any], wildcards: Wildcards) -> None:
    inputs = case["inputs"]
    tasks = prepare_tasks(
        Prompts(
            prompt=inputs["prompt"],
            negative_prompt=inputs["negative"],
            styles=tuple(["Fooocus V2"] * inputs["expansion"] + inputs["styles"]),
            read_wildcards_in_order=inputs["read_wildcards_in_order"],
        ),
        seed=int(inputs["seed"]),
        image_number=inputs["image_number"],
        seed_increment=not inputs["disable_seed_increment"],
        styles=STYLES,
        wildcards=wildcards,
        loras=_loras(inputs["loras"]),
        lora_names=LORA_FILES,
        expand=lambda prompt, seed: f"{prompt}, EXPANDED[{seed}]" if prompt else "",
    )
    assert len(tasks) == len(case["tasks"])
    for task, expected in zip(tasks, case["tasks"], strict=True):
        assert str(task.seed) == expected["task_seed"]
        assert task.prompt == expected["task_prompt"]
        assert list(task.positive) == expected["positive"]
        assert list(task.negative) == expected["negative"]
        assert task.positive_top_k == expected["positive_top_k"]
        assert task.negative_top_k == expected["negative_top_k"]
        assert task.logged_prompt == expected["log_positive_prompt"]
        assert task.logged_negative_prompt == expected["log_negative_prompt"]
        assert list(task.styles) == expected["styles"]
        assert task.expansion == expected["expansion"]
        assert task.use_expansion == case["expansion_used"]
        assert _pairs(task.loras) == case["loras"]


@pytest.mark.parametrize(("name", "steps", "upscale_steps", "lora"), MODE_CASES["steps"])
def test_mode_table(name: Any, steps: int, upscale_steps: int, lora: str | None) -> None:
    mode = MODES[name]
    assert (mode.steps, mode.upscale_steps) == (steps, upscale_steps)
    assert (mode.lora.name if mode.lora else None) == lora


@pytest.mark.parametrize(("steps", "expected"), MODE_CASES["mode_of_steps"])
def test_mode_of_steps(steps: int, expected: str) -> None:
    assert mode_of_steps(steps) == expected


@pytest.mark.parametrize(("size", "label"), MODE_CASES["aspect_labels"])
def test_size_labels(size: str, label: str) -> None:
    assert parse_size(label) == parse_size(size)


class _EveryFile:
    """A library in which every name is a file."""

    def checkpoint_names(self) -> list[str]:
        return []

    def find(self, kind: str, name: str) -> str | None:
        return name


def _is_text_to_image(case: dict[str, Any]) -> bool:
    return not case["inputs"].get("input_image_checkbox", False)


def _mode_request(inputs: dict[str, Any]) -> GenerationRequest:
    width, height = parse_size(inputs["aspect_ratios_selection"])
    return GenerationRequest(
        prompt=inputs["prompt"],
        negative_prompt=inputs["negative_prompt"],
        styles=tuple(inputs["style_selections"]),
        performance=inputs["performance_selection"],
        width_px=inputs["overwrite_width"] if inputs["overwrite_width"] > 0 else width,
        height_px=inputs["overwrite_height"] if inputs["overwrite_height"] > 0 else height,
        image_number=inputs["image_number"],
        seed=int(inputs["seed"]),
        checkpoint=inputs["base_model_name"],
        refiner=inputs["refiner_model_name"],
        refiner_switch=inputs["refiner_switch"],
        overwrite_switch=inputs["overwrite_switch"],
        loras=tuple(Lora(name, weight) for enabled, name, weight in inputs["loras"] if enabled),
        guidance_scale=inputs["cfg_scale"],
        sharpness=inputs["sharpness"],
        adaptive_scale=inputs["adaptive_cfg"],
        adm_positive=inputs["adm_scaler_positive"],
        adm_negative=inputs["adm_scaler_negative"],
        adm_end=inputs["adm_scaler_end"],
        sampler=inputs["sampler_name"],
        scheduler=inputs["scheduler_name"],
        overwrite_steps=inputs["overwrite_step"],
    )


@pytest.mark.parametrize("case", [case for case in MODE_CASES["cases"] if _is_text_to_image(case)])
def test_modes(case: dict[str, Any], wildcards: Wildcards) -> None:
    inputs, expected = {**MODE_CASES["defaults"], **case["inputs"]}, case["out"]
    plan = resolve_request(_mode_request(inputs), Preset("test"), _EveryFile(), lambda: 0, SizeLimits())
    (stage,) = plan.stages
    assert stage.sampling.steps == expected["steps"]
    assert stage.width_px == expected["width"] // 8 * 8
    assert stage.height_px == expected["height"] // 8 * 8
    assert (stage.models.refiner or "None") == expected["refiner_model_name"]
    assert stage.refiner_switch == expected["refiner_switch"]
    assert stage.switch_step == expected["switch"]
    assert stage.sampling.sampler == expected["sampler_name"]
    assert stage.sampling.scheduler == expected["scheduler_name"]
    assert stage.guidance.scale == expected["cfg_scale"]
    frozen = {name: value for name, value in expected["frozen"].items() if name != "controlnet_softness"}
    frozen["adaptive_scale"] = frozen.pop("adaptive_cfg")
    assert {name: getattr(stage.guidance, name) for name in frozen} == frozen

    files = [lora.name for lora in stage.models.loras]
    files += [stage.models.performance_lora.name] if stage.models.performance_lora else []
    book = StyleBook(Style(name) for name in expected["styles"])
    (task,) = prepare_stage(stage, book, wildcards, files)
    assert list(task.styles) == expected["styles"]
    assert task.use_expansion == expected["use_expansion"]
    assert _pairs(task.loras) == expected["loras"]


def _record(case: dict[str, Any]) -> ImageRecord:
    inputs, hashes = case["inputs"], METADATA["file_hashes"]
    has_refiner = inputs["refiner"] != "None"
    return ImageRecord(
        seed=int(inputs["seed"]),
        width_px=inputs["size"][0],
        height_px=inputs["size"][1],
        checkpoint=inputs["base"],
        prompt=inputs["prompt"],
        negative_prompt=inputs["negative"],
        prompt_expansion=inputs["expansion"],
        full_prompt=tuple(case["full_prompt"]),
        full_negative_prompt=tuple(case["full_negative_prompt"]),
        styles=tuple(["Fooocus V2"] * inputs["use_expansion"] + inputs["styles"]),
        performance=inputs["performance"],
        steps=inputs["steps"],
        guidance_scale=inputs["cfg"],
        sharpness=inputs["sharpness"],
        adm_positive=inputs["adm"][0],
        adm_negative=inputs["adm"][1],
        adm_end=inputs["adm"][2],
        checkpoint_hash=hashes["base"],
        refiner=inputs["refiner"] if has_refiner else None,
        refiner_hash=hashes["refiner"] if has_refiner else "",
        refiner_switch=inputs["refiner_switch"],
        overwrite_switch=inputs["overwrite_switch"],
        refiner_swap_method=inputs["swap"],
        adaptive_scale=inputs["adaptive"],
        clip_skip=inputs["clip_skip"],
        sampler=inputs["sampler"],
        scheduler=inputs["scheduler"],
        vae=None if inputs["vae"] == "Default (model)" else inputs["vae"],
        freeu=(1.01, 1.02, 0.99, 0.95) if inputs["freeu"] else None,
        loras=tuple(
            None if name == "None" else RecordedLora(name, weight, hashes["lora"]) for name, weight in inputs["loras"]
        ),
        created_by=inputs["created_by"],
    )


@pytest.mark.parametrize("case", METADATA["cases"])
def test_metadata_text(case: dict[str, Any]) -> None:
    assert metadata_text(_record(case), case["scheme"]) == case["parameters"]


@pytest.mark.parametrize("case", FILES["files"], ids=lambda case: case["file"])
def test_metadata_in_files(case: dict[str, Any]) -> None:
    pixels = np.asarray(Image.open(GOLDEN_DIR / FOLDER / FILES["image"]).convert("RGB"))
    record = None if case["scheme"] is None else _record(case)
    encoded = encode_image(pixels, case["format"], record, case["scheme"] or "fooocus")
    if case["format"] == "png":
        chunks = _png_chunks(encoded)
        assert [name for name, _ in chunks] == case["chunk_order"]
        texts = [(name, data) for name, data in chunks if name in ("tEXt", "iTXt")]
        assert [[name, data.split(b"\0")[0].decode()] for name, data in texts] == case["text_chunks"]
    image = Image.open(BytesIO(encoded))
    exif = image.info.get("exif")
    assert (exif.hex() if exif else None) == case["exif_hex"]
    original = Image.open(GOLDEN_DIR / FOLDER / case["file"])
    assert image.info.get("exif") == original.info.get("exif")
    assert image.info.get("parameters") == original.info.get("parameters")
    if "quantization" in case:
        assert {str(table): list(values) for table, values in image.quantization.items()} == case["quantization"]
        assert bool(image.info.get("progressive")) == case["progressive"]


def _png_chunks(encoded: bytes) -> list[tuple[str, bytes]]:
    chunks, start = [], 8
    while start < len(encoded):
        length = int.from_bytes(encoded[start : start + 4], "big")
        chunks.append((encoded[start + 4 : start + 8].decode(), encoded[start + 8 : start + 8 + length]))
        start += length + 12
    return chunks


FILE_NAMES = FileNames(FILES["model_files"], FILES["lora_files"], FILES["vae_files"])


@pytest.mark.parametrize("case", FILES["files"], ids=lambda case: case["file"])
def test_metadata_read_back(case: dict[str, Any]) -> None:
    saved = read_metadata((GOLDEN_DIR / FOLDER / case["file"]).read_bytes())
    if case["read_scheme"] is None:
        assert saved is None
        return
    assert saved == (case["read_parameters"], case["read_scheme"])
    assert parse_metadata(saved, FILE_NAMES, STYLES) == case["parsed"]


@pytest.mark.parametrize("case", FILES["parse"])
def test_metadata_parsed(case: dict[str, Any]) -> None:
    saved = SavedMetadata(case["text"] if case["scheme"] == "a1111" else case["data"], case["scheme"])
    assert parse_metadata(saved, FILE_NAMES, STYLES) == case["out"]


@pytest.mark.parametrize("case", FILE_NAME_CASES, ids=lambda case: case["now"])
def test_file_names(case: dict[str, Any]) -> None:
    rng = random.Random(int(case["random_seed"]))
    now = datetime.fromisoformat(case["now"])
    assert [fooocus_path(now, case["format"], rng) for _ in case["paths"]] == case["paths"]
