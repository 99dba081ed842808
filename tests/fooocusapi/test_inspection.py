"""What ``main.py inspect`` prints can be sent, and asks for the picture it was read from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fooocus_core.metadata.files import encode_image
from fooocus_core.metadata.record import ImageRecord, RecordedLora
from fooocus_core.plan import FreeU, Lora
from fooocus_core.request import GenerationRequest
from fooocusapi import cli
from fooocusapi.surfaces.classic.compose import to_body
from fooocusapi.surfaces.classic.schemas import CommonRequest
from fooocusapi.surfaces.classic.translate import to_request

PIXELS = np.zeros((8, 8, 3), np.uint8)
RECORD = ImageRecord(
    seed=2**63 - 1,
    width_px=1152,
    height_px=896,
    checkpoint="sub/base.safetensors",
    prompt="caf\u00e9",
    styles=("SAI Anime",),
    sampler="euler",
    steps=31,
    loras=(RecordedLora("ink.v2.safetensors", 0.5),),
)


def _picture(folder: Path, name: str = "a.png", record: ImageRecord | None = RECORD, scheme: Any = "fooocus") -> Path:
    path = folder / name
    path.write_bytes(encode_image(PIXELS, path.suffix.removeprefix("."), record, scheme))  # type: ignore[arg-type]
    return path


def _printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert cli.main(["inspect", *map(str, arguments)]) == 0
    body: dict[str, Any] = json.loads(capsys.readouterr().out)
    return body


@pytest.mark.parametrize("name", ["a.png", "a.jpeg", "a.webp"])
def test_the_printed_body_asks_for_the_picture(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = _printed(capsys, _picture(tmp_path, name))
    assert body == {
        "prompt": "caf\u00e9",
        "negative_prompt": "",
        "style_selections": ["SAI Anime"],
        "performance_selection": "Speed",
        "image_number": 1,
        "image_seed": 2**63 - 1,
        "base_model_name": "base",
        "refiner_model_name": "None",
        "refiner_switch": 0.5,
        "guidance_scale": 4.0,
        "sharpness": 2.0,
        "advanced_params": {
            "vae_name": "Default (model)",
            "clip_skip": 2,
            "adaptive_cfg": 7.0,
            "adm_scaler_positive": 1.5,
            "adm_scaler_negative": 0.8,
            "adm_scaler_end": 0.3,
            "sampler_name": "euler",
            "scheduler_name": "karras",
            "overwrite_step": 31,
        },
        "aspect_ratios_selection": "1152*896",
        "loras": [{"model_name": "ink.v2", "weight": 0.5}],
    }
    request = to_request(CommonRequest.model_validate(body))
    assert (request.seed, request.prompt, request.loras) == (2**63 - 1, "caf\u00e9", (Lora("ink.v2", 0.5),))


def test_the_user_s_styles_are_recognised_by_their_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.json").write_text(json.dumps([{"name": "own", "prompt": "my {prompt} mine"}]), encoding="utf-8")
    record = ImageRecord(1, 8, 8, "m", prompt="boat", full_prompt=("my boat mine",))
    path = _picture(tmp_path, record=record, scheme="a1111")
    assert "Own" in _printed(capsys, path, "--styles-path", tmp_path)["style_selections"]
    assert "Own" not in _printed(capsys, path)["style_selections"]


def test_a_file_that_tells_nothing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "no.png").write_bytes(b"no picture")
    for path, reason in (
        (_picture(tmp_path, record=None), "no metadata"),
        (tmp_path / "no.png", "not a picture"),
        (tmp_path / "missing.png", "No such file"),
        (tmp_path, "directory"),
    ):
        assert cli.main(["inspect", str(path)]) == 1
        out, told = capsys.readouterr()
        assert out == ""
        assert path.name in told.replace("\n", "")
        assert reason in " ".join(told.split())


def test_what_is_not_understood_is_told_beside_the_body(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _picture(tmp_path, record=ImageRecord(1, 8, 8, "m", sampler="magic"))
    assert cli.main(["inspect", str(path)]) == 0
    out, told = capsys.readouterr()
    assert "sampler_name" not in json.loads(out)["advanced_params"]
    assert "sampler" in told


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    st.builds(
        GenerationRequest,
        prompt=st.none() | TEXT,
        negative_prompt=st.none() | TEXT,
        styles=st.none() | st.lists(TEXT.map(str.strip).filter(bool), max_size=3).map(tuple),
        performance=st.none() | st.sampled_from(["Quality", "Hyper-SD"]),
        seed=st.none() | st.integers(0, 2**63 - 1),
        checkpoint=st.none() | st.sampled_from(["a", "b/c"]),
        refiner=st.none() | st.just("None"),
        refiner_switch=st.none() | st.floats(0.1, 1),
        refiner_swap=st.none() | st.sampled_from(["joint", "vae"]),
        overwrite_switch=st.none() | st.floats(0.1, 200),
        freeu=st.none() | st.just(FreeU(1.1, 1.2, 0.3, 0.4)),
        loras=st.none() | st.lists(st.builds(Lora, st.sampled_from("ab"), st.floats(-2, 2)), max_size=3).map(tuple),
        clip_skip=st.none() | st.integers(1, 12),
        guidance_scale=st.none() | st.floats(1, 30),
        adm_end=st.none() | st.floats(0, 1),
        sampler=st.none() | st.just("euler"),
        overwrite_steps=st.none() | st.integers(1, 200),
        width_px=st.just(640),
        height_px=st.integers(64, 2048),
    )
)
def test_a_body_is_read_as_the_request_it_was_made_of(request: GenerationRequest) -> None:
    sent = CommonRequest.model_validate_json(json.dumps(to_body(request)))
    read = to_request(sent)
    for name in ("prompt", "styles", "seed", "loras", "adm_end", "overwrite_steps", "width_px", "height_px", "freeu"):
        assert getattr(read, name) == getattr(request, name)
    assert to_body(read) == to_body(request)
