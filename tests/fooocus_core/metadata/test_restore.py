"""A picture's metadata as a request: the same picture again, whatever made the file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fooocus_core.metadata.describe import describe_image
from fooocus_core.metadata.files import encode_image
from fooocus_core.metadata.read import FileNames, SavedMetadata, read_metadata
from fooocus_core.metadata.record import ImageRecord, RecordedLora, rows
from fooocus_core.metadata.restore import Restored, restore_request
from fooocus_core.metadata.schemes import metadata_text
from fooocus_core.plan import Diffuse, FreeU, Lora, Plan
from fooocus_core.presets.preset import Preset
from fooocus_core.prompts.styles import Style, StyleBook, load_styles
from fooocus_core.prompts.tasks import PromptTask, prepare_stage
from fooocus_core.prompts.wildcards import Wildcards
from fooocus_core.request import GenerationRequest
from fooocus_core.resolve import resolve_request

FILES = FileNames(
    ["sub/base.v1.safetensors", "second.safetensors"],
    ["x/ink.v2.safetensors", "sdxl_lcm_lora.safetensors"],
    ["fine.pt"],
)
BOOK = StyleBook([Style("Plain", "{prompt}, plainly", "ornate"), Style("It's", "it is {prompt}", "it is not")])
PIXELS = np.zeros((8, 8, 3), np.uint8)
RECORD = ImageRecord(
    seed=2**63 - 1,
    width_px=1152,
    height_px=896,
    checkpoint="sub/base.v1.safetensors",
    prompt="a cat\nat sea",
    negative_prompt="",
    full_prompt=("a cat, plainly", "at sea"),
    full_negative_prompt=("ornate",),
    styles=("Plain",),
    guidance_scale=5.5,
    sharpness=3.0,
    sampler="euler",
    vae="fine.pt",
    loras=(None, RecordedLora("x/ink.v2.safetensors", -0.5, "aa")),
)
REQUEST = GenerationRequest(
    prompt="a cat\nat sea",
    negative_prompt="",
    styles=("Plain",),
    performance="Speed",
    width_px=1152,
    height_px=896,
    image_number=1,
    seed=2**63 - 1,
    checkpoint="sub/base.v1.safetensors",
    refiner="None",
    refiner_switch=0.5,
    vae="fine.pt",
    loras=(Lora("x/ink.v2.safetensors", -0.5),),
    clip_skip=2,
    guidance_scale=5.5,
    sharpness=3.0,
    adaptive_scale=7.0,
    adm_positive=1.5,
    adm_negative=0.8,
    adm_end=0.3,
    sampler="euler",
    scheduler="karras",
)


def _restored(record: ImageRecord, scheme: Any = "fooocus", image_format: Any = "png") -> Restored:
    saved = read_metadata(encode_image(PIXELS, image_format, record, scheme))
    assert saved is not None
    return restore_request(saved, FILES, BOOK)


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_scheme_fooocus_comes_back_whole(image_format: Any) -> None:
    assert _restored(RECORD, "fooocus", image_format) == (REQUEST, ())


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_scheme_a1111_comes_back_but_for_what_it_does_not_hold(image_format: Any) -> None:
    """It has no switch, and lines below the first are taken for what the expansion wrote."""
    expected = dataclasses.replace(REQUEST, refiner_switch=None, styles=("Fooocus V2", "Plain"))
    assert _restored(RECORD, "a1111", image_format) == (expected, ())


@pytest.mark.parametrize("scheme", ["fooocus", "a1111"])
def test_the_refiner_and_freeu_come_back(scheme: Any) -> None:
    record = dataclasses.replace(
        RECORD,
        refiner="second.safetensors",
        overwrite_switch=7,
        refiner_swap_method="vae",
        freeu=(1.3, 1.4, 0.9, 0.2),
    )
    request = _restored(record, scheme).request
    assert (request.refiner, request.refiner_swap) == ("second.safetensors", "vae")
    assert (request.overwrite_switch, request.freeu) == (7.0, FreeU(1.3, 1.4, 0.9, 0.2))


def test_steps_are_said_where_they_are_not_the_mode_s_own() -> None:
    assert _restored(dataclasses.replace(RECORD, steps=31)).request.overwrite_steps == 31
    saved = SavedMetadata("a\nSteps: 60, Seed: 1, Size: 8x8", "a1111")
    request = restore_request(saved, FILES, BOOK).request
    assert (request.performance, request.overwrite_steps) == ("Quality", None)


@pytest.mark.parametrize("scheme", ["fooocus", "a1111"])
@pytest.mark.parametrize("own", ["sdxl_lcm_lora.safetensors", "gone/sdxl_lcm_lora.safetensors"])
def test_the_mode_s_own_lora_is_not_said_again(scheme: Any, own: str) -> None:
    loras = (RecordedLora("x/ink.v2.safetensors", -0.5), RecordedLora(own, 1.0))
    record = dataclasses.replace(RECORD, performance="Extreme Speed", steps=8, loras=loras)
    assert _restored(record, scheme).request.loras == REQUEST.loras


@pytest.mark.parametrize("scheme", ["fooocus", "a1111"])
def test_files_that_are_gone_keep_their_names(scheme: Any) -> None:
    loras = (RecordedLora("a/gone.v3.safetensors", 1.5),)
    record = dataclasses.replace(RECORD, checkpoint="no.v1.ckpt", refiner="or.pt", vae="nor.pt", loras=loras)
    request = _restored(record, scheme).request
    assert (request.checkpoint, request.refiner, request.vae) == ("no.v1", "or", "nor")
    assert request.loras == (Lora("gone.v3", 1.5),)


def test_rows_by_their_labels() -> None:
    table = {row.label: row.value for row in rows(RECORD, "fooocus")}
    assert {"Prompt", "CLIP Skip", "LoRA 2", "ADM Guidance"} <= table.keys()
    assert restore_request(SavedMetadata(table, "fooocus"), FILES, BOOK) == (REQUEST, ())


def test_another_program_s_text() -> None:
    text = (
        "a cat\nNegative prompt: dog\nSteps: 25, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, "
        "Seed: 965400086, Size: 512x768, Model hash: aa, Model: other, Clip skip: 2, Version: v1.10.1"
    )
    request, unread = restore_request(SavedMetadata(text, "a1111"), FILES, BOOK)
    assert (request.seed, request.sampler, request.guidance_scale) == (965400086, "euler_ancestral", 7.0)
    assert (request.width_px, request.height_px, request.overwrite_steps) == (512, 768, 25)
    assert (request.performance, request.refiner, request.loras) == (None, None, ())
    assert unread == ()


JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.lists(st.integers())
KEYS = [row.key for row in rows(RECORD, "fooocus")] + ["LoRA 1", "lora_combined_x", "lora_combined_9", "Seed"]


@given(st.dictionaries(st.sampled_from(KEYS), JUNK))
def test_values_of_no_use_are_named_and_left_unsaid(values: dict[str, Any]) -> None:
    request, unread = restore_request(SavedMetadata(values, "fooocus"), FILES, BOOK)
    assert set(unread) <= {*KEYS, "lora_combined_1"}
    if "seed" in unread:
        assert request.seed is None


@given(st.text(max_size=60), st.sampled_from(["Size: 9x9", "Lora weights: a", "Lora hashes: a: b: c", "Seed: x"]))
def test_any_text_can_be_restored(text: str, parameter: str) -> None:
    restore_request(SavedMetadata(f"{text}\nSteps: 1e999, CFG scale: nan, {parameter}", "a1111"), FILES, BOOK)


@pytest.mark.parametrize("styles", ["[" * 5000, "-" * 9000 + "1", "['a'" * 4000, "print(1)", "{'a': 1}", "[1]"])
def test_no_text_of_a_list_breaks_the_reader(styles: str) -> None:
    saved = SavedMetadata({"styles": styles}, "fooocus")
    assert restore_request(saved, FILES, BOOK) == (GenerationRequest(image_number=1, loras=()), ("styles",))


class _Library:
    """Knows the files of ``FILES``."""

    def checkpoint_names(self) -> list[str]:
        return list(FILES.checkpoints)

    def find(self, kind: str, name: str) -> str | None:
        return name if name in getattr(FILES, kind) else None


def _plan(request: GenerationRequest) -> Plan:
    return resolve_request(
        request, Preset("test", "sub/base.v1.safetensors", negative_prompt="dull"), _Library(), lambda: 5
    )


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Wildcards:
    folder = tmp_path_factory.mktemp("words")
    Path(folder, "hat.txt").write_text("cap\nbowler\n__kind__ hat", encoding="utf-8")
    Path(folder, "kind.txt").write_text("top\nstraw", encoding="utf-8")
    return Wildcards((folder,))


STYLES = load_styles()


def _tasks(stage: Diffuse, words: Wildcards) -> list[PromptTask]:
    return prepare_stage(stage, STYLES, words, list(FILES.loras), lambda prompt, seed: f"{prompt} {seed}")


def _painted(task: PromptTask) -> object:
    """What reaches the networks; blanks do not. An array's later entries begin with one that no line keeps."""
    texts = [" ".join(text.split()) for text in (*task.positive, "|", *task.negative)]
    return task.seed, texts, task.positive_top_k, task.negative_top_k, task.styles, task.loras


