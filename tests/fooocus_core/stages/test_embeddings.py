"""Textual inversion from a prompt's word to the pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fooocus_core.models.text_encoders import ClipTextEncoder
from tests.fooocus_core.stages.rendering import Studio


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """With an embedding ``fruit`` that is the word "apple" itself, in both encoders."""
    studio = Studio(tmp_path_factory.mktemp("embeddings"))
    text = studio.engine.models.checkpoint(studio.plan().stages[0].models).text
    ids = torch.tensor(text.tokenizer.ids(["apple"])[0])

    def word(encoder: ClipTextEncoder) -> torch.Tensor:
        return encoder.embed(ids).half()

    folder = studio.root / "embeddings" / "plants"
    folder.mkdir(parents=True)
    save_file({"clip_l": word(text.l), "clip_g": word(text.g)}, folder / "fruit.safetensors")
    torch.save({"string_to_param": {"*": torch.ones(2, text.l.width)}}, folder / "narrow.pt")
    (folder / "cut.safetensors").write_bytes((folder / "fruit.safetensors").read_bytes()[:-10])
    return studio


@pytest.fixture(scope="module")
def apple(studio: Studio) -> np.ndarray:
    return studio.picture("a red apple, flat icon")


@pytest.mark.parametrize("word", ["embedding:fruit,", "embedding:plants/fruit.safetensors,"])
def test_vectors_stand_for_a_word(studio: Studio, apple: np.ndarray, word: str) -> None:
    assert np.array_equal(studio.picture(f"a red {word} flat icon"), apple)


def test_vectors_take_emphasis(studio: Studio, apple: np.ndarray) -> None:
    stronger = studio.picture("a red (embedding:fruit:1.4) icon")
    assert np.array_equal(stronger, studio.picture("a red (apple:1.4) icon"))
    assert not np.array_equal(stronger, studio.picture("a red apple icon"))


def test_vectors_of_one_encoder_leave_the_other_without(studio: Studio) -> None:
    picture = studio.picture("a red embedding:narrow icon")
    assert not np.array_equal(picture, studio.picture("a red icon"))


def test_an_unknown_name_is_left_out(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    assert np.array_equal(studio.picture("a red embedding:unknown icon"), studio.picture("a red icon"))
    assert "no embedding named 'unknown': left out" in caplog.text


def test_a_broken_file_fails_the_job_by_its_name(studio: Studio, apple: np.ndarray) -> None:
    assert studio.failure(studio.plan("a red embedding:cut icon")).startswith("cut.safetensors: ")
    assert np.array_equal(studio.picture("a red apple, flat icon"), apple)


def test_without_a_folder_the_word_is_a_word(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    spelt_out = studio.picture("a red embedding:unknown icon")
    assert not np.array_equal(spelt_out, studio.picture("a red icon"))
