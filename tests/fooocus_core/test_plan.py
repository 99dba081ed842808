"""Plans as JSON, and what they tell about themselves."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fooocus_core.plan import (
    Detail,
    Diffuse,
    Enlarging,
    Guidance,
    MaskedArea,
    Models,
    PartSearch,
    PartsPass,
    Plan,
    Prompts,
    Repaint,
    Sampling,
    StartPicture,
)

BASE = Diffuse(
    Models("some.safetensors"),
    Prompts("(a cat:1.2), [dog]", syntax="web_ui"),
    512,
    768,
    seed=5,
    image_number=2,
    seed_count=2**32,
    guidance=Guidance.plain(7.0),
    sampling=Sampling("euler_ancestral", "normal", 20, "share", 31337, 1.05),
)
LARGER = replace(BASE, start=StartPicture(None, "4x", 0.3, enlarging=Enlarging("network", "4x.pth", width_px=1024)))
MASKED = replace(BASE, repaint=Repaint(None, "mask", denoise=0.75, engine="None", area=MaskedArea(invert=True)))
FACES = Detail(
    BASE, 20, 20, passes=(PartsPass(PartSearch("mtcnn"), ("a", "b"), base=BASE), PartsPass(PartSearch("mtcnn")))
)
STAGED = Plan((BASE, LARGER, FACES, MASKED), only_last_stage=True)


def test_stages_that_follow_each_other_as_json() -> None:
    assert Plan.from_json(json.loads(json.dumps(STAGED.to_json()))) == STAGED


def test_plans_of_before_the_stages_are_read_as_they_were_meant() -> None:
    values = json.loads(json.dumps(Plan((BASE,)).to_json()))
    del values["only_last_stage"]
    for name in ("seed_count",):
        del values["stages"][0][name]
    for name in ("partial_steps", "eta_noise_seed_delta", "noise_multiplier"):
        del values["stages"][0]["sampling"][name]
    del values["stages"][0]["prompts"]["syntax"]
    [stage] = Plan.from_json(values).stages
    assert isinstance(stage, Diffuse)
    assert stage.sampling == Sampling("euler_ancestral", "normal", 20)
    assert (stage.seed_count, stage.prompts.syntax) == (2**63, "fooocus")


def test_what_follows_needs_no_picture_of_its_own() -> None:
    assert STAGED.pictures == ("mask",)
    assert [stage.follows for stage in STAGED.stages] == [False, True, True, True]
    own = replace(LARGER, start=StartPicture("kept", "4x", 0.3))
    assert not own.follows
    assert (STAGED.images, Plan((BASE, own)).images, Plan((replace(FACES, picture="kept"),)).images) == (2, 4, 1)
    assert Plan((own,)).pictures == ("kept",)


def test_plain_guidance() -> None:
    assert Guidance.plain(7.0) == Guidance(7.0, 0.0, 7.0, 1.0, 1.0, 0.0)
    assert Guidance.plain(0.5).scale == 1.0


def test_an_area_has_no_engine() -> None:
    with pytest.raises(ValueError, match="engine"):
        Repaint("kept", area=MaskedArea())