@given(
    prompt=st.sampled_from(
        ["a cat", "[[red,green]] __hat__ <lora:ink.v2:0.5>\n__hat__ below", "", "caf\u00e9, 'x' \"y\""]
    ),
    performance=st.sampled_from(["Quality", "Speed", "Extreme Speed", "Lightning", "Hyper-SD"]),
    styles=st.lists(st.sampled_from(["Fooocus V2", "Random Style", "SAI Anime", "Fooocus Negative"]), unique=True),
    seed=st.integers(0, 2**63 - 1),
    scale=st.floats(1, 30),
    steps=st.integers(-1, 200),
    refiner=st.sampled_from(["None", "second.safetensors"]),
    switch=st.integers(-1, 200),
    swap=st.sampled_from(["joint", "separate", "vae"]),
    freeu=st.none() | st.just(FreeU(1.1, 1.2, 0.3, 0.4)),
    index=st.integers(0, 31),
)
def test_the_restored_request_makes_the_same_picture(
    prompt: str,
    performance: Any,
    styles: list[str],
    seed: int,
    scale: float,
    steps: int,
    refiner: str,
    switch: int,
    swap: Any,
    freeu: FreeU | None,
    index: int,
    words: Wildcards,
) -> None:
    asked = GenerationRequest(
        prompt=prompt,
        performance=performance,
        styles=tuple(styles),
        seed=seed,
        guidance_scale=scale,
        overwrite_steps=steps,
        refiner=refiner,
        refiner_switch=0.7,
        overwrite_switch=switch,
        refiner_swap=swap,
        freeu=freeu,
        image_number=32,
        vae="fine.pt",
        adaptive_scale=9.0,
        clip_skip=1,
    )
    (stage,) = _plan(asked).stages
    task = _tasks(stage, words)[index]
    text = metadata_text(describe_image(stage, task), "fooocus")
    restored = restore_request(SavedMetadata(json.loads(text), "fooocus"), FILES, STYLES)
    assert restored.unread == ()
    (again,) = _plan(restored.request).stages
    for part in ("guidance", "sampling", "width_px", "height_px", "performance", "refiner_switch", "freeu"):
        assert getattr(again, part) == getattr(stage, part)
    if stage.models.refiner is not None:
        assert (again.switch_step, again.refiner_swap) == (stage.switch_step, swap)
    assert dataclasses.replace(again.models, loras=()) == dataclasses.replace(stage.models, loras=())
    (same,) = _tasks(again, words)
    assert _painted(same) == _painted(task)
