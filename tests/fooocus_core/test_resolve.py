"""Requests become plans: defaults, modes, names, ranges."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fooocus_core.errors import InvalidRequest, UnknownModel
from fooocus_core.plan import Diffuse, FreeU, Lora, Output, Plan
from fooocus_core.presets.modes import MODES
from fooocus_core.presets.preset import load_preset
from fooocus_core.presets.sizes import SizeLimits
from fooocus_core.request import GenerationRequest
from fooocus_core.resolve import MAX_PROMPT_CHARACTERS, choose_checkpoint, choose_seed, resolve_request
from fooocus_core.sampling.names import SAMPLER_NAMES, SCHEDULER_NAMES

JUGGERNAUT = "juggernautXL_v8Rundiffusion.safetensors"
OFFSET = "sd_xl_offset_example-lora_1.0.safetensors"
PRESET = load_preset("default")


class Shelf:
    """A library of listed names."""

    def __init__(self, checkpoints: list[str], loras: list[str] | None = None, vae: list[str] | None = None) -> None:
        self._files = {"checkpoints": checkpoints, "loras": loras or [], "vae": vae or []}

    def checkpoint_names(self) -> list[str]:
        return self._files["checkpoints"]

    def find(self, kind: str, name: str) -> str | None:
        return name if name in self._files[kind] else None


SHELF = Shelf([JUGGERNAUT, "other.safetensors"], [OFFSET, "ink.safetensors"], ["vae.safetensors"])


def _plan(shelf: Shelf = SHELF, limits: SizeLimits | None = None, **fields: Any) -> Plan:
    return resolve_request(GenerationRequest(**fields), PRESET, shelf, lambda: 42, limits)


def _stage(shelf: Shelf = SHELF, **fields: Any) -> Diffuse:
    (stage,) = _plan(shelf, **fields).stages
    return stage


def test_nothing_said_is_the_preset() -> None:
    stage = _stage()
    assert stage.models.checkpoint == JUGGERNAUT
    assert stage.models.loras == (Lora(OFFSET, 0.1),)
    assert stage.prompts.styles == PRESET.styles
    assert (stage.width_px, stage.height_px, stage.image_number, stage.seed) == (1152, 896, 1, 42)
    assert (stage.sampling.sampler, stage.sampling.scheduler, stage.sampling.steps) == (
        "dpmpp_2m_sde_gpu",
        "karras",
        30,
    )
    assert stage.guidance == PRESET.guidance


def test_nothing_is_not_the_same_as_none_at_all() -> None:
    stage = _stage(styles=(), loras=(), prompt="", negative_prompt="")
    assert (stage.prompts.styles, stage.models.loras) == ((), ())


@pytest.mark.parametrize("seed", [None, -1, -(2**70), 2**63, 2**100])
def test_other_seeds_are_random(seed: int | None) -> None:
    assert choose_seed(seed, lambda: 42) == 42


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_seeds_are_kept(seed: int) -> None:
    assert choose_seed(seed, lambda: 42) == seed


@pytest.mark.parametrize(
    ("asked", "on_disk", "expected"),
    [
        ("other.safetensors", ["other.safetensors", JUGGERNAUT], "other.safetensors"),
        ("gone.safetensors", ["other.safetensors", JUGGERNAUT], JUGGERNAUT),
        (None, ["other.safetensors", JUGGERNAUT], JUGGERNAUT),
        ("None", ["other.safetensors", JUGGERNAUT], JUGGERNAUT),
        ("", ["juggernautXL_v6Rundiffusion.safetensors", "a.st"], "juggernautXL_v6Rundiffusion.safetensors"),
        ("gone.safetensors", ["pocket.safetensors"], "pocket.safetensors"),
        (None, ["other.safetensors", "xl/" + JUGGERNAUT], "xl/" + JUGGERNAUT),
    ],
)
def test_checkpoints(asked: str | None, on_disk: list[str], expected: str) -> None:
    assert choose_checkpoint(asked, PRESET, Shelf(on_disk)) == expected


def test_a_checkpoint_that_falls_back_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        choose_checkpoint("gone.safetensors", PRESET, SHELF)
    assert "gone.safetensors" in caplog.text


def test_no_checkpoint_at_all() -> None:
    with pytest.raises(UnknownModel, match="gone"):
        choose_checkpoint("gone", PRESET, Shelf([]))


@pytest.mark.parametrize("name", list(MODES))
def test_modes(name: Any) -> None:
    stage = _stage(performance=name, guidance_scale=7.0, sharpness=9.0, sampler="heun", adm_end=0.9, overwrite_steps=0)
    mode = MODES[name]
    assert stage.performance == name
    assert stage.sampling.steps == mode.steps
    assert stage.models.performance_lora == mode.lora
    if mode.forced_sampling is None:
        assert (stage.guidance.scale, stage.guidance.sharpness, stage.sampling.sampler) == (7.0, 9.0, "heun")
    else:
        assert stage.sampling == mode.forced_sampling
        assert dataclasses.astuple(stage.guidance) == (1.0, 0.0, 1.0, 1.0, 1.0, 0.0)
        assert stage.refiner_switch == 1.0


def test_overwritten_steps() -> None:
    assert _stage(performance="Lightning", overwrite_steps=9).sampling.steps == 9
    assert _stage(overwrite_steps=-1).sampling.steps == 30


def test_the_mode_s_lora_is_named_as_listed() -> None:
    class Sorted(Shelf):
        def find(self, kind: str, name: str) -> str | None:
            return f"sdxl/{name}" if kind == "loras" else super().find(kind, name)

    lora = _stage(Sorted([JUGGERNAUT]), performance="Hyper-SD").models.performance_lora
    assert lora == Lora("sdxl/sdxl_hyper_sd_4step_lora.safetensors", 0.8)


def test_loras_are_the_first_five_slots_less_the_empty_ones() -> None:
    slots = [Lora("None", 1.0), Lora("gone", 1.0), Lora("ink.safetensors", -2.0), Lora("", 0.1), Lora(OFFSET, 1.0)]
    stage = _stage(loras=(*slots, Lora("ink.safetensors", 0.7)))
    assert stage.models.loras == (Lora("ink.safetensors", -2.0), Lora(OFFSET, 1.0))


@pytest.mark.parametrize("name", ["None", "", "gone.safetensors", JUGGERNAUT])
def test_no_refiner(name: str) -> None:
    assert _stage(refiner=name).models.checkpoint == JUGGERNAUT


def test_a_refiner() -> None:
    assert _stage(refiner="other.safetensors").models.refiner == "other.safetensors"
    assert _stage(refiner=JUGGERNAUT).models.refiner is None  # the base itself
    assert _stage(refiner="nowhere.safetensors").models.refiner is None
    assert _stage(refiner="other.safetensors", performance="Lightning").models.refiner is None


@pytest.mark.parametrize(
    ("asked", "step"),
    [
        ({}, 15),
        ({"refiner_switch": 0.75}, 22),
        ({"refiner_switch": 0.75, "overwrite_steps": 12}, 22),  # a share of the mode's own steps
        ({"performance": "Quality"}, 30),
        ({"performance": "Lightning"}, 4),
        ({"overwrite_switch": 7.9}, 7),
        ({"overwrite_switch": 0.25, "overwrite_steps": 12}, 3),
        ({"overwrite_switch": 0.001}, 1),
        ({"overwrite_switch": 0.0}, 15),
        ({"overwrite_switch": -1}, 15),
    ],
)
def test_the_step_of_the_switch(asked: dict[str, Any], step: int) -> None:
    assert _stage(**asked).switch_step == step


@pytest.mark.parametrize(("asked", "step"), [(None, 7), (3.0, 3), (-1.0, 15), (0.0, 15)])
def test_a_preset_may_say_the_step_of_the_switch(asked: float | None, step: int) -> None:
    preset = dataclasses.replace(PRESET, overwrite_switch=7.0)
    plan = resolve_request(GenerationRequest(overwrite_switch=asked), preset, SHELF, lambda: 42)
    assert plan.stages[0].switch_step == step


def test_how_a_refiner_takes_over() -> None:
    assert _stage().refiner_swap == "joint"
    assert _stage(refiner_swap="vae").refiner_swap == "vae"
    with pytest.raises(InvalidRequest, match="refiner_swap"):
        _stage(refiner_swap="both")


def test_freeu() -> None:
    assert _stage().freeu is None
    assert _stage(freeu=FreeU(b2=1.4)).freeu == FreeU(1.01, 1.4, 0.99, 0.95)
    for wrong in (math.nan, math.inf, 1e9):
        with pytest.raises(InvalidRequest, match="freeu_s1"):
            _stage(freeu=FreeU(s1=wrong))


def test_autoencoders() -> None:
    assert _stage(vae="vae.safetensors").models.vae == "vae.safetensors"
    assert _stage(vae="Default (model)").models.vae is None
    with pytest.raises(InvalidRequest, match="vae"):
        _plan(vae="gone.safetensors")
    pony = resolve_request(GenerationRequest(), load_preset("pony_v6"), SHELF, lambda: 0)
    assert pony.stages[0].models.vae is None


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_number", 0),
        ("image_number", 33),
        ("width_px", 63),
        ("height_px", 5000),
        ("width_px", -8),
        ("sharpness", 30.1),
        ("sharpness", NAN),
        ("guidance_scale", 0.9),
        ("guidance_scale", INFINITE),
        ("adaptive_scale", 31),
        ("adm_positive", -0.1),
        ("adm_negative", 3.1),
        ("adm_end", -0.1),
        ("adm_end", NAN),
        ("refiner_switch", 0.0),
        ("clip_skip", 0),
        ("clip_skip", 13),
        ("overwrite_steps", 201),
        ("overwrite_steps", -2),
        ("sampler", "best"),
        ("scheduler", "Karras"),
        ("performance", "Warp"),
        ("image_format", "gif"),
        ("metadata_scheme", "a111"),
        ("loras", (Lora("ink.safetensors", 2.5),)),
        ("loras", (Lora("gone", NAN),)),
        ("prompt", "x" * (MAX_PROMPT_CHARACTERS + 1)),
        ("prompt", "half \ud83e"),
        ("negative_prompt", "x" * (MAX_PROMPT_CHARACTERS + 1)),
    ],
)
def test_values_that_cannot_be_run_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _plan(**{field: value})
    assert caught.value.field == field


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest) as caught:
        _plan(sampler="best")
    assert all(name in caught.value.reason for name in SAMPLER_NAMES)
    with pytest.raises(InvalidRequest) as caught:
        _plan(scheduler="best")
    assert all(name in caught.value.reason for name in SCHEDULER_NAMES)


def test_names_are_checked_even_where_the_mode_overrules_them() -> None:
    with pytest.raises(InvalidRequest, match="sampler"):
        _plan(performance="Lightning", sampler="best")


def test_sizes() -> None:
    stage = _stage(width_px=1001, height_px=71)
    assert (stage.width_px, stage.height_px) == (1000, 64)
    with pytest.raises(InvalidRequest, match="more than 4096 pixels"):
        _plan(limits=SizeLimits(max_pixels=64 * 64), width_px=64, height_px=128)


def test_output() -> None:
    asked: dict[str, Any] = {
        "image_format": "webp",
        "save_metadata": True,
        "metadata_scheme": "a1111",
        "save_name": "x",
        "preview": False,
    }
    assert _plan(**asked).output == Output(**asked)
    assert _plan().output.save_metadata is False


def test_the_configured_author_is_told() -> None:
    plan = resolve_request(GenerationRequest(), dataclasses.replace(PRESET, created_by="Ada"), SHELF, lambda: 42)
    assert plan.output.created_by == "Ada"


@pytest.mark.parametrize(("server", "request_"), [(False, False), (False, True), (True, False), (True, True)])
def test_the_server_and_the_request_can_both_have_pictures_judged(server: bool, request_: bool) -> None:
    request = GenerationRequest(black_out_nsfw=request_)
    plan = resolve_request(request, PRESET, SHELF, lambda: 42, black_out_nsfw=server)
    assert plan.output.black_out_nsfw is (server or request_)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


REQUESTS = st.builds(
    GenerationRequest,
    prompt=st.none() | st.text(max_size=30),
    styles=st.none() | st.lists(st.text(max_size=8), max_size=3).map(tuple),
    performance=st.none() | st.sampled_from(list(MODES)),
    width_px=st.none() | st.integers(-10, 5000),
    height_px=st.none() | st.integers(64, 2048),
    image_number=st.none() | st.integers(-1, 40),
    seed=st.none() | st.integers(),
    checkpoint=st.none() | st.text(max_size=8) | st.sampled_from([JUGGERNAUT, "other.safetensors"]),
    loras=st.none()
    | st.lists(st.builds(Lora, st.sampled_from(["ink.safetensors", "None", "?"]), st.floats()), max_size=7).map(tuple),
    guidance_scale=st.none() | st.floats(),
    sampler=st.none() | st.sampled_from(SAMPLER_NAMES),
    overwrite_steps=st.none() | st.integers(-3, 210),
    image_format=st.none() | st.sampled_from(["png", "jpg", "webp"]),
)


@given(REQUESTS)
def test_a_plan_survives_json_and_a_refusal_names_a_field(request_: GenerationRequest) -> None:
    plan = _plan_or_field(request_)
    if isinstance(plan, str):
        assert set(plan.split(", ")) <= {field.name for field in dataclasses.fields(GenerationRequest)}
    else:
        assert Plan.from_json(json.loads(json.dumps(plan.to_json(), allow_nan=False))) == plan


def _plan_or_field(request: GenerationRequest) -> Plan | str:
    """The plan, or the field that is refused."""
    try:
        return resolve_request(request, PRESET, SHELF, lambda: 2**63 - 1)
    except InvalidRequest as error:
        return error.field
