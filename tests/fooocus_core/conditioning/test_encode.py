"""What has been encoded is not encoded again: as long as weights, words, clip skip and trained vectors are the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fooocus_core.conditioning import inversion
from fooocus_core.conditioning.encode import EncodedRows, EncodedText, TextEncoders
from fooocus_core.conditioning.inversion import EmbeddingFiles
from fooocus_core.library import POCKET_FOLDER, POCKET_NAME
from fooocus_core.models.checkpoint import read_content
from fooocus_core.models.loaded import load_model
from fooocus_core.models.text_encoders import ClipTextEncoder, EncodedTokens
from tests.fooocus_core.stages.rendering import CPU

Encode = Callable[..., EncodedText]


@pytest.fixture(scope="module")
def pocket() -> TextEncoders:
    return load_model(POCKET_FOLDER / POCKET_NAME, CPU).text


@pytest.fixture
def encoders(pocket: TextEncoders) -> TextEncoders:
    """The pocket model's, which have not read anything yet."""
    return TextEncoders(pocket.l, pocket.g, pocket.tokenizer)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[ClipTextEncoder]:
    """The encoder of every run through its layers."""
    made: list[ClipTextEncoder] = []
    plain = ClipTextEncoder.encode

    def counted(encoder: ClipTextEncoder, embedded: Tensor, ends: Tensor, clip_skip: int) -> EncodedTokens:
        made.append(encoder)
        return plain(encoder, embedded, ends, clip_skip)

    monkeypatch.setattr(ClipTextEncoder, "encode", counted)
    return made


@pytest.fixture(params=["encode", "encode_web_ui"])
def encode(request: pytest.FixtureRequest, encoders: TextEncoders) -> Encode:
    method: Encode = getattr(encoders, request.param)
    return method


def save_embedding(folder: Path, encoders: TextEncoders, seed: int, name: str = "fruit.safetensors") -> None:
    generator = torch.Generator().manual_seed(seed)
    widths = {"clip_l": encoders.l.width, "clip_g": encoders.g.width}
    save_file({key: torch.randn(2, width, generator=generator) for key, width in widths.items()}, folder / name)
    os.utime(folder / name, ns=(0, seed))


@pytest.mark.parametrize("text", ["", "a red apple", "a (red:1.4) apple", "cat " * 90])
def test_the_same_text_is_encoded_once_and_is_the_same_to_the_last_bit(
    encode: Encode, encoders: TextEncoders, calls: list[ClipTextEncoder], text: str
) -> None:
    first = encode(text, 2)
    assert set(calls) == {encoders.l, encoders.g}
    calls.clear()
    second = encode(text, 2)
    assert not calls
    assert torch.equal(first.context, second.context)
    assert torch.equal(first.pooled, second.pooled)


def test_the_weights_of_words_do_not_matter(encode: Encode, calls: list[ClipTextEncoder]) -> None:
    encode("a (red:1.4) apple", 2)
    calls.clear()
    encode("a (red:0.6) apple", 2)
    assert not calls


def test_both_readings_of_a_text_share_what_is_encoded(encoders: TextEncoders, calls: list[ClipTextEncoder]) -> None:
    encoders.encode("a red apple", 2)
    calls.clear()
    encoders.encode_web_ui("a red apple", 2)
    assert not calls


@pytest.mark.parametrize(("text", "clip_skip"), [("a red apple.", 2), ("a red apple", 1)])
def test_other_words_and_another_clip_skip_are_encoded(
    encode: Encode, calls: list[ClipTextEncoder], text: str, clip_skip: int
) -> None:
    before = encode("a red apple", 2)
    calls.clear()
    assert not torch.equal(encode(text, clip_skip).context, before.context)
    assert len(calls) == 2


def test_changed_weights_encode_anew(encode: Encode, encoders: TextEncoders, calls: list[ClipTextEncoder]) -> None:
    encode("a red apple", 2)
    calls.clear()
    encoders.g.weights_changed()
    encode("a red apple", 2)
    assert calls == [encoders.g]
    calls.clear()
    encode("a red apple", 2)
    assert not calls


def test_vectors_count_by_their_values(
    encoders: TextEncoders, calls: list[ClipTextEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def counted(path: Path) -> Any:
        read.append(path)
        return read_content(path)

    monkeypatch.setattr(inversion, "read_content", counted)
    files = EmbeddingFiles([tmp_path])
    save_embedding(tmp_path, encoders, seed=1)
    first = encoders.encode("a embedding:fruit", 2, files)
    calls.clear()
    read.clear()
    assert torch.equal(encoders.encode("a embedding:fruit", 2, files).context, first.context)
    assert not calls
    assert not read
    save_embedding(tmp_path, encoders, seed=1, name="same.safetensors")
    encoders.encode("a embedding:same", 2, files)
    assert not calls
    save_embedding(tmp_path, encoders, seed=2)
    assert not torch.equal(encoders.encode("a embedding:fruit", 2, files).context, first.context)
    assert len(calls) == 2
    calls.clear()
    assert encoders.encode("a embedding:fruit", 2, None).context.shape == first.context.shape
    assert len(calls) == 2


def test_what_is_handed_out_may_be_changed(encode: Encode) -> None:
    first = encode("a red apple", 2)
    context, pooled = first.context.clone(), first.pooled.clone()
    first.context.zero_()
    first.pooled.zero_()
    second = encode("a red apple", 2)
    assert torch.equal(second.context, context)
    assert torch.equal(second.pooled, pooled)


def test_what_was_asked_for_longest_ago_goes_first(pocket: TextEncoders, calls: list[ClipTextEncoder]) -> None:
    room_for_two = 2 * 4 * max(77 * pocket.l.width, 77 * pocket.g.width + pocket.g.pooled_width)
    encoders = TextEncoders(pocket.l, pocket.g, pocket.tokenizer, EncodedRows(room_for_two))
    for text in ("a", "b", "a", "c"):
        encoders.encode(text, 2)
    calls.clear()
    for text in ("a", "c"):
        encoders.encode(text, 2)
    assert not calls
    encoders.encode("b", 2)
    assert calls
