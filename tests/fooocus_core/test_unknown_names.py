"""What an unknown name means, field by field: which fall back with a word in the log, and which are refused."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from fooocus_core.errors import InvalidRequest
from fooocus_core.plan import Diffuse, Lora
from fooocus_core.presets.preset import Preset, load_preset
from fooocus_core.prompts.styles import load_styles
from fooocus_core.prompts.tasks import PromptTask, prepare_stage
from fooocus_core.prompts.wildcards import Wildcards
from fooocus_core.request import GenerationRequest
from fooocus_core.resolve import resolve_request

DEFAULT = "juggernautXL_v8Rundiffusion.safetensors"
FILES = {
    "checkpoints": ["other.safetensors", DEFAULT],
    "loras": ["ink.safetensors"],
    "vae": ["vae.safetensors"],
}


class _Shelf:
    def checkpoint_names(self) -> list[str]:
        return FILES["checkpoints"]

    def find(self, kind: str, name: str) -> str | None:
        return name if name in FILES[kind] else None


def resolved(preset: Preset | None = None, **asked: Any) -> Diffuse:
    request = GenerationRequest(prompt="a boat", **asked)
    (stage,) = resolve_request(request, preset or load_preset("default"), _Shelf(), lambda: 0).stages
    return stage


def prepared(stage: Diffuse) -> PromptTask:
    return prepare_stage(stage, load_styles(), Wildcards(()), FILES["loras"])[0]


def told(caplog: pytest.LogCaptureFixture, name: str) -> bool:
    return any(repr(name) in record.getMessage() for record in caplog.records)


@pytest.fixture(autouse=True)
def everything_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_a_checkpoint_falls_back_to_the_default(caplog: pytest.LogCaptureFixture) -> None:
    assert resolved(checkpoint="gone.safetensors").models.checkpoint == DEFAULT
    assert told(caplog, "gone.safetensors")


def test_a_refiner_is_none(caplog: pytest.LogCaptureFixture) -> None:
    assert resolved(refiner="gone.safetensors").models == resolved(refiner="None").models
    assert told(caplog, "gone.safetensors")


def test_a_lora_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    loras = (Lora("gone.safetensors", 1.0), Lora("ink.safetensors", 0.5))
    assert resolved(loras=loras).models.loras == (Lora("ink.safetensors", 0.5),)
    assert told(caplog, "gone.safetensors")


def test_a_lora_in_the_prompt_is_left_out() -> None:
    stage = resolve_request(
        GenerationRequest(prompt="a boat <lora:gone:1>, <lora:ink:0.5>", loras=(), styles=()),
        load_preset("default"),
        _Shelf(),
        lambda: 0,
    ).stages[0]
    task = prepared(stage)
    assert (task.prompt, task.loras) == ("a boat", (Lora("ink.safetensors", 0.5),))


def test_a_style_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    task = prepared(resolved(styles=("Gone", "Fooocus Sharp")))
    assert task.styles == ("Fooocus Sharp",)
    assert told(caplog, "Gone")


def test_nothing_but_unknown_styles_is_the_bare_prompt() -> None:
    assert prepared(resolved(styles=("Gone",))).positive == ("a boat",)


@pytest.mark.parametrize("field", ["sampler", "scheduler", "performance", "image_format", "metadata_scheme"])
def test_these_are_refused_with_the_known_ones(field: str) -> None:
    with pytest.raises(InvalidRequest, match="unknown name 'gone'; known: ") as caught:
        resolved(**{field: "gone"})
    assert caught.value.field == field


def test_an_autoencoder_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"vae: no file named 'gone\.safetensors'"):
        resolved(vae="gone.safetensors")


def test_a_preset_s_autoencoder_gives_way_to_the_checkpoint_s(caplog: pytest.LogCaptureFixture) -> None:
    pony = load_preset("pony_v6")
    assert resolved(pony).models.vae is None
    assert told(caplog, pony.vae or "")


def test_a_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="unknown name 'gone'; known: initial, anime"):
        load_preset("gone")
