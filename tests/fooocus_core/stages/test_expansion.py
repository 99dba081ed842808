"""The prompt expansion from a plan to the picture and its record, with the model that ships with the project."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fooocus_core.events import Cancelled, Started
from fooocus_core.metadata.describe import EXPANSION_SKIPPED
from fooocus_core.plan import Plan, Prompts
from fooocus_core.prompts.expansion import PromptExpansion
from tests.fooocus_core.prompts.expansion_folder import write_expansion_folder
from tests.fooocus_core.stages.rendering import Studio


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("expansion"))


@pytest.fixture
def folder(studio: Studio, tmp_path: Path) -> Iterator[Path]:
    """Where the engine looks for the model; nothing is there yet."""
    folder = tmp_path / "fooocus_expansion"
    studio.engine.expansion = PromptExpansion(folder)
    yield folder
    studio.engine.expansion = None


def with_styles(studio: Studio, *styles: str, image_number: int = 1) -> Plan:
    plan = studio.plan()
    (stage,) = plan.stages
    prompts = Prompts("a red apple", styles=styles)
    return replace(plan, stages=(replace(stage, prompts=prompts, image_number=image_number),))


def test_an_expanded_prompt_is_another_picture_and_is_recorded(studio: Studio, folder: Path) -> None:
    write_expansion_folder(folder)
    plain = studio.finished(with_styles(studio))
    expanded = studio.finished(with_styles(studio, "Fooocus V2"))
    assert not np.array_equal(expanded.pixels, plain.pixels)
    assert expanded.record.prompt_expansion.startswith("a red apple,")
    assert expanded.record.full_prompt == ("a red apple", expanded.record.prompt_expansion)
    assert expanded.record.styles == ("Fooocus V2",)
    studio.engine.unload()
    again = studio.finished(with_styles(studio, "Fooocus V2"))
    assert np.array_equal(again.pixels, expanded.pixels)


def test_without_the_model_the_record_and_the_log_say_so_once(
    studio: Studio, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    plain = studio.finished(with_styles(studio))
    for _ in range(2):
        skipped = studio.finished(with_styles(studio, "Fooocus V2"))
        assert np.array_equal(skipped.pixels, plain.pixels)
        assert skipped.record.prompt_expansion == EXPANSION_SKIPPED
        assert (skipped.record.full_prompt, skipped.record.styles) == (("a red apple",), ())
    assert [record.getMessage() for record in caplog.records] == [
        "prompt expansion skipped: no pytorch_model.bin in the folder fooocus_expansion"
    ]


def test_a_broken_folder_fails_the_job_by_the_files_name(studio: Studio, folder: Path) -> None:
    weights = write_expansion_folder(folder) / "pytorch_model.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert studio.failure(with_styles(studio, "Fooocus V2")).startswith("pytorch_model.bin: ")
    assert studio.finished(with_styles(studio))
    weights.write_bytes(whole)
    (folder / "positive.txt").unlink()
    assert studio.failure(with_styles(studio, "Fooocus V2")) == (
        "positive.txt: missing from the folder fooocus_expansion"
    )
    assert studio.finished(with_styles(studio))


def test_a_job_can_be_stopped_between_two_expansions(studio: Studio, folder: Path) -> None:
    write_expansion_folder(folder)
    expansion, prompts = studio.engine.expansion, []
    assert expansion is not None

    def expand(prompt: str, seed: int) -> str | None:
        prompts.append(prompt)
        return expansion(prompt, seed)

    studio.engine.expansion = expand  # type: ignore[assignment]
    events = list(studio.engine.run(with_styles(studio, "Fooocus V2", image_number=3), lambda: len(prompts) == 2))
    assert isinstance(events[0], Started)
    assert events[-1] == Cancelled()
    assert len(prompts) == 2
