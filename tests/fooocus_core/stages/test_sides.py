"""Both sides of the prompt as the text encoders read them, in the dialect of the web UI and in Fooocus's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fooocus_core.plan import Diffuse, Guidance, Prompts, PromptSyntax
from fooocus_core.prompts.styles import StyleBook
from fooocus_core.prompts.tasks import prepare_stage
from fooocus_core.prompts.wildcards import Wildcards
from fooocus_core.stages.diffuse import encode_sides
from fooocus_core.stages.networks import Sides
from tests.fooocus_core.models.guide_files import write_thin_base
from tests.fooocus_core.stages.rendering import Studio


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    root = tmp_path_factory.mktemp("sdxl")
    return Studio(root, write_thin_base(root))


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("pocket"))


def sides(studio: Studio, prompt: str, negative: str, syntax: PromptSyntax = "web_ui", scale: float = 4.0) -> Sides:
    (stage,) = studio.plan().stages
    assert isinstance(stage, Diffuse)
    stage = replace(stage, prompts=Prompts(prompt, negative, syntax=syntax), guidance=Guidance.plain(scale))
    (task,) = prepare_stage(stage, StyleBook([]), Wildcards([]), [], None)
    return encode_sides(stage, task, studio.engine.models.load(stage.models), None)


def is_silent(found: Sides) -> bool:
    return not found.negative.context.any() and not found.negative.pooled.any()


@pytest.mark.parametrize("prompt", ["a red apple", "", "a BREAK b BREAK c"])
def test_an_empty_negative_prompt_is_silence_to_sdxl(sdxl: Studio, prompt: str) -> None:
    found = sides(sdxl, prompt, "")
    assert is_silent(found)
    assert found.negative.context.shape == found.positive.context.shape
    assert found.positive.context.any()
    assert found.positive.pooled.any()


def test_a_negative_prompt_is_read(sdxl: Studio) -> None:
    assert not is_silent(sides(sdxl, "a red apple", "blurry"))


def test_without_guidance_nobody_looks_at_the_negative_side(sdxl: Studio) -> None:
    found = sides(sdxl, "a red apple", "", scale=1.0)
    assert torch.equal(found.negative.context, found.positive.context)


def test_others_read_the_empty_text(sdxl: Studio, pocket: Studio) -> None:
    """Fooocus's own way does so, and a small model was taught by it."""
    assert not is_silent(sides(sdxl, "a red apple", "", "fooocus"))
    assert not is_silent(sides(pocket, "a red apple", ""))
