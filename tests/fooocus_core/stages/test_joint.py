"""Plans that are painted together: which are, that each tells and makes what it does alone, and what ends one alone."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from fooocus_core.plan import (
    Detail,
    Diffuse,
    FreeU,
    Guidance,
    Guide,
    Guides,
    Lora,
    Models,
    Output,
    Plan,
    Prompts,
    Repaint,
    Sampling,
    StartPicture,
)
from fooocus_core.stages.joint import fit_together

STAGE = Diffuse(Models("some.safetensors"), Prompts("a red apple"), 64, 64, seed=1)
PLAN = Plan((STAGE,))
LORA = Lora("one.safetensors", 0.5)

# --- which fit ----------------------------------------------------------------------------------------------------

OTHERWISE: dict[str, Any] = {
    "models": Models("some.safetensors", loras=(LORA,)),
    "prompts": Prompts("a green pear", "ugly", ("Fooocus V2",), read_wildcards_in_order=True, syntax="web_ui"),
    "width_px": 72,
    "height_px": 72,
    "seed": 2,
    "image_number": 3,
    "seed_increment": False,
    "seed_count": 2**32,
    "performance": "Quality",
    "guidance": Guidance(scale=5.0),
    "sampling": Sampling(steps=31),
    "refiner_switch": 0.6,
    "refiner_swap": "vae",
    "switch_step": 3,
    "overwrite_switch": 3,
    "freeu": FreeU(),
    "start": StartPicture("scene", "Vary (Subtle)", 0.5),
    "repaint": Repaint("scene", engine="None"),
    "guides": Guides((Guide("scene", "PyraCanny", 0.5, 1.0),)),
}
"""Another value of every field of a stage."""

A_PLANS_OWN = {"prompts", "seed", "image_number", "seed_increment", "seed_count"}
"""What may differ in plans that fit each other."""


def test_no_field_of_a_stage_is_forgotten() -> None:
    assert OTHERWISE.keys() == {field.name for field in fields(Diffuse)} - {"kind"}


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_is_not_a_plans_own_must_be_the_same(name: str) -> None:
    other = Plan((replace(STAGE, **{name: OTHERWISE[name]}),))
    assert fit_together([PLAN, other]) is fit_together([other, PLAN]) is (name in A_PLANS_OWN)
    assert not fit_together([PLAN, PLAN, other]) or name in A_PLANS_OWN


@pytest.mark.parametrize(
    "models",
    [
        Models("other.safetensors"),
        Models("some.safetensors", vae="vae.safetensors"),
        Models("some.safetensors", loras=(LORA,)),
        Models("some.safetensors", performance_lora=LORA),
        Models("some.safetensors", clip_skip=1),
    ],
)
def test_models_must_be_the_same(models: Models) -> None:
    other = Plan((replace(STAGE, models=models),))
    assert not fit_together([PLAN, other])
    assert fit_together([other, other])


TAGGED = "a red apple <lora:one:0.5>"


@pytest.mark.parametrize(
    ("first", "second", "fit"),
    [
        (Prompts(TAGGED), Prompts("<lora:one:0.5> a pear"), True),
        (Prompts(TAGGED), Prompts("a pear"), False),
        (Prompts(TAGGED), Prompts("a pear <lora:one:0.6>"), False),
        (Prompts(TAGGED), Prompts("a pear <lora:two:0.5>"), False),
        (Prompts(TAGGED), Prompts(TAGGED, max_loras=1), False),
        (Prompts(TAGGED), Prompts(TAGGED, syntax="web_ui"), False),
        (Prompts("a pear"), Prompts(TAGGED, syntax="web_ui"), True),
        (Prompts("a pear"), Prompts(f"a pear\n{TAGGED}"), True),  # tags count in the first line alone
    ],
)
def test_loras_that_a_prompt_names_must_be_the_same(first: Prompts, second: Prompts, fit: bool) -> None:
    assert fit_together([Plan((replace(STAGE, prompts=prompts),)) for prompts in (first, second)]) is fit


@pytest.mark.parametrize(
    "plan",
    [
        Plan((STAGE, Detail(STAGE, 30, 18))),
        Plan((Detail(STAGE, 30, 18, picture="scene"),)),
        Plan((replace(STAGE, models=Models("some.safetensors", refiner="refiner.safetensors")),)),
        *[Plan((replace(STAGE, **{name: OTHERWISE[name]}),)) for name in ("start", "repaint", "guides")],
    ],
)
def test_whatever_starts_from_more_than_noise_is_always_painted_alone(plan: Plan) -> None:
    assert not fit_together([plan])
    assert not fit_together([plan, plan])


def test_what_becomes_of_finished_pictures_is_every_plans_own() -> None:
    others = Output("webp", True, "a1111", "name", False, "somebody", True, True)
    assert fit_together([PLAN, replace(PLAN, output=others), replace(PLAN, only_last_stage=True)])
