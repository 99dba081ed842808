"""Tokenizer, emphasis, chunks and textual inversion: rules, limits, and that no prompt can make them fail."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from fooocus_core.conditioning.chunks import CHUNK_TOKENS, Group, Marks, packed, prompt_chunks
from fooocus_core.conditioning.emphasis import Segment, weighted_segments
from fooocus_core.conditioning.inversion import EmbeddingFiles
from fooocus_core.conditioning.tokenizer import ClipTokenizer, normalised, stock_tokenizer, tokenizer_from
from fooocus_core.errors import ModelError

MARKS = Marks(49406, 49407, 0)
prompts = st.text(alphabet=st.sampled_from(list("ab ():.,\\12-\n<|>é日\U0001f98a\0\u0345")), max_size=60) | st.text()


@cache
def stock() -> ClipTokenizer:
    return stock_tokenizer()


# --- emphasis -----------------------------------------------------------------------------------------------------


@given(prompts)
@settings(max_examples=400, deadline=None)
def test_emphasis_never_raises_and_loses_no_words(prompt: str) -> None:
    segments = weighted_segments(prompt)
    plain = "".join(segment.text for segment in segments)
    assert all(character in prompt for character in plain)
    if not set(prompt) & set("(:)"):
        assert plain == prompt


def recursively(prompt: str, weight: float = 1.0) -> list[Segment]:
    """The rules of 02 section 2 written out as they are told, for comparison."""
    parts, text, depth = [], "", 0
    for character in prompt:
        if character == "(":
            if depth == 0:
                parts.append(text)
                text = ""
            depth += 1
        text += character
        if character == ")":
            depth -= 1
            if depth == 0:
                parts.append(text)
                text = ""
    segments = []
    for part in [p for p in [*parts, text] if p]:
        if not (len(part) >= 2 and part[0] == "(" and part[-1] == ")"):
            segments.append(Segment(part, weight))
            continue
        inner, own = part[1:-1], weight * 1.1
        colon = inner.rfind(":")
        if colon > 0:
            try:
                inner, own = inner[:colon], float(inner[colon + 1 :])
            except ValueError:
                inner = part[1:-1]
        segments += recursively(inner, own)
    return segments


@given(st.text(alphabet="ab():1.2 ", max_size=40))
@settings(max_examples=1500, deadline=None)
def test_emphasis_beside_the_rules_written_out(prompt: str) -> None:
    assert weighted_segments(prompt) == recursively(prompt)


@pytest.mark.parametrize("prompt", ["(" * 500_000, ")" * 500_000, "(" * 300_000 + "a" + ")" * 300_000, "(:" * 300_000])
def test_deep_nesting_is_harmless(prompt: str) -> None:
    started = time.monotonic()
    weighted_segments(prompt)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e999"])
def test_weights_are_finite(number: str) -> None:
    assert weighted_segments(f"(a:{number})") == [Segment(f"a:{number}", 1.1)]


# --- tokens -------------------------------------------------------------------------------------------------------


@given(prompts)
@settings(max_examples=200, deadline=None)
def test_tokenising_never_raises(prompt: str) -> None:
    for chunk in prompt_chunks(prompt, stock(), pad=0):
        assert len(chunk.tokens) == len(chunk.weights) == CHUNK_TOKENS
        assert chunk.tokens[0] == 49406
        assert 49407 in chunk.tokens
        assert all(isinstance(token, int) and 0 <= token < 49408 for token in chunk.tokens)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Cafe\u0301", "café"),
        ("日本", "日 本"),
        ("ひらがな", "ひらがな"),
        ("a\u00a0b\tc", "a b c"),
        ("a\0\ufffd\u200bb", "ab"),
        ("İ", "i̇"),
        ("", ""),
    ],
)
def test_normalising(word: str, expected: str) -> None:
    assert normalised(word) == expected


def test_marks_written_out_become_marks() -> None:
    assert stock().ids(["<|startoftext|>", "<|ENDOFTEXT|>", "a<|endoftext|>b"]) == [[49406], [49407], [320, 49407, 321]]


def test_a_checkpoints_own_vocabulary() -> None:
    vocabulary = {"a": 0, "b": 1, "a</w>": 2, "b</w>": 3, "ab</w>": 4, "<|startoftext|>": 5, "<|endoftext|>": 6}
    for merges in (["a b</w>"], [["a", "b</w>"]]):
        tokenizer = tokenizer_from(vocabulary, merges)
        assert (tokenizer.start_id, tokenizer.end_id) == (5, 6)
        assert tokenizer.ids(["ab", "aba", "x", "ax"]) == [[4], [0, 1, 2], [], [0]]


@pytest.mark.parametrize(
    ("vocabulary", "merges"),
    [({}, []), ({"a": 0}, []), ({"a": 0, "b": 1}, ["a x"]), ({"a": 0, "b": 1}, ["a"]), ({"a": 0, "b": 1}, ["a b c"])],
)
def test_impossible_vocabularies(vocabulary: dict[str, int], merges: list[str]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the texts are the libraries' own
        tokenizer_from(vocabulary, merges)


# --- packing ------------------------------------------------------------------------------------------------------


def test_small_words_move_whole_large_ones_are_cut() -> None:
    filler = [Group([1], 1.0)] * 70
    moved = packed([*filler, Group([2] * 7, 1.5)], MARKS)
    assert [len([t for t in chunk.tokens if t == 2]) for chunk in moved] == [0, 7]
    cut = packed([*filler, Group([2] * 8, 1.5)], MARKS)
    assert [len([t for t in chunk.tokens if t == 2]) for chunk in cut] == [5, 3]
    assert cut[1].weights[1:5] == (1.5, 1.5, 1.5, 1.0)


@given(st.lists(st.integers(0, 200), max_size=12))
def test_packing_keeps_every_token_in_order(lengths: list[int]) -> None:
    numbered = iter(range(1, 10_000))
    groups = [Group([next(numbered) for _ in range(length)], 1.0) for length in lengths]
    chunks = packed(groups, MARKS)
    tokens = [t for chunk in chunks for t in chunk.tokens if t not in (MARKS.start, MARKS.end, MARKS.pad)]
    assert tokens == list(range(1, sum(lengths) + 1))


# --- textual inversion --------------------------------------------------------------------------------------------


@pytest.fixture
def embeddings(tmp_path: Path) -> EmbeddingFiles:
    folder = tmp_path / "embeddings"
    (folder / "sub").mkdir(parents=True)
    save_file({"clip_l": torch.ones(2, 4), "clip_g": torch.ones(3, 6)}, folder / "both.safetensors")
    torch.save({"string_to_param": {"*": torch.full((1, 4), 2.0)}}, folder / "sub" / "old.pt")
    torch.save([{"a": torch.ones(1, 4), "b": torch.ones(2, 6)}, {"c": torch.ones(4)}], folder / "listed.bin")
    torch.save({"emb": torch.full((4,), 3.0)}, folder / "one.pt")
    (folder / "broken.safetensors").write_bytes(b"broken")
    save_file({"clip_l": torch.ones(1, 4)}, tmp_path / "outside.safetensors")
    return EmbeddingFiles([folder])


@pytest.mark.parametrize(
    ("name", "count", "rest"),
    [
        ("both", 2, ""),
        ("both.safetensors", 2, ""),
        ("sub/old", 1, ""),
        ("old", 1, ""),
        ("listed", 2, ""),
        ("one", 1, ""),
        ("both,", 2, ","),
        ("both,,,", 2, ",,,"),
        (",both,", 2, "h,"),
        ("nothing", 0, ""),
        ("nothing,", 0, ","),
        ("../outside", 0, ""),
        ("../outside.safetensors", 0, ""),
        ("", 0, ""),
        ("x" * 5000, 0, ""),
    ],
)
def test_looking_up_embeddings(embeddings: EmbeddingFiles, name: str, count: int, rest: str) -> None:
    vectors, left = embeddings.vectors(name, "clip_l", 4)
    assert (len(vectors), left) == (count, rest)
    assert all(vector.shape == (4,) for vector in vectors)


def test_a_file_is_found_by_folder_before_extension(embeddings: EmbeddingFiles, tmp_path: Path) -> None:
    save_file({"emb": torch.ones(7, 4)}, tmp_path / "embeddings" / "sub" / "one.safetensors")
    assert len(embeddings.vectors("one", "clip_l", 4)[0]) == 1


@pytest.mark.parametrize(("encoder", "width", "count"), [("clip_l", 4, 2), ("clip_g", 6, 2), ("clip_g", 5, 0)])
def test_a_list_of_tables_gives_each_encoder_its_own(
    embeddings: EmbeddingFiles, encoder: str, width: int, count: int
) -> None:
    assert len(embeddings.vectors("listed", encoder, width)[0]) == count


def test_embedding_files_that_cannot_be_used(embeddings: EmbeddingFiles, tmp_path: Path) -> None:
    folder = tmp_path / "embeddings"
    torch.save({"step": 5}, folder / "empty.pt")
    torch.save({"emb": tmp_path}, folder / "unsafe.pt")
    save_file({"clip_l": torch.ones(2, 4, dtype=torch.int32)}, folder / "whole.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "both.safetensors").read_bytes()[:-3])
    for name in ("broken", "cut", "empty", "unsafe", "whole"):
        with pytest.raises(ModelError, match=rf"^{name}\.(pt|safetensors): "):
            embeddings.vectors(name, "clip_l", 4)


def test_embeddings_in_a_prompt(embeddings: EmbeddingFiles) -> None:
    chunk = prompt_chunks("a (embedding:both,:1.5) b", stock(), 0, embeddings=embeddings, encoder="clip_l", width=4)[0]
    kinds = ["vector" if isinstance(token, torch.Tensor) else token for token in chunk.tokens[:7]]
    assert kinds == [49406, 320, "vector", "vector", 267, 321, 49407]
    assert chunk.weights[:6] == (1.0, 1.0, 1.5, 1.5, 1.5, 1.0)
