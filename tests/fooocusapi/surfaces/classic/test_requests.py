"""What clients send: every lenient form, every refusal by name, and what the core is told."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from fastapi.testclient import TestClient

from fooocus_core.plan import Diffuse, FreeU, Lora
from fooocus_core.request import GenerationRequest
from fooocusapi.surfaces.classic.schemas import AdvancedParams, CommonRequest
from fooocusapi.surfaces.classic.translate import to_request
from tests.fooocusapi.served import DRAWN_SEED, TEXT_TO_IMAGE, House


@pytest.fixture
def house(shared: House) -> House:
    return shared


@pytest.fixture
def client(shared_client: TestClient) -> TestClient:
    """One server for all: what a refused body broke, the next test would find."""
    return shared_client


def translated(body: dict[str, Any]) -> GenerationRequest:
    return to_request(CommonRequest.model_validate(body))


def advanced(**fields: Any) -> dict[str, Any]:
    return {"advanced_params": fields}


def posted(client: TestClient, house: House, body: Any) -> Diffuse:
    """What the engine was given for ``body``."""
    answer = client.post(TEXT_TO_IMAGE, json=body)
    assert answer.status_code == 200, answer.text
    stage = house.engine.plans[-1].stages[0]
    assert isinstance(stage, Diffuse)
    return stage


def refusal(client: TestClient, body: Any) -> dict[str, Any]:
    """The one fault that ``body`` is refused for."""
    answer = client.post(TEXT_TO_IMAGE, json=body)
    assert answer.status_code == 422, answer.text
    assert set(answer.json()) == {"detail", "body"}
    (fault,) = answer.json()["detail"]
    assert set(fault) <= {"type", "loc", "msg", "input", "ctx"}
    return fault  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------------- what is asked


def test_an_empty_body_asks_for_nothing() -> None:
    assert translated({}) == GenerationRequest(save_metadata=True)


def test_everything_is_passed_on() -> None:
    asked = translated(
        {
            "prompt": "p\nq",
            "negative_prompt": "n",
            "style_selections": ["A", "B"],
            "performance_selection": "Quality",
            "aspect_ratios_selection": "1024*768",
            "image_number": 3,
            "image_seed": 12,
            "sharpness": 3.5,
            "guidance_scale": 5,
            "base_model_name": "sub\\other.safetensors",
            "refiner_model_name": "None",
            "refiner_switch": 0.7,
            "loras": [{"enabled": True, "model_name": "sub\\l.safetensors", "weight": 0.5}],
            "save_meta": False,
            "meta_scheme": "a111",
            "save_extension": "jpg",
            "save_name": "name",
            "read_wildcards_in_order": True,
            **advanced(
                disable_preview=True,
                disable_seed_increment=True,
                adm_scaler_positive=1.1,
                adm_scaler_negative=1.2,
                adm_scaler_end=0.4,
                adaptive_cfg=8,
                clip_skip=3,
                sampler_name=" Euler ",
                scheduler_name="KARRAS",
                overwrite_step=9,
                overwrite_width=512,
                vae_name="taef.safetensors",
                refiner_swap_method=" VAE ",
                overwrite_switch=0.3,
                freeu_enabled=True,
                freeu_b1=1.3,
            ),
        }
    )
    assert asked == GenerationRequest(
        prompt="p\nq",
        negative_prompt="n",
        styles=("A", "B"),
        performance="Quality",
        width_px=512,
        height_px=768,
        image_number=3,
        seed=12,
        seed_increment=False,
        checkpoint="sub/other.safetensors",
        refiner="None",
        refiner_switch=0.7,
        refiner_swap="vae",
        overwrite_switch=0.3,
        freeu=FreeU(b1=1.3),
        vae="taef.safetensors",
        loras=(Lora("sub/l.safetensors", 0.5),),
        clip_skip=3,
        guidance_scale=5,
        sharpness=3.5,
        adaptive_scale=8,
        adm_positive=1.1,
        adm_negative=1.2,
        adm_end=0.4,
        sampler="euler",
        scheduler="karras",
        overwrite_steps=9,
        read_wildcards_in_order=True,
        image_format="jpg",
        save_metadata=False,
        metadata_scheme="a1111",
        save_name="name",
        preview=False,
    )


NOT_SENT = [None, "", "  "]


@pytest.mark.parametrize("value", NOT_SENT)
def test_null_and_empty_text_are_not_sent(value: Any) -> None:
    texts = {"prompt", "negative_prompt", "style_selections"}
    body = {name: value for name in CommonRequest.model_fields if value is None or name not in texts}
    assert translated(body) == translated({})


@pytest.mark.parametrize("value", NOT_SENT)
def test_null_and_empty_text_are_not_sent_in_the_finer_controls(value: Any) -> None:
    assert translated(advanced(**dict.fromkeys(AdvancedParams.model_fields, value))) == translated({})


@pytest.mark.parametrize("value", [{}, [], "{}", "", None])
def test_no_finer_controls_in_all_forms(value: Any) -> None:
    assert translated({"advanced_params": value}) == translated({})


def test_empty_prompts_say_something() -> None:
    asked = translated({"prompt": "", "negative_prompt": ""})
    assert (asked.prompt, asked.negative_prompt) == ("", "")


@pytest.mark.parametrize(
    ("value", "styles"),
    [
        ([], ()),
        ("", ()),
        (["A", None, "", " B "], ("A", "B")),
        ("A, B", ("A", "B")),
        ('["A", "B"]', ("A", "B")),
        (None, None),
    ],
)
def test_styles_in_all_forms(value: Any, styles: tuple[str, ...] | None) -> None:
    assert translated({"style_selections": value}).styles == styles


NONE = Lora("None", 0.5)


@pytest.mark.parametrize(
    ("value", "loras"),
    [
        (None, None),
        ("", None),
        ([], ()),
        ("[]", ()),
        ([{"model_name": "a", "weight": 0.3}], (Lora("a", 0.3),)),
        ([{"model_name": "a"}], (Lora("a", 0.5),)),
        ([{"model_name": "a", "weights": "0.3"}], (Lora("a", 0.3),)),
        ([{"enabled": "False", "model_name": "a"}], (NONE,)),
        ([{"enabled": None, "model_name": "a", "weight": None}], (Lora("a", 0.5),)),
        ([{"model_name": ""}, {"model_name": None}, {"model_name": "None"}, None], (NONE, NONE, NONE, NONE)),
        ([["a", 0.3], [True, "b", 1], [False, "c", 1]], (Lora("a", 0.3), Lora("b", 1.0), Lora("None", 1.0))),
        ('[{"model_name": "a", "weight": 0.3}]', (Lora("a", 0.3),)),
        (["a"], (Lora("a", 0.5),)),
    ],
)
def test_loras_in_all_forms(value: Any, loras: tuple[Lora, ...] | None) -> None:
    assert translated({"loras": value}).loras == loras


@pytest.mark.parametrize(
    "text",
    ["1024*768", "1024×768", "1024x768", "1024X768", " 1024 * 768 ", "1024×768 <span> ∣ 4:3</span>"],  # noqa: RUF001
)
def test_sizes_in_all_forms(text: str) -> None:
    asked = translated({"aspect_ratios_selection": text})
    assert (asked.width_px, asked.height_px) == (1024, 768)


@pytest.mark.parametrize("value", [True, "true", "True", "1", "on", "YES", 1])
def test_truth_in_all_forms(value: Any) -> None:
    body = CommonRequest.model_validate({"async_process": value, "advanced_params": {"disable_preview": value}})
    assert body.async_process is True
    assert body.advanced_params.disable_preview is True


@pytest.mark.parametrize(
    ("value", "name"), [("speed", "Speed"), (" EXTREME SPEED ", "Extreme Speed"), ("hyper-sd", "Hyper-SD")]
)
def test_choices_in_any_case(value: str, name: str) -> None:
    assert translated({"performance_selection": value}).performance == name


@pytest.mark.parametrize(
    ("value", "scheme"),
    [("fooocus", "fooocus"), ("a111", "a1111"), ("A1111", "a1111"), ("something", "fooocus"), (None, None)],
)
def test_metadata_schemes(value: str | None, scheme: str | None) -> None:
    assert translated({"meta_scheme": value}).metadata_scheme == scheme


@pytest.mark.parametrize(
    ("value", "seed"),
    [
        (123, 123),
        ("123", 123),
        (123.0, 123),
        (2**63 - 1, 2**63 - 1),
        (0, 0),
        (6023511366105519000, 6023511366105519000),
    ],
)
def test_seeds(client: TestClient, house: House, value: Any, seed: int) -> None:
    assert posted(client, house, {"image_seed": value}).seed == seed


@pytest.mark.parametrize("value", [-1, "-1", 2**63, 10**400, -(2**80), None, ""])
def test_any_other_seed_is_random(client: TestClient, house: House, value: Any) -> None:
    assert posted(client, house, {"image_seed": value}).seed == DRAWN_SEED


def test_numbers_as_text_everywhere(client: TestClient, house: House) -> None:
    body = {"image_number": "2", "sharpness": " 3.5 ", **advanced(overwrite_step="5", clip_skip="1")}
    stage = posted(client, house, body)
    assert (stage.image_number, stage.guidance.sharpness, stage.sampling.steps) == (2, 3.5, 5)
    assert stage.models.clip_skip == 1


@pytest.mark.parametrize("value", [-1, 0, "-1"])
def test_overrides_that_are_off(client: TestClient, house: House, value: Any) -> None:
    names = ("overwrite_step", "overwrite_width", "overwrite_height")
    stage = posted(client, house, advanced(**dict.fromkeys(names, value)))
    assert (stage.width_px, stage.height_px, stage.sampling.steps) == (1152, 896, 30)


@pytest.mark.parametrize(("asked", "width"), [("1000*1000", 1000), ("1001*1001", 1000), ("1023*64", 1016)])
def test_sizes_off_the_list_and_off_the_grid(client: TestClient, house: House, asked: str, width: int) -> None:
    assert posted(client, house, {"aspect_ratios_selection": asked}).width_px == width


def test_unknown_models_fall_back(client: TestClient, house: House) -> None:
    body = {"base_model_name": "nowhere.safetensors", "refiner_model_name": "nowhere", "loras": [["nowhere", 1]]}
    stage = posted(client, house, body)
    assert stage.models.checkpoint == "juggernautXL_v8Rundiffusion.safetensors"
    assert stage.models.loras == ()


@pytest.mark.parametrize("name", ["sub/paint.safetensors", "sub\\paint.safetensors", "sub/paint", "sub\\paint"])
def test_loras_with_either_slash_and_without_suffix(client: TestClient, house: House, name: str) -> None:
    assert posted(client, house, {"loras": [[name, 0.7]]}).models.loras == (Lora("sub/paint.safetensors", 0.7),)


def test_only_the_first_five_slots_count(client: TestClient, house: House) -> None:
    slots = [["sub/paint", 0.1]] + [[False, "x", 1]] * 4 + [["sub/paint", 0.9]]
    assert posted(client, house, {"loras": slots}).models.loras == (Lora("sub/paint.safetensors", 0.1),)


def test_the_autoencoder_is_passed_on(client: TestClient, house: House) -> None:
    assert posted(client, house, advanced(vae_name="taef.safetensors")).models.vae == "taef.safetensors"
    assert posted(client, house, advanced(vae_name="Default (model)")).models.vae is None


IGNORED = {
    "inpaint_mask_upload_checkbox": True,
    "output_format": "gif",
    "save_meta_json": 5,
    "unknown": {"deep": [1]},
    "image_prompts": [{"cn_img": "iVBORw0KGgo", "cn_stop": 0.5}, {"cn_img": None}, {}, 5],
    "input_image": "",
}


def test_unknown_fields_are_ignored(client: TestClient) -> None:
    assert client.post(TEXT_TO_IMAGE, json={**IGNORED, "advanced_params": IGNORED}).status_code == 200


def test_a_slip_is_hinted_at_in_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    slips = {"aspect_ratios_selections": "1*1", "negative_promit": "x", "styles": [], "seed": 1, "performance": "Speed"}
    client.post(TEXT_TO_IMAGE, json=slips)
    hints = [record.getMessage() for record in caplog.records if "did the client mean" in record.getMessage()]
    assert len(hints) == len(slips)
    assert any("'seed'" in hint and "'image_seed'" in hint for hint in hints)


def test_many_unknown_fields_fill_no_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    client.post(TEXT_TO_IMAGE, json={f"prompt{'x' * 2}{number}": 1 for number in range(1000)})
    assert len(caplog.records) < 60


def test_fields_about_input_images_have_no_effect(client: TestClient) -> None:
    body = advanced(
        mixing_image_prompt_and_inpaint=True,
        debugging_cn_preprocessor=True,
        debugging_inpaint_preprocessor=True,
        debugging_dino=True,
        inpaint_engine="nonsense",
        refiner_swap_method="nonsense",
        inpaint_strength=0.5,
        overwrite_switch=20,
        overwrite_vary_strength=0.5,
        inpaint_erode_or_dilate=-64,
    )
    assert client.post(TEXT_TO_IMAGE, json=body).status_code == 200


# ----------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "body", [{"refiner_model_name": "other.safetensors", "performance_selection": "Lightning"},
             {"refiner_model_name": "juggernautXL_v8Rundiffusion.safetensors"}, {"refiner_model_name": "nowhere"}]
)  # fmt: skip
def test_a_refiner_that_takes_no_part_is_fine(client: TestClient, body: dict[str, Any]) -> None:
    assert client.post(TEXT_TO_IMAGE, json=body).status_code == 200


OUT_OF_RANGE: list[tuple[str, Any]] = [
    ("image_number", 0),
    ("image_number", 33),
    ("image_number", 1.5),
    ("image_seed", 123.5),
    ("image_seed", "abc"),
    ("image_seed", [1]),
    ("sharpness", -0.1),
    ("sharpness", 30.1),
    ("guidance_scale", 0.9),
    ("guidance_scale", 31),
    ("refiner_switch", 0.05),
    ("performance_selection", "Fast"),
    ("performance_selection", 5),
    ("save_extension", "gif"),
    ("aspect_ratios_selection", "square"),
    ("aspect_ratios_selection", "1024"),
    ("aspect_ratios_selection", "-5*10"),
    ("aspect_ratios_selection", "8*8"),
    ("aspect_ratios_selection", "100000*100000"),
    ("aspect_ratios_selection", "4096*4096"),
    ("prompt", 5),
    ("prompt", ["a"]),
    ("prompt", "a" * 1_000_000),
    ("negative_prompt", "a" * 1_000_000),
    ("style_selections", 5),
    ("style_selections", ["x"] * 1001),
    ("loras", 5),
    ("loras", "not json"),
    ("loras", {"a": 1}),
    ("advanced_params", "not json"),
    ("advanced_params", 5),
    ("async_process", "perhaps"),
    ("save_meta", "perhaps"),
    ("save_name", "../up"),
    ("save_name", "a\\b"),
    ("save_name", "\x00"),
    ("save_name", "x" * 500),
    ("save_name", "CON"),
    ("save_name", 5),
    ("base_model_name", "x" * 501),
    ("webhook_url", "x" * 5000),
]


@pytest.mark.parametrize(("field", "value"), OUT_OF_RANGE)
def test_a_wrong_field_is_named(client: TestClient, field: str, value: Any) -> None:
    answer = client.post(TEXT_TO_IMAGE, json={field: value})
    assert answer.status_code == 422
    assert all(fault["loc"][:2] == ["body", field] for fault in answer.json()["detail"])
    assert len(answer.content) < 3000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("adm_scaler_positive", 0.05),
        ("adm_scaler_end", 1.1),
        ("adaptive_cfg", 0.5),
        ("clip_skip", 0),
        ("clip_skip", 13),
        ("overwrite_step", 201),
        ("overwrite_width", 2049),
        ("overwrite_height", 8),
        ("overwrite_switch", 201),
        ("canny_low_threshold", 0),
        ("sampler_name", "nonsense"),
        ("scheduler_name", "nonsense"),
        ("vae_name", "nowhere.safetensors"),
        ("controlnet_softness", 2),
        ("freeu_b1", "x"),
    ],
)
def test_a_wrong_finer_control_is_named(client: TestClient, field: str, value: Any) -> None:
    assert refusal(client, advanced(**{field: value}))["loc"] == ["body", "advanced_params", field]


def test_a_wrong_lora_is_named(client: TestClient) -> None:
    assert refusal(client, {"loras": [["a", 1], ["b", 2.5]]})["loc"] == ["body", "loras", 1, "weight"]


@pytest.mark.parametrize(
    ("field", "known"), [("sampler_name", "dpmpp_3m_sde_gpu"), ("scheduler_name", "edm_playground_v2.5")]
)
def test_refused_names_come_with_the_known_ones(client: TestClient, field: str, known: str) -> None:
    fault = refusal(client, advanced(**{field: "nonsense"}))
    assert known in fault["msg"]
    assert fault["input"] == "nonsense"


def test_refused_choices_come_with_the_known_ones(client: TestClient) -> None:
    fault = refusal(client, {"performance_selection": "Fast"})
    assert fault["type"] == "enum"
    assert fault["msg"] == "Input should be 'Speed', 'Quality', 'Extreme Speed', 'Lightning' or 'Hyper-SD'"
    assert "webp" in refusal(client, {"save_extension": "gif"})["msg"]


def test_several_faults_are_told_at_once(client: TestClient) -> None:
    answer = client.post(TEXT_TO_IMAGE, json={"image_number": 99, "sharpness": 99})
    assert [fault["loc"][1] for fault in answer.json()["detail"]] == ["image_number", "sharpness"]
    assert answer.json()["body"] == {"image_number": 99, "sharpness": 99}


def test_nothing_refused_becomes_a_job(client: TestClient, house: House) -> None:
    before = client.get("/v1/generation/job-queue").json(), house.files
    for body in ({"image_number": 99}, {"save_name": "../x"}):
        refusal(client, body)
    assert (client.get("/v1/generation/job-queue").json(), house.files) == before


def test_a_wrong_client_never_takes_the_worker(client: TestClient) -> None:
    for body in (b"{", b"[]", b"5", b'"x"', json.dumps({"image_number": 99}).encode()):
        assert client.post(TEXT_TO_IMAGE, content=body).status_code == 422
    assert client.post(TEXT_TO_IMAGE, json={}).json()[0]["finish_reason"] == "SUCCESS"
