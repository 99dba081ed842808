"""The performance modes force the fields of specification 01, section 3, and leave every other one as it was asked."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fooocus_core.plan import Diffuse, Lora
from fooocus_core.presets.modes import MODES
from fooocus_core.presets.preset import load_preset
from fooocus_core.request import GenerationRequest
from fooocus_core.resolve import resolve_request

TABLE = [
    ("Quality", 60, 36, None),
    ("Speed", 30, 18, None),
    ("Extreme Speed", 8, 8, Lora("sdxl_lcm_lora.safetensors", 1.0)),
    ("Lightning", 4, 4, Lora("sdxl_lightning_4step_lora.safetensors", 1.0)),
    ("Hyper-SD", 4, 4, Lora("sdxl_hyper_sd_4step_lora.safetensors", 0.8)),
]
FORCED = {
    "refiner": None,
    "sharpness": 0.0,
    "scale": 1.0,
    "adaptive_scale": 1.0,
    "refiner_switch": 1.0,
    "adm_positive": 1.0,
    "adm_negative": 1.0,
    "adm_end": 0.0,
}
SOLVERS = {
    "Extreme Speed": ("lcm", "lcm"),
    "Lightning": ("euler", "sgm_uniform"),
    "Hyper-SD": ("dpmpp_sde_gpu", "karras"),
}
EVERYTHING = GenerationRequest(
    prompt="a boat",
    negative_prompt="ugly",
    styles=("Fooocus Sharp",),
    width_px=640,
    height_px=768,
    image_number=3,
    seed=11,
    seed_increment=False,
    checkpoint="base.safetensors",
    refiner_switch=0.6,
    refiner_swap="separate",
    vae="vae.safetensors",
    loras=(Lora("ink.safetensors", -0.5),),
    clip_skip=5,
    guidance_scale=7.5,
    sharpness=9.0,
    adaptive_scale=11.0,
    adm_positive=1.7,
    adm_negative=0.6,
    adm_end=0.9,
    sampler="heun",
    scheduler="exponential",
    read_wildcards_in_order=True,
    image_format="webp",
    save_metadata=True,
    metadata_scheme="a1111",
    save_name="boat",
    preview=False,
)


class _EveryFile:
    def checkpoint_names(self) -> list[str]:
        return ["base.safetensors"]

    def find(self, kind: str, name: str) -> str | None:
        return name


def _fields(performance: Any, **asked: Any) -> dict[str, Any]:
    """Every field of the plan by its own name, whatever record it is in; what a mode decides of itself is left out."""
    request = dataclasses.replace(EVERYTHING, performance=performance, **asked)
    plan = resolve_request(request, load_preset("default"), _EveryFile(), lambda: 0)
    (stage,) = plan.stages
    assert isinstance(stage, Diffuse)
    records = (stage.models, stage.prompts, stage.guidance, stage.sampling, plan.output, stage)
    fields = {field.name: getattr(record, field.name) for record in records for field in dataclasses.fields(record)}
    return {
        name: value for name, value in fields.items() if not dataclasses.is_dataclass(value) or name.endswith("lora")
    }


@pytest.mark.parametrize(("name", "steps", "upscale_steps", "lora"), TABLE)
def test_steps_and_loras(name: Any, steps: int, upscale_steps: int, lora: Lora | None) -> None:
    fields = _fields(name)
    assert (fields["performance"], fields["steps"], fields["performance_lora"]) == (name, steps, lora)
    assert MODES[name].upscale_steps == upscale_steps
    assert fields["loras"] == (Lora("ink.safetensors", -0.5),), "the mode's own does not count among the request's"
    assert _fields(name, overwrite_steps=13)["steps"] == 13


def test_there_are_no_others() -> None:
    assert list(MODES) == [name for name, *_ in TABLE]


@pytest.mark.parametrize("name", ["Extreme Speed", "Lightning", "Hyper-SD"])
def test_exactly_these_fields_are_forced(name: Any) -> None:
    free, forced = _fields("Quality"), _fields(name)
    sampler, scheduler = SOLVERS[name]
    expected = {**FORCED, "sampler": sampler, "scheduler": scheduler}
    assert {field: forced[field] for field in expected} == expected
    decided = {*expected, "performance", "performance_lora", "steps", "switch_step"}
    assert {field: value for field, value in forced.items() if field not in decided} == {
        field: value for field, value in free.items() if field not in decided
    }


@pytest.mark.parametrize("name", ["Quality", "Speed"])
def test_the_others_force_nothing(name: Any) -> None:
    fields = _fields(name)
    asked = dataclasses.asdict(EVERYTHING)
    names = {"guidance_scale": "scale"}
    of_a_picture = {"start", "detail", "overwrite_vary_strength", "overwrite_upscale_strength"}
    given = set(asked) - {"performance", "loras", "refiner", "overwrite_steps"} - of_a_picture
    assert {field: fields[names.get(field, field)] for field in given} == {field: asked[field] for field in given}


@pytest.mark.parametrize("name", ["Extreme Speed", "Lightning", "Hyper-SD"])
def test_a_refiner_takes_no_part(name: Any) -> None:
    assert _fields(name, refiner="refiner.safetensors") == _fields(name)
