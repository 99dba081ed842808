"""What stages ask for and what is wrong with them: every refusal names its field, and plans are what was meant."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from fooocus_core.plan import (
    Detail,
    Diffuse,
    Enlarging,
    Guidance,
    Guide,
    Guides,
    Lora,
    MaskedArea,
    PartSearch,
    PartsPass,
    Plan,
)
from fooocus_core.presets.sizes import Size
from fooocus_core.stages.detail import MASK, part_stage
from fooocus_core.stages.following import PICTURE
from fooocus_core.stages.repainting import cut_out_of
from fooocusapi.settings import Settings
from tests.cases import check_all
from tests.fooocusapi.served import FakeLibrary, House, serving
from tests.fooocusapi.surfaces.tams.asking import (
    JOBS,
    blank_engine,
    body,
    diffusion,
    ended,
    fields,
    painted,
    picture_file,
    reserved,
    stages,
    uploaded,
)

TABLE = {
    "defaultCheckpoint": "1",
    "models": {
        "1": {"type": "CHECKPOINT", "file": "other.safetensors"},
        "2": {"type": "LORA", "file": "paint.safetensors"},
        "3": {"type": "LORA", "file": "gone.safetensors"},
        "4": {"type": "CHECKPOINT", "file": "third.safetensors", "vae": "taef"},
    },
    "upscalers": {"Mine": "mine.pth", "4x-UltraSharp": "sharp.pth"},
    "vaes": {"Small": "taef.safetensors"},
    "detectors": {"face_of_mine.pt": {"kind": "bbox"}},
    "controlnets": {"77": {"type": "canny"}, "my lines": "control-lora-canny-rank128.safetensors"},
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    root = tmp_path_factory.mktemp("stages")
    (root / "table.json").write_text(json.dumps(TABLE), encoding="utf-8")
    house = House(root, engine=blank_engine(), settings=Settings(tams_models_path=root / "table.json"))
    house.library = FakeLibrary(
        ["other.safetensors", "third.safetensors"], ["sub/paint.safetensors", "paint.safetensors"], ["taef.safetensors"]
    )
    house.library.names["upscale_models"] = ["mine.pth"]
    return house


@pytest.fixture(scope="module")
def client(house: House) -> Iterator[TestClient]:
    with serving(house) as client:
        yield client


@pytest.fixture(scope="module")
def picture(client: TestClient) -> str:
    return uploaded(client, picture_file(640, 512))


def upscaler(**values: Any) -> dict[str, Any]:
    block = {"hrUpscaler": "None", "hrScale": 2, "hrSecondPassSteps": 10, "denoisingStrength": 0.3, **values}
    return {
        "type": "IMAGE_TO_UPSCALER",
        "imageToUpscaler": {key: value for key, value in block.items() if value is not None},
    }


def adetailer(**values: Any) -> dict[str, Any]:
    return {"type": "IMAGE_TO_ADETAILER", "imageToAdetailer": {"args": [values]}}


def inpaint(mask: str | None, **values: Any) -> dict[str, Any]:
    return {"type": "IMAGE_TO_INPAINT", "imageToInpaint": {"maskImageResourceId": mask, **values}}


def refused(client: TestClient, *later: Any, **values: Any) -> list[str]:
    """The fields of a refusal with 400, and the documented name of the problem where it has one."""
    answer = client.post(f"{JOBS}/credits", json={"stages": stages(*later, **values)})
    assert (answer.status_code, answer.json()["code"]) == (400, 3), answer.text
    message = answer.json()["message"]
    return [*fields(answer), *([message] if message.startswith("invalid_") else [])]


def plan_of(client: TestClient, house: House, *later: Any, **values: Any) -> Plan:
    request_id = f"plan-{len(house.engine.plans)}"
    answer = client.post(JOBS, json=body(request_id, *later, **values))
    assert answer.status_code == 200, answer.text
    ended(client, answer.json()["job"]["id"])
    plan: Plan = house.engine.plans[-1]
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    return plan


def first(plan: Plan) -> Diffuse:
    stage = plan.stages[0]
    assert isinstance(stage, Diffuse)
    return stage


# ---------------------------------------------------------------------------------------------------------- bad input


def test_chains_that_make_no_sense(client: TestClient) -> None:
    start = stages()[0]
    cases: dict[str, tuple[list[Any], list[str]]] = {
        "none": ([], ["stages"]),
        "one": ([start], ["stages"]),
        "nine": ([start, painted(), *[upscaler(hrScale=1)] * 7], ["stages"]),
        "no beginning": ([painted(), upscaler()], ["stages[0].type"]),
        "two beginnings": ([start, start, painted()], ["stages[1].type", "stages[2].type"]),
        "two diffusions": ([start, painted(), painted()], ["stages[2].type"]),
        "late diffusion": ([start, upscaler(), painted()], ["stages[2].type"]),
        "no type": ([start, painted(), {}], ["stages[2].type"]),
        "default": ([start, painted(), {"type": "DEFAULT"}], ["stages[2].type"]),
        "unknown type": ([start, {"type": "PAINT"}], ["stages[1].type"]),
        "number without a type": ([start, {"type": 8}], ["stages[1].type"]),
        "no block": ([start, {"type": "DIFFUSION"}], ["stages[1].diffusion"]),
        "other block": ([start, {"type": "DIFFUSION", "imageToInpaint": {}}], ["stages[1].diffusion"]),
        "no first block": ([{"type": "INPUT_INITIALIZE"}, painted()], ["stages[0].inputInitialize"]),
        "null": ([start, None], ["stages"]),
        "no object": ([start, 7], ["stages[1]"]),
    }

    def check(case: tuple[list[Any], list[str]]) -> None:
        answer = client.post(f"{JOBS}/credits", json={"stages": case[0]})
        assert (answer.status_code, fields(answer)) == (400, case[1])

    check_all(cases, check)


def test_values_of_a_diffusion(client: TestClient) -> None:
    at = "stages[1].diffusion"
    cases: dict[str, tuple[dict[str, Any], list[str]]] = {
        "narrow": ({"width": 448}, [f"{at}.width", "invalid_height_or_width"]),
        "wide": ({"width": 1600}, [f"{at}.width", "invalid_height_or_width"]),
        "step": ({"height": 520}, [f"{at}.height", "invalid_height_or_width"]),
        "both": ({"width": 1, "height": 1}, [f"{at}.width", f"{at}.height", "invalid_height_or_width"]),
        "area": ({"width": 1472, "height": 1472}, [at, "invalid_height_or_width"]),
        "text": ({"width": "wide"}, [f"{at}.width"]),
        "half": ({"width": 512.5}, [f"{at}.width"]),
        "truth": ({"steps": True}, [f"{at}.steps"]),
        "infinite": ({"cfgScale": "Infinity"}, [f"{at}.cfgScale"]),
        "not a number": ({"cfgScale": "NaN"}, [f"{at}.cfgScale"]),
        "steps": ({"steps": 61}, [f"{at}.steps"]),
        "no steps": ({"steps": -1}, [f"{at}.steps"]),
        "cfg": ({"cfgScale": 35.5}, [f"{at}.cfgScale"]),
        "strength": ({"denoisingStrength": 1.1}, [f"{at}.denoisingStrength"]),
        "clip skip": ({"clipSkip": 13}, [f"{at}.clipSkip"]),
        "sampler": ({"sampler": "Euler b"}, [f"{at}.sampler"]),
        "schedule": ({"scheduleName": "steep"}, [f"{at}.scheduleName"]),
        "lora as checkpoint": ({"sdModel": "2"}, [f"{at}.sdModel"]),
        "vae": ({"sdVae": "nobodys.pt"}, [f"{at}.sdVae"]),
        "unknown lora": ({"lora": {"items": [{"loraModel": "9"}]}}, [f"{at}.lora.items[0].loraModel"]),
        "checkpoint as lora": ({"lora": {"items": [{"loraModel": 1}]}}, [f"{at}.lora.items[0].loraModel"]),
        "lora without a number": ({"lora": {"items": [{}]}}, [f"{at}.lora.items[0].loraModel"]),
        "prompts": ({"prompts": [{"text": "a"}] * 151}, [f"{at}.prompts"]),
        "long prompt": ({"prompts": [{"text": "a" * 20_001}]}, [f"{at}.prompts"]),
        "prompt as text": ({"prompts": "a ball"}, [f"{at}.prompts"]),
        "weight": ({"prompts": [{"weight": "heavy"}]}, [f"{at}.prompts[0].weight"]),
        "null in a list": ({"prompts": [None]}, [f"{at}.prompts"]),
        "twice": ({"sd_model": "1"}, [f"{at}.sdModel"]),
    }

    check_all(cases, lambda case: _equal(refused(client, painted(**case[0])), case[1]))


def test_values_of_the_first_stage(client: TestClient) -> None:
    at = "stages[0].inputInitialize"
    cases: dict[str, tuple[dict[str, Any], list[str]]] = {
        "65 pictures": ({"count": 65}, [f"{at}.count", "invalid_samples"]),
        "fewer than none": ({"count": -1}, [f"{at}.count", "invalid_samples"]),
        "seed": ({"seed": 2**32}, [f"{at}.seed"]),
        "negative seed": ({"seed": -2}, [f"{at}.seed"]),
        "no resource": ({"imageResourceId": "../../secret"}, [f"{at}.imageResourceId"]),
    }
    check_all(cases, lambda case: _equal(refused(client, painted(), start=case[0]), case[1]))


def _equal(one: object, two: object) -> None:
    assert one == two


def test_values_of_an_upscaler(client: TestClient, picture: str) -> None:
    at = "stages[2].imageToUpscaler"
    cases: dict[str, tuple[dict[str, Any], list[str]]] = {
        "name": ({"hrUpscaler": "5x"}, [f"{at}.hrUpscaler"]),
        "no name": ({"hrUpscaler": ""}, [f"{at}.hrUpscaler"]),
        "no steps": ({"hrSecondPassSteps": None}, [f"{at}.hrSecondPassSteps"]),
        "steps": ({"hrSecondPassSteps": 61}, [f"{at}.hrSecondPassSteps"]),
        "no strength": ({"denoisingStrength": None}, [f"{at}.denoisingStrength"]),
        "no target": ({"hrScale": 0}, [at]),
        "negative": ({"hrScale": -2}, [f"{at}.hrScale", at, "invalid_height_or_width"]),
        "too large": ({"hrScale": 6}, [at, "invalid_height_or_width"]),
        "too small": ({"hrScale": 0.5}, [at, "invalid_height_or_width"]),
        "side": ({"hrScale": None, "hrResizeX": 1000}, [f"{at}.hrResizeX", "invalid_height_or_width"]),
        "short side": ({"hrScale": None, "hrResizeY": 64}, [f"{at}.hrResizeY", at, "invalid_height_or_width"]),
    }
    check_all(cases, lambda case: _equal(refused(client, painted(), upscaler(**case[0])), case[1]))


@pytest.mark.parametrize("name", ["Latent", "latent (Bicubic antialiased)"])
def test_latents_cannot_follow_an_image_to_image(client: TestClient, picture: str, name: str) -> None:
    start = {"imageResourceId": picture}
    later = upscaler(hrUpscaler=name)
    assert refused(client, painted(), later, start=start) == ["stages[2].imageToUpscaler.hrUpscaler"]
    answer = client.post(f"{JOBS}/credits", json={"stages": stages(painted(), later)})
    assert answer.status_code == 200


def test_jobs_on_the_upload_itself(client: TestClient, picture: str) -> None:
    own = diffusion()
    at = "stages[0].inputInitialize"
    assert refused(client, upscaler(diffusion=own)) == [f"{at}.imageResourceId"]
    two = {"imageResourceId": picture, "count": 2}
    assert refused(client, upscaler(diffusion=own), start=two) == [f"{at}.count", "invalid_samples"]
    for later, name in (
        (upscaler(), "imageToUpscaler"),
        (adetailer(), "imageToAdetailer"),
        (inpaint(picture), "imageToInpaint"),
    ):
        assert refused(client, later, start={"imageResourceId": picture}) == [f"stages[1].{name}.diffusion"]


def test_values_of_masks_and_parts(client: TestClient, picture: str) -> None:
    at = "stages[2].imageToInpaint"
    assert refused(client, painted(), inpaint(None)) == [f"{at}.maskImageResourceId"]
    assert refused(client, painted(), inpaint("nothing")) == [f"{at}.maskImageResourceId"]
    assert refused(client, painted(), inpaint(picture, maskBlur=-1)) == [f"{at}.maskBlur"]
    assert refused(client, painted(), inpaint(picture, inpaintMaskInvert=2)) == [f"{at}.inpaintMaskInvert"]
    assert refused(client, painted(), inpaint(picture, resizeMode="FOLD")) == [f"{at}.resizeMode"]
    at = "stages[2].imageToAdetailer.args[0]"
    assert refused(client, painted(), adetailer(adModel="nose.pt")) == [f"{at}.adModel"]
    assert refused(client, painted(), adetailer(adMaskMergeInvert="Both")) == [f"{at}.adMaskMergeInvert"]
    assert refused(client, painted(), adetailer(adConfidence=2)) == [f"{at}.adConfidence"]
    assert refused(client, painted(), adetailer(adUseSteps=True, adSteps=61)) == [f"{at}.adSteps"]
    assert refused(client, painted(), adetailer(adUseSteps="perhaps")) == [f"{at}.adUseSteps"]


CANNY_FILE, STRUCTURE_FILE = "control-lora-canny-rank128.safetensors", "fooocus_xl_cpds_128.safetensors"


@pytest.fixture
def canny(house: House, picture: str) -> Iterator[dict[str, Any]]:
    """An entry for edges, whose network is there."""
    house.library.names["controlnet"] = [CANNY_FILE]
    yield {"model": "control_v11p_sd15_canny", "preprocessor": "canny", "inputImageResourceId": picture}
    house.library.names["controlnet"] = []


def asked_of(client: TestClient, *later: Any, **values: Any) -> tuple[int, list[str]]:
    """Status and fields of what the price of these stages is answered with."""
    answer = client.post(f"{JOBS}/credits", json={"stages": stages(*later, **values)})
    return answer.status_code, [] if answer.status_code == 200 else fields(answer)


def test_what_control_networks_are_not_there_for(
    client: TestClient, house: House, canny: dict[str, Any], picture: str
) -> None:
    at = "stages[1].diffusion.controlnet.args[0]"
    cases: dict[str, tuple[dict[str, Any], tuple[int, list[str]]]] = {
        "there": ({}, (200, [])),
        "off": ({"model": "None", "preprocessor": None}, (200, [])),
        "depth": ({"model": "control_v11f1p_sd15_depth"}, (501, [f"{at}.model"])),
        "pose": ({"model": "control_v11p_sd15_openpose", "preprocessor": "openpose"}, (501, [f"{at}.model"])),
        "file of structure": ({"model": "control_v1p_sd15_brightness"}, (501, [f"{at}.model", f"{at}.preprocessor"])),
        "other preprocessor": ({"preprocessor": "lineart_realistic"}, (501, [f"{at}.preprocessor"])),
        "no resource": ({"inputImageResourceId": "nothing"}, (400, [f"{at}.inputImageResourceId"])),
        "no mask": ({"maskResourceId": "nothing"}, (400, [f"{at}.maskResourceId"])),
        "no older mask": ({"mask": "nothing"}, (400, [f"{at}.mask"])),
        "empty names": ({"model": "", "preprocessor": ""}, (400, [f"{at}.model", f"{at}.preprocessor"])),
        "no names": ({"model": None, "preprocessor": ""}, (400, [f"{at}.model", f"{at}.preprocessor"])),
        "late": ({"guidanceStart": 1.5, "guidanceEnd": 1}, (400, [f"{at}.guidanceStart", at])),
        "backwards": ({"guidanceStart": 0.6, "guidanceEnd": 0.5}, (400, [at])),
        "heavy": ({"weight": 2.5}, (400, [f"{at}.weight"])),
        "mode": ({"controlMode": "MINE"}, (400, [f"{at}.controlMode"])),
    }

    def check(case: tuple[dict[str, Any], tuple[int, list[str]]]) -> None:
        assert asked_of(client, painted(controlNet={"args": [{**canny, **case[0]}]})) == case[1]

    check_all(cases, check)
    five = asked_of(client, painted(controlnet={"args": [canny] * 5}))
    assert five == (400, ["stages[1].diffusion.controlnet.args"])
    house.library.names["controlnet"] = []
    assert asked_of(client, painted(controlnet={"args": [canny]})) == (501, [f"{at}.model"])
    assert asked_of(client, painted(controlnet={"args": []})) == (200, [])


def test_what_control_entries_mean(client: TestClient, house: House, canny: dict[str, Any], picture: str) -> None:
    house.library.names["controlnet"] = [CANNY_FILE, STRUCTURE_FILE]
    args = [
        canny,
        {**canny, "guidanceStart": 0.25, "guidanceEnd": 0.5, "weight": "0.8", "resizeMode": "JUST_RESIZE"},
        {**canny, "preprocessor": "none", "controlMode": "MY_PROMPT_IS_MORE_IMPORTANT", "mask": picture},
        {
            **canny,
            "model": "control_v1p_sd15_qrcode_monster",
            "preprocessor": "None",
            "controlMode": 3,
            "resizeMode": "RESIZE_AND_FILL",
        },
    ]
    name = f"resource-{picture}"
    plan = plan_of(client, house, painted(controlnet={"args": args}))
    assert first(plan).guides == Guides(
        (
            Guide(name, "PyraCanny", 1.0, 1.0),
            Guide(name, "PyraCanny", 0.5, 0.8, start=0.25, resize="stretch"),
            Guide(name, "PyraCanny", 1.0, 1.0, softness=0.9, mask=f"mask-{picture}", is_prepared=True),
            Guide(name, "CPDS", 1.0, 1.0, resize="contain", is_prepared=True, only_positive=True),
        ),
        softness=0.0,
    )
    assert plan.pictures == (name, name, name, f"mask-{picture}", name)


def test_control_networks_by_the_table_of_models(client: TestClient, house: House, canny: dict[str, Any]) -> None:
    for model in ("77", 77, "My Lines"):
        guides = first(plan_of(client, house, painted(controlnet={"args": [{**canny, "model": model}]}))).guides
        assert guides is not None
        assert [guide.kind for guide in guides.pictures] == ["PyraCanny"]
    unknown = asked_of(client, painted(controlnet={"args": [{**canny, "model": "78"}]}))
    assert unknown == (501, ["stages[1].diffusion.controlnet.args[0].model"])


def test_control_networks_of_later_stages(
    client: TestClient, house: House, canny: dict[str, Any], picture: str
) -> None:
    """They steer whole pictures: a second pass and what is painted anew as a whole, but no parts."""
    start = {"imageResourceId": picture}
    own = diffusion(controlnet={"args": [canny]})
    expected = Guides((Guide(f"resource-{picture}", "PyraCanny", 1.0, 1.0),), softness=0.0)
    whole = inpaint(picture, inpaintFullRes=False, diffusion=own)
    for later in (upscaler(hrScale=1, diffusion=own), whole):
        assert first(plan_of(client, house, later, start=start)).guides == expected
    (_, behind) = plan_of(client, house, painted(), whole).stages
    assert isinstance(behind, Diffuse)
    assert behind.guides == expected
    only_larger = upscaler(hrScale=1, denoisingStrength=0, diffusion=own)
    assert first(plan_of(client, house, only_larger, start=start)).guides is None
    parts = {"type": "IMAGE_TO_ADETAILER", "imageToAdetailer": {"args": [{}], "diffusion": own}}
    for later, name in ((inpaint(picture, diffusion=own), "imageToInpaint"), (parts, "imageToAdetailer")):
        told = asked_of(client, later, start=start)
        assert told == (501, [f"stages[1].{name}.diffusion.controlnet"])
    off = diffusion(controlnet={"args": [{**canny, "model": "None"}]})
    assert asked_of(client, inpaint(picture, diffusion=off), start=start) == (200, [])
    ignored = upscaler(diffusion=diffusion(controlnet={"args": [{"model": "depth"}]}))
    assert asked_of(client, painted(), ignored) == (200, [])


def test_what_is_not_offered_outranks_what_is_wrong(client: TestClient) -> None:
    control = painted(controlnet={"args": [{"model": "control_v11p_sd15_canny"}]}, steps=99)
    for later, field in (
        (control, "stages[1].diffusion.controlnet.args[0].model"),
        (painted(animateDiff={"args": [{"fps": 8}]}), "stages[1].diffusion.animateDiff"),
        ({"type": "VIDEO_DIFFUSION"}, "stages[1].type"),
    ):
        answer = client.post(JOBS, json={"stages": stages(later, start={"count": 9})})
        assert (answer.status_code, answer.json()["code"], fields(answer)) == (501, 12, [field])


@pytest.mark.parametrize("sent", [b"[]", b'"text"', b'{"a": NaN}', b"{", b"\xff{}", b"[" * 100_000, b'{"stages": {}}'])
def test_bodies_that_are_none(client: TestClient, sent: bytes) -> None:
    answer = client.post(JOBS, content=sent)
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


@pytest.mark.parametrize("sent", [b"", b" \n", b"{}", b"null"])
def test_a_body_of_nothing_is_named_by_what_it_lacks(client: TestClient, sent: bytes) -> None:
    answer = client.post(JOBS, content=sent)
    assert answer.status_code == 400
    assert fields(answer) == (["body"] if sent == b"null" else ["requestId", "stages"])


def test_keys_are_neither_empty_nor_long(client: TestClient) -> None:
    for request_id in ("", None, "x" * 129, 7.5, [1]):
        answer = client.post(JOBS, json={**body(), "requestId": request_id})
        assert (answer.status_code, fields(answer)) == (400, ["requestId"])


# --------------------------------------------------------------------------------------------------------------- plans


def test_what_is_said_is_done_and_the_rest_has_its_defaults(client: TestClient, house: House) -> None:
    plan = plan_of(
        client,
        house,
        {"type": "DIFFUSION", "diffusion": {"prompts": [{"text": "a ball"}]}},
        start={"seed": 5, "count": 2},
    )
    stage = first(plan)
    assert plan.only_last_stage
    assert (stage.width_px, stage.height_px, stage.seed, stage.image_number) == (512, 512, 5, 2)
    assert (stage.sampling.sampler, stage.sampling.scheduler, stage.sampling.steps) == ("dpmpp_2m", "karras", 20)
    assert stage.guidance == Guidance.plain(7.0)
    assert (stage.models.checkpoint, stage.models.vae, stage.models.loras) == ("other.safetensors", None, ())
    assert (stage.prompts.syntax, stage.prompts.styles, stage.seed_count) == ("web_ui", (), 2**32)
    assert stage.start is None
    assert (plan.output.image_format, plan.output.save_metadata) == ("png", True)


def test_zero_and_empty_text_count_as_not_said(client: TestClient, house: House) -> None:
    nothing = painted(width=0, height="0", steps=0, cfgScale=0, clipSkip=0, sampler="", sdVae="", scheduleName="")
    stage = first(plan_of(client, house, nothing, start={"seed": "0", "count": 0, "imageResourceId": ""}))
    assert (stage.width_px, stage.sampling.steps, stage.guidance.scale, stage.image_number) == (512, 20, 7.0, 1)
    assert 0 < stage.seed < 2**32
    assert stage.start is None


def test_prompts_are_joined_before_they_are_read(client: TestClient, house: House) -> None:
    prompts = [{"text": " (worst quality"}, {"text": " low quality:1.4)"}, {"text": "x", "weight": 1.25}, {"weight": 0}]
    stage = first(plan_of(client, house, painted(negativePrompts=prompts, prompts=[{"text": "a<lora:x:1>"}, {}])))
    assert stage.prompts.negative_prompt == " (worst quality, low quality:1.4),(x:1.25)"
    assert stage.prompts.prompt == "a"


def test_samplers_by_all_their_names(client: TestClient, house: House) -> None:
    for name, expected in (
        ("Euler_a", ("euler_ancestral", "normal")),
        ("dpm++  2m sde KARRAS", ("dpmpp_2m_sde", "karras")),
        ("DPM++ 3M SDE Exponential", ("dpmpp_3m_sde", "exponential")),
        ("dpmpp_2m", ("dpmpp_2m", "normal")),
        ("DDIM", ("ddim", "ddim_uniform")),
        ("LCM", ("lcm", "sgm_uniform")),
    ):
        sampling = first(plan_of(client, house, painted(sampler=name))).sampling
        assert (sampling.sampler, sampling.scheduler) == expected
    for name in ("normal", "karras", "exponential", "sgm_uniform", "Simple", "ddim_uniform", "beta"):
        sampling = first(plan_of(client, house, painted(sampler="Euler Karras", scheduleName=name))).sampling
        assert (sampling.sampler, sampling.scheduler) == ("euler", name.lower())


def test_models_of_the_table(client: TestClient, house: House, caplog: pytest.LogCaptureFixture) -> None:
    items = [{"loraModel": "2", "weight": "0.5"}, {"loraModel": 3}, {"lora_model": "2"}]
    models = first(plan_of(client, house, painted(sdModel=4, lora={"items": items}))).models
    assert models.checkpoint == "third.safetensors"
    assert models.vae == "taef.safetensors"
    assert models.loras == (Lora("paint.safetensors", 0.5), Lora("paint.safetensors", 1.0))
    assert "gone.safetensors" in caplog.text
    assert first(plan_of(client, house, painted(sdModel="99"))).models.checkpoint == "other.safetensors"
    for name, vae in (("None", None), ("small", "taef.safetensors"), ("YOZORA.vae.pt", "taef.safetensors")):
        assert first(plan_of(client, house, painted(sdModel=4, sdVae=name))).models.vae == vae


def test_image_to_image(client: TestClient, house: House, picture: str) -> None:
    for strength, denoise in ((None, 0.75), (0, 0.75), (0.4, 0.4)):
        plan = plan_of(client, house, painted(denoisingStrength=strength), start={"imageResourceId": picture})
        start = first(plan).start
        assert start is not None
        assert (start.picture, start.denoise, start.stretched) == (f"resource-{picture}", denoise, True)
        assert first(plan).sampling.partial_steps == "share"


def test_an_upscaler_behind_a_diffusion_has_its_parameters(client: TestClient, house: House) -> None:
    own = diffusion(prompts=[{"text": "ignored"}])
    plan = plan_of(client, house, painted(cfgScale=5), upscaler(hrUpscaler="Mine", diffusion=own))
    stage = plan.stages[1]
    assert isinstance(stage, Diffuse)
    assert (stage.width_px, stage.height_px, stage.prompts.prompt) == (1024, 1024, "a red ball")
    assert (stage.sampling.steps, stage.sampling.partial_steps, stage.guidance.scale) == (10, "all", 5.0)
    assert stage.start is not None
    assert (stage.start.picture, stage.start.denoise, stage.start.refine) == (None, 0.3, True)
    assert stage.start.enlarging == Enlarging("network", "mine.pth", factor=2.0)


def test_an_upscaler_on_the_upload(client: TestClient, house: House, picture: str) -> None:
    later = upscaler(
        hrUpscaler="4x-UltraSharp",
        hrScale=None,
        hrResizeX=1280,
        denoisingStrength=0,
        hrSecondPassSteps=0,
        diffusion=diffusion(),
    )
    (stage,) = plan_of(client, house, later, start={"imageResourceId": picture}).stages
    assert isinstance(stage, Diffuse)
    assert stage.start is not None
    assert (stage.width_px, stage.height_px, stage.sampling.steps) == (1280, 1024, 20)
    assert (stage.start.picture, stage.start.refine) == (f"resource-{picture}", False)
    assert stage.start.enlarging == Enlarging("network", None, width_px=1280, stands_for="4x-UltraSharp")
    assert stage.start.method == "4x-UltraSharp"


def test_parts_are_found_and_painted(client: TestClient, house: House) -> None:
    house.library.names["inpaint"] = ["groundingdino_swint_ogc.pth"]
    own = adetailer(
        adModel="hand_yolov8n.pt",
        adConfidence=0.5,
        adMaskMergeInvert="merge and invert",
        adPrompt=[{"text": "one [SEP] [PROMPT] two"}],
        adUseSteps="true",
        adSteps=28,
        adInpaintOnlyMasked=False,
    )
    plan = plan_of(client, house, painted(), own)
    detail = plan.stages[1]
    assert isinstance(detail, Detail)
    (one,) = detail.passes
    assert isinstance(one, PartsPass)
    assert one.find == PartSearch("grounding_dino", "hand", 0.5)
    assert one.prompts == ("one", "a red ball two")
    assert (one.merge, one.denoise, one.dilate_px) == ("merge and invert", 0.4, 4)
    assert one.area == MaskedArea(only_masked=False, padding_px=32)
    assert one.base is not None
    assert one.base.sampling.steps == 28
    (usual,) = plan_of(client, house, painted(), adetailer()).stages[1].passes  # type: ignore[union-attr]
    assert usual == PartsPass(PartSearch("mtcnn", "", 0.3), ("",), ("",))


def test_parts_are_painted_no_smaller_than_the_server_is_told_to(tmp_path: Path) -> None:
    """What the network would see of a part, with the floor and without."""
    own = {"adUseInpaintWidthHeight": True, "adInpaintWidth": 768, "adInpaintHeight": 1536}
    floors: dict[int, list[tuple[int, int]]] = {
        0: [(512, 512), (1536, 768)],
        1024: [(1024, 1024), (1536, 768)],
        1100: [(1104, 1104), (1560, 784)],
    }
    for floor_px, expected in floors.items():
        root = tmp_path / str(floor_px)
        root.mkdir()
        house = House(root, settings=Settings(tams_parts_floor_px=floor_px), engine=blank_engine())
        with serving(house) as client:
            seen = [sampled_of(plan_of(client, house, painted(), adetailer(**values))) for values in ({}, own)]
        assert seen == expected, floor_px


def sampled_of(plan: Plan) -> tuple[int, int]:
    """Height and width of what is cut out for the first pass over parts."""
    detail = plan.stages[1]
    assert isinstance(detail, Detail)
    (one,) = detail.passes
    assert isinstance(one, PartsPass)
    stage = part_stage(detail, one, 1, 0)
    assert stage.repaint is not None
    named = {PICTURE: np.zeros((512, 512, 3), np.uint8), MASK: np.full((512, 512), 255, np.uint8)}
    size = Size(stage.width_px, stage.height_px)
    cut_out = cut_out_of(stage.repaint, named.__getitem__, None, None, size, lambda: None)  # type: ignore[arg-type]
    height, width = cut_out.picture.shape[:2]
    return height, width


def test_detectors_by_the_files_that_are_there(client: TestClient, house: House) -> None:
    def passes(name: str) -> Any:
        return plan_of(client, house, painted(), adetailer(adModel=name)).stages[1].passes  # type: ignore[union-attr]

    house.library.names |= {"inpaint": [], "sam": [], "controlnet": []}
    assert passes("hand_yolov8n.pt") == passes("person_yolov8n-seg.pt") == ()
    assert [one.find.detector for one in passes("Face_of_mine.pt")] == ["mtcnn"]
    house.library.names["inpaint"] = ["groundingdino_swint_ogc.pth"]
    assert [one.find.phrase for one in passes("hand_yolov8n.pt")] == ["hand"]
    assert passes("person_yolov8n-seg.pt") == ()
    house.library.names |= {"sam": ["sam_vit_b_01ec64.pth"], "controlnet": ["detection_Resnet50_Final.pth"]}
    assert [one.find.is_outlined for one in passes("person_yolov8n-seg.pt")] == [True]
    assert [one.find.detector for one in passes("face_yolov8s.pt")] == ["retinaface"]
    house.library.names["controlnet"] = []


def test_masks_are_painted_anew(client: TestClient, house: House, picture: str) -> None:
    own = diffusion(width=640, denoisingStrength=0.6)
    later = inpaint(
        picture,
        diffusion=own,
        maskBlur="8",
        inpaintingFill="LATENT_NOISE",
        inpaintFullRes=False,
        resizeMode=2,
        inpaintMaskInvert=1,
    )
    plan = plan_of(client, house, painted(), later)
    stage = plan.stages[1]
    assert isinstance(stage, Diffuse)
    assert stage.repaint is not None
    assert (stage.width_px, stage.repaint.picture, stage.repaint.mask) == (640, None, f"mask-{picture}")
    assert (stage.repaint.denoise, stage.repaint.engine) == (0.6, "None")
    assert stage.repaint.area == MaskedArea(True, 8.0, False, 32, "noise", "cover")


@pytest.mark.parametrize(
    ("said", "content"),
    [
        (None, "original"),
        ("DEFAULT", "original"),
        ("FILL", "fill"),
        ("ORIGINAL", "original"),
        ("LATENT_NOISE", "noise"),
        ("LATENT_NOTHING", "nothing"),
        (0, "original"),
        (1, "fill"),
        (4, "nothing"),
    ],
)
def test_what_masked_parts_start_from(client: TestClient, house: House, picture: str, said: Any, content: str) -> None:
    stage = plan_of(client, house, painted(), inpaint(picture, inpaintingFill=said)).stages[1]
    assert isinstance(stage, Diffuse)
    assert stage.repaint is not None
    assert stage.repaint.area == MaskedArea(False, 4.0, True, 32, content)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "resize"),
    [
        (None, "stretch"),
        ("DEFAULT", "stretch"),
        ("JUST_RESIZE", "stretch"),
        ("CROP_AND_RESIZE", "cover"),
        ("RESIZE_AND_FILL", "contain"),
        ("JUST_RESIZE_LATENT_UPSCALE", "latent"),
        (3, "contain"),
    ],
)
def test_how_whole_pictures_get_their_size(
    client: TestClient, house: House, picture: str, said: Any, resize: str
) -> None:
    stage = plan_of(client, house, painted(), inpaint(picture, resizeMode=said, inpaintFullRes="false")).stages[1]
    assert isinstance(stage, Diffuse)
    assert stage.repaint is not None
    assert stage.repaint.area is not None
    assert (stage.repaint.area.resize, stage.repaint.area.only_masked) == (resize, False)


def test_the_layer_that_sdxl_is_read_at(client: TestClient, house: House, caplog: pytest.LogCaptureFixture) -> None:
    """It is always that which it was trained for; another wish is told in the log."""
    for value in (None, 0, 1, 2, 3, 12):
        caplog.clear()
        assert first(plan_of(client, house, painted(clipSkip=value))).models.clip_skip == 2
        assert ("clipSkip" in caplog.text) is (value is not None and value > 2)


@pytest.mark.parametrize("kind", [None, "text/xml", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_bodies_are_json_whatever_their_type_says(client: TestClient, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    answer = client.post(f"{JOBS}/credits", content=json.dumps({"stages": stages(painted())}), headers=headers)
    assert answer.json() == {"credits": 0.8}


def test_sides_in_small_steps_where_they_are_let(tmp_path: Path) -> None:
    with serving(House(tmp_path, settings=Settings(tams_lenient_sizes=True))) as client:
        for width, status in ((1360, 200), (1361, 400)):
            answer = client.post(f"{JOBS}/credits", json={"stages": stages(painted(width=width))})
            assert answer.status_code == status


def test_unknown_fields_are_named_in_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        client.post(f"{JOBS}/credits", json={"request_id": "x", "stages": stages(painted(enableElla=True))})
    assert "unknown field ignored: request_id" in caplog.text
    assert "unknown field ignored: stages[1].diffusion.enableElla" in caplog.text


# -------------------------------------------------------------------------------------------------------------- credits


TWO_PARTS = {"type": "IMAGE_TO_ADETAILER", "imageToAdetailer": {"args": [{}, {"adModel": "hand_yolov8n.pt"}]}}


@pytest.mark.parametrize(
    ("later", "start", "expected"),
    [
        # The sums of the vendor's worked example: 0.8 + 1.6 + 2.4.
        ([painted(width=768, height=1024), TWO_PARTS, upscaler(hrSecondPassSteps=20)], {}, 4.8),
        ([painted(), upscaler(hrScale=3, hrSecondPassSteps=20), adetailer()], {}, 0.8 + 0.8 * 2.5 + 0.8 * 2.5),
        ([painted(steps=21)], {"count": 3}, 3.0),
        ([painted(), {"type": "IMAGE_TO_ADETAILER", "imageToAdetailer": {}}], {}, 0.8),
        ([painted(), upscaler(hrSecondPassSteps=0)], {}, 1.6),
    ],
)
def test_prices(client: TestClient, later: list[Any], start: dict[str, Any], expected: float) -> None:
    answer = client.post(f"{JOBS}/credits", json={"stages": stages(*later, start=start or {"seed": 1})})
    assert answer.json() == {"credits": pytest.approx(expected)}


def test_an_upload_that_has_not_come_is_priced_by_the_block(client: TestClient) -> None:
    later = upscaler(diffusion=diffusion(width=1024, height=1024))
    start = {"imageResourceId": reserved(client)["resourceId"]}
    answer = client.post(f"{JOBS}/credits", json={"stages": stages(later, start=start)})
    assert answer.json() == {"credits": 0.4 * 8 / 2 * 2 / 2}
