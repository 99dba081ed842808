"""Image prompts over HTTP: the list, the fields of forms, what is left out, and what is refused by which name."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from fooocus_core.plan import Guide, Guides
from fooocusapi.settings import Settings
from tests.fooocusapi.served import House, query, serving
from tests.fooocusapi.surfaces.classic.pictures import (
    accepted,
    bomb,
    half,
    nothing_kept,
    plain,
    refused_field,
    stage_of,
    text,
)

WITH_PROMPTS = "/v2/generation/text-to-image-with-ip"
PROMPT_V1, PROMPT_V2 = "/v1/generation/image-prompt", "/v2/generation/image-prompt"
VARY_V1, VARY_V2 = "/v1/generation/image-upscale-vary", "/v2/generation/image-upscale-vary"
INPAINT_V1, INPAINT_V2 = "/v1/generation/image-inpaint-outpaint", "/v2/generation/image-inpaint-outpaint"
PICTURE, MASK = plain(40, 60, 90), half(40, 60)
GREYS = [plain(16, 16, level) for level in (10, 20, 30, 40, 50, 60)]
TEXTS = [text(grey) for grey in GREYS]
STEERED = {"image_prompts": [{"cn_img": TEXTS[0]}]}
BY_DEFAULT = {
    "ImagePrompt": (0.5, 0.6),
    "FaceSwap": (0.9, 0.75),
    "PyraCanny": (0.5, 1.0),
    "CPDS": (0.5, 1.0),
}


@pytest.fixture
def house(shared: House) -> House:
    return shared


@pytest.fixture
def client(shared_client: TestClient) -> TestClient:
    return shared_client


@pytest.fixture
def levels(house: House) -> list[int]:
    """The greys of the pictures by which the engine was told to steer, in their order."""
    seen: list[int] = []
    story = house.engine._story

    def looking(plan: Any) -> Any:
        guides = plan.stages[0].guides
        seen[:] = [int(house.kept.read(guide.picture)[0, 0, 0]) for guide in (guides.pictures if guides else ())]
        house.engine._story = story
        yield from story(plan)

    house.engine._story = looking
    return seen


def guides_of(house: House) -> Guides:
    guides = stage_of(house).guides
    assert guides is not None
    return guides


def guided(client: TestClient, house: House, path: str = WITH_PROMPTS, **sent: Any) -> list[tuple[str, float, float]]:
    """Kind, stop and weight of each guide that the engine was given."""
    accepted(client, path, **sent)
    return [(guide.kind, guide.stop, guide.weight) for guide in guides_of(house).pictures]


# ------------------------------------------------------------------------------------------------------------ the list


@pytest.mark.parametrize("path", [WITH_PROMPTS, PROMPT_V2, PROMPT_V1, VARY_V2, VARY_V1, INPAINT_V2, INPAINT_V1])
def test_json_steers_everywhere(house: House, client: TestClient, levels: list[int], path: str) -> None:
    body = {"input_image": text(PICTURE), "input_mask": text(MASK), "image_prompts": [{"cn_img": TEXTS[2]}]}
    assert guided(client, house, path, json=body) == [("ImagePrompt", 0.5, 0.6)]
    assert levels == [30]
    stage = stage_of(house)
    assert (stage.start is not None, stage.repaint is not None) == (
        "vary" in path,
        path in (PROMPT_V1, PROMPT_V2, INPAINT_V1, INPAINT_V2),
    )


@pytest.mark.parametrize(("kind", "values"), BY_DEFAULT.items())
@pytest.mark.parametrize("unsaid", [{}, {"cn_stop": 0, "cn_weight": 0}, {"cn_stop": None, "cn_weight": ""}])
def test_every_kind_has_defaults_of_its_own(
    house: House, client: TestClient, kind: str, values: tuple[float, float], unsaid: dict[str, Any]
) -> None:
    entry = {"cn_img": TEXTS[0], "cn_type": kind, **unsaid}
    assert guided(client, house, json={"image_prompts": [entry]}) == [(kind, *values)]


@pytest.mark.parametrize(
    ("spelt", "kind"),
    [("Image Prompt", "ImagePrompt"), (" faceswap ", "FaceSwap"), ("PYRA CANNY", "PyraCanny"), ("cpds", "CPDS"),
     ("", "ImagePrompt"), (None, "ImagePrompt")],
)  # fmt: skip
def test_kinds_in_every_spelling(house: House, client: TestClient, spelt: Any, kind: str) -> None:
    ((found, _, _),) = guided(client, house, json={"image_prompts": [{"cn_img": TEXTS[0], "cn_type": spelt}]})
    assert found == kind


def test_numbers_may_be_text(house: House, client: TestClient) -> None:
    entry = {"cn_img": f"data:image/png;base64,{TEXTS[0]}", "cn_stop": "0.25", "cn_weight": " 1.5 "}
    assert guided(client, house, json={"image_prompts": [entry]}) == [("ImagePrompt", 0.25, 1.5)]


def test_entries_without_a_picture_are_skipped_and_the_first_four_count(
    house: House, client: TestClient, levels: list[int]
) -> None:
    empty = [{"cn_img": value} for value in ("", None, "None", "string")]
    entries = [*empty, {}, None, *({"cn_img": picture} for picture in TEXTS)]
    accepted(client, PROMPT_V2, json={"image_prompts": entries})
    assert levels == [10, 20, 30, 40]


@pytest.mark.parametrize("value", [[], "[]", "", None, "None", [None], [{}], [{"cn_img": "", "cn_type": "FaceSwap"}]])
@pytest.mark.parametrize("path", [WITH_PROMPTS, PROMPT_V2])
def test_no_image_prompt(house: House, client: TestClient, path: str, value: Any) -> None:
    accepted(client, path, json={"image_prompts": value})
    assert stage_of(house).guides is None
    accepted(client, path, json={"prompt": "a ball"})
    assert stage_of(house).guides is None


def test_text_to_image_with_prompts_is_text_to_image(house: House, client: TestClient) -> None:
    accepted(client, WITH_PROMPTS, json={**STEERED, "outpaint_selections": ["Left"], "input_image": text(PICTURE)})
    assert (stage_of(house).repaint, stage_of(house).width_px) == (None, 1152)
    assert job_type(client) == "Text to Image"
    accepted(client, PROMPT_V2, json={"input_image": text(PICTURE), "input_mask": text(MASK)})
    assert job_type(client) == "Image Prompt"


def job_type(client: TestClient) -> str:
    job_id = client.get("/v1/generation/job-queue").json()["last_job_id"]
    return str(query(client, job_id)["job_type"])


def test_a_vary_that_is_switched_off_is_steered_text_to_image(house: House, client: TestClient) -> None:
    guided(client, house, VARY_V2, json={**STEERED, "input_image": text(PICTURE), "uov_method": "Disabled"})
    assert (stage_of(house).start, stage_of(house).width_px) == (None, 1152)
    assert nothing_kept(house)


def test_the_finer_controls_are_passed_on(house: House, client: TestClient) -> None:
    finer = {
        "controlnet_softness": 0.5,
        "canny_low_threshold": 1,
        "canny_high_threshold": "255",
        "skipping_cn_preprocessor": True,
        "debugging_cn_preprocessor": "1",
        "mixing_image_prompt_and_inpaint": False,
    }
    accepted(client, WITH_PROMPTS, json={**STEERED, "advanced_params": finer})
    guides = guides_of(house)
    assert guides == Guides(guides.pictures, 0.5, 1, 255, use_preprocessor=False, only_prepare=True)
    accepted(client, WITH_PROMPTS, json=STEERED)
    assert guides_of(house) == Guides(guides.pictures)


# --------------------------------------------------------------------------------------------------------------- forms


def test_the_fields_of_a_form(house: House, client: TestClient, levels: list[int]) -> None:
    files = {"cn_img1": GREYS[0], "cn_img3": ("cn_img3", GREYS[2]), "cn_img2": b""}
    data = {
        "cn_img4": TEXTS[3],
        "cn_stop1": "",
        "cn_weight1": "",
        "cn_type1": "",
        "cn_type3": "pyra canny",
        "cn_stop3": "0.25",
        "cn_weight4": "2",
        "cn_type4": "FaceSwap",
        "input_image": "",
        "input_mask": "",
        "advanced_params": "",
    }
    assert guided(client, house, PROMPT_V1, files=files, data=data) == [
        ("ImagePrompt", 0.5, 0.6),
        ("PyraCanny", 0.25, 1.0),
        ("FaceSwap", 0.9, 2.0),
    ]
    assert levels == [10, 30, 40]
    assert not house.engine.plans[-1].output.save_metadata


def test_a_form_may_repaint_and_steer_at_once(house: House, client: TestClient) -> None:
    files = {"input_image": PICTURE, "input_mask": MASK, "cn_img1": GREYS[0]}
    assert guided(client, house, PROMPT_V1, files=files) == [("ImagePrompt", 0.5, 0.6)]
    assert stage_of(house).repaint is not None
    assert (stage_of(house).width_px, stage_of(house).height_px) == (60, 40)


@pytest.mark.parametrize(
    "listed",
    [
        "[{'cn_stop': 0.3, 'cn_weight': None, 'cn_type': 'CPDS'}, {'cn_img': 'x', 'cn_weight': 2, 'cn_stop': 0.3}]",
        '[{"cn_stop": 0.3, "cn_type": "cpds"}, {"cn_img": "broken", "cn_weight": 2, "cn_stop": 0.3}]',
        ["{'cn_stop': 0.3, 'cn_type': 'CPDS', 'cn_img': None}", '{"cn_weight": 2, "cn_stop": 0.3}'],
    ],
)
def test_a_forms_list_says_what_its_fields_do_not(house: House, client: TestClient, listed: Any) -> None:
    data = {"image_prompts": listed, "cn_stop2": "0.7"}
    files = {"cn_img1": GREYS[0], "cn_img2": GREYS[1]}
    assert guided(client, house, PROMPT_V1, files=files, data=data) == [("CPDS", 0.3, 1.0), ("ImagePrompt", 0.7, 2.0)]


@pytest.mark.parametrize(
    "listed",
    ["[]", "", "{broken", "null", "5", "[5, null, [1]]", "[{'cn_type': 'Bogus', 'cn_stop': 0.3}]",
     "[{'cn_stop': 9, 'cn_weight': 0.3}]", "[{'cn_img': '<_io.BufferedReader>'}]", ["x", "y"], "[" * 5000],
)  # fmt: skip
def test_a_forms_list_that_says_nothing_is_no_fault(house: House, client: TestClient, listed: Any) -> None:
    answer = guided(client, house, PROMPT_V1, files={"cn_img1": GREYS[0]}, data={"image_prompts": listed})
    assert answer == [("ImagePrompt", 0.5, 0.6)]
    for path in (VARY_V1, INPAINT_V1):
        data = {"image_prompts": listed, "uov_method": "Vary (Subtle)", "cn_img1": TEXTS[0]}
        accepted(client, path, files={"input_image": PICTURE}, data=data)
        assert stage_of(house).guides is None


@pytest.mark.parametrize("path", [WITH_PROMPTS, PROMPT_V2, VARY_V2, INPAINT_V2])
def test_a_form_under_v2_is_read_like_json(house: House, client: TestClient, levels: list[int], path: str) -> None:
    listed = f"[{{'cn_img': '{TEXTS[1]}', 'cn_type': 'CPDS'}}, {{'cn_img': ''}}]"
    accepted(client, path, files={"input_image": PICTURE}, data={"image_prompts": listed})
    assert levels == [20]
    assert house.engine.plans[-1].output.save_metadata


@pytest.mark.parametrize("path", [PROMPT_V1, PROMPT_V2])
def test_the_fields_of_forms_are_read_from_json_too(
    house: House, client: TestClient, levels: list[int], path: str
) -> None:
    body = {"cn_img2": TEXTS[1], "cn_type2": "CPDS", "image_prompts": [{"cn_img": TEXTS[0]}, {"cn_stop": 0.3}]}
    assert guided(client, house, path, json=body) == [("ImagePrompt", 0.5, 0.6), ("CPDS", 0.3, 1.0)]
    assert levels == [10, 20]


def test_files_under_v2(house: House, client: TestClient, levels: list[int]) -> None:
    accepted(client, PROMPT_V2, files={"cn_img1": GREYS[3]}, data={"cn_type1": "FaceSwap"})
    assert levels == [40]
    assert guides_of(house).pictures == (Guide(guides_of(house).pictures[0].picture, "FaceSwap", 0.9, 0.75),)


# ----------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"cn_stop": 1.1}, ["image_prompts", 1, "cn_stop"]),
        ({"cn_stop": -0.1}, ["image_prompts", 1, "cn_stop"]),
        ({"cn_weight": 2.1}, ["image_prompts", 1, "cn_weight"]),
        ({"cn_weight": "much"}, ["image_prompts", 1, "cn_weight"]),
        ({"cn_type": "Depth"}, ["image_prompts", 1, "cn_type"]),
        ("x", ["image_prompts", 1]),
        (5, ["image_prompts", 1]),
    ],
)
@pytest.mark.parametrize("path", [WITH_PROMPTS, PROMPT_V2, VARY_V2, INPAINT_V2])
def test_a_wrong_entry_is_named(client: TestClient, path: str, entry: Any, field: list[Any]) -> None:
    body = {"input_image": text(PICTURE), "image_prompts": [{"cn_img": TEXTS[0]}, entry]}
    assert refused_field(client, path, json=body) == field


@pytest.mark.parametrize(
    ("name", "value"), [("cn_stop2", "1.1"), ("cn_weight1", "-1"), ("cn_weight4", "x"), ("cn_type3", "Depth")]
)
def test_a_wrong_field_of_a_form_is_named(client: TestClient, name: str, value: str) -> None:
    assert refused_field(client, PROMPT_V1, files={"cn_img1": GREYS[0]}, data={name: value}) == [name]


@pytest.mark.parametrize("value", [5, {"cn_img": "x"}, "not a list", True])
def test_what_is_no_list_is_named(client: TestClient, value: Any) -> None:
    assert refused_field(client, WITH_PROMPTS, json={"image_prompts": value}) == ["image_prompts"]


BAD_PICTURES: dict[str, Any] = {
    "words": "no picture!",
    "a page": text(b"<!DOCTYPE html><html></html>"),
    "truncated": text(plain(200, 200)[:60]),
    "one pixel": text(plain(1, 1)),
    "a bomb": text(bomb()),
    "an address that does not answer": "http://192.0.2.1/picture.png",
    "a picture of this server that is gone": "http://127.0.0.1:8888/files/2025-02-23/gone-0.png",
    "another scheme": "file:///etc/passwd",
    "a number": 5,
    "a list": ["x"],
}
GOOD: dict[str, Any] = {"input_image": text(PICTURE), "input_mask": text(MASK)}
LISTED: dict[str, Any] = {"image_prompts": [{"cn_img": TEXTS[0]}, {"cn_img": TEXTS[1]}]}
PLACES = [
    *((path, ("input_image",)) for path in (VARY_V1, VARY_V2, INPAINT_V1, INPAINT_V2, PROMPT_V1, PROMPT_V2)),
    *((path, ("input_mask",)) for path in (INPAINT_V1, INPAINT_V2, PROMPT_V1, PROMPT_V2)),
    *((path, ("image_prompts", 1, "cn_img")) for path in (VARY_V2, INPAINT_V2, PROMPT_V1, PROMPT_V2, WITH_PROMPTS)),
    *((PROMPT_V1, (f"cn_img{number}",)) for number in (1, 2, 3, 4)),
]


def with_bad(place: tuple[Any, ...], bad: Any) -> dict[str, Any]:
    """A body that is good but for the picture at ``place``."""
    if len(place) == 1:
        return {**GOOD, **LISTED, place[0]: bad}
    return {**GOOD, "image_prompts": [LISTED["image_prompts"][0], {"cn_img": bad}]}


@pytest.mark.parametrize(("path", "place"), PLACES)
def test_a_picture_that_cannot_be_used_is_named_and_leaves_nothing(
    house: House, client: TestClient, path: str, place: tuple[Any, ...]
) -> None:
    before = len(house.engine.plans)
    for name, bad in BAD_PICTURES.items():
        answer = client.post(path, json=with_bad(place, bad))
        assert answer.status_code == 422, name
        (fault,) = answer.json()["detail"]
        assert fault["loc"] == ["body", *place], name
        assert fault["msg"]
        assert len(answer.content) < 3000
        assert answer.json()["body"]["image_prompts"]
    assert len(house.engine.plans) == before
    assert nothing_kept(house)


FILES = {"input_image": PICTURE, "input_mask": MASK, "cn_img1": GREYS[0], "cn_img2": GREYS[1]}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (VARY_V1, "input_image"),
        (INPAINT_V1, "input_image"),
        (INPAINT_V1, "input_mask"),
        *((PROMPT_V1, field) for field in FILES),
        *((PROMPT_V2, field) for field in FILES),
    ],
)
@pytest.mark.parametrize("bad", [b"no picture", plain(200, 200)[:60], plain(1, 1), bomb()])
def test_a_file_that_cannot_be_used_is_named(client: TestClient, path: str, field: str, bad: bytes) -> None:
    files = {**FILES, field: ("bad.png", bad)}
    answer = client.post(path, files=files, data={"uov_method": "Vary (Subtle)"})
    assert answer.status_code == 422
    (fault,) = answer.json()["detail"]
    assert (fault["loc"], fault["input"]) == (["body", field], "bad.png")
    assert answer.json()["body"][field] == "bad.png"


def test_what_is_not_used_is_not_looked_at(client: TestClient) -> None:
    surplus = [{"cn_img": picture} for picture in TEXTS[:4]] + [{"cn_img": "no picture!"}]
    accepted(client, PROMPT_V2, json={"image_prompts": surplus})
    accepted(client, VARY_V1, files={"input_image": PICTURE}, data={"uov_method": "Disabled", "cn_img1": "no picture!"})


# -------------------------------------------------------------------------------------------------------------- history


def test_the_history_tells_the_slots(tmp_path: Any) -> None:
    entries = [{"cn_img": TEXTS[0], "cn_type": "CPDS"}, {}, {"cn_img": TEXTS[1], "cn_stop": 0.2, "cn_weight": 0.3}]
    house = House(tmp_path, settings=Settings(persistent=True))
    with serving(house) as client:
        accepted(client, WITH_PROMPTS, json={"image_prompts": entries})
        (job,) = client.get("/v1/generation/job-history").json()["history"]
    neutral = [0.5, 0.6, "ImagePrompt"]
    assert job["params"]["image_prompts"] == [[0.5, 1.0, "CPDS"], [0.2, 0.3, "ImagePrompt"], neutral, neutral]


def test_a_picture_that_came_twice_goes_once_nobody_needs_it(house: House, client: TestClient) -> None:
    same = [{"cn_img": text(PICTURE)}, {"cn_img": text(PICTURE)}]
    accepted(client, PROMPT_V2, json={**GOOD, "image_prompts": same})
    assert len({guide.picture for guide in guides_of(house).pictures}) == 1
    assert nothing_kept(house)
