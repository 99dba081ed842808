"""Prompts of the web UI's kind: emphasis, chunks, embeddings by their names, and what is encoded."""

from __future__ import annotations

import re
import time
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from fooocus_core.conditioning.chunks import Chunk
from fooocus_core.conditioning.encode import TextEncoders
from fooocus_core.conditioning.inversion import EmbeddingFiles
from fooocus_core.conditioning.tokenizer import ClipTokenizer, stock_tokenizer
from fooocus_core.conditioning.web_ui_chunks import COMMA_REACH, ROOM, named_embeddings, web_ui_chunks
from fooocus_core.conditioning.web_ui_emphasis import MOST, web_ui_sections
from fooocus_core.library import POCKET_NAME, Library
from fooocus_core.models.loaded import ModelStore
from fooocus_core.plan import Models
from tests.fooocus_core.stages.rendering import CPU


def read(prompt: str) -> list[list[tuple[str, float]]]:
    return [[(one.text, round(one.weight, 4)) for one in section] for section in web_ui_sections(prompt)]


# --- emphasis -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("", []),
        ("(cat)", [("cat", 1.1)]),
        ("((cat))", [("cat", 1.21)]),
        ("[cat]", [("cat", 0.9091)]),
        ("(cat:1.4)", [("cat", 1.4)]),
        ("a (very (good:2) cat)", [("a ", 1.0), ("very ", 1.1), ("good", 2.2), (" cat", 1.1)]),
        ("[a (b:1.5)]", [("a ", 0.9091), ("b", 1.3636)]),
        (r"a \(b\) \[c\] \\", [("a (b) [c] \\", 1.0)]),
        ("a (b [c", [("a ", 1.0), ("b ", 1.1), ("c", 1.0)]),
        ("a) b] c:1.4) (d:x)", [("a) b] c:1.4) ", 1.0), ("d:x", 1.1)]),
        ("(worst quality, low quality:1.4), hand", [("worst quality, low quality", 1.4), (", hand", 1.0)]),
        ("(a: 1.5 ) (b:-1) (c:1.2.3)", [("a", 1.5), (" ", 1.0), ("b", -1.0), (" ", 1.0), ("c:1.2.3)", 1.1)]),
        ("(a [b) c] d", [("a ", 1.1), ("b", 1.0), (" c", 0.9091), (" d", 1.0)]),
        ("<lora:x:1> __animal__ [[a,b]]", [("<lora:x:1> __animal__ ", 1.0), ("a,b", 0.8264)]),
    ],
)
def test_weights(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert read(prompt) == [expected]


def test_breaks_part_a_prompt() -> None:
    assert read("a BREAK b") == [[("a", 1.0)], [("b", 1.0)]]
    assert read("(a\nBREAK, b:1.5) BREAKFAST") == [[("a", 1.5)], [(", b", 1.5), (" BREAKFAST", 1.0)]]
    assert read("BREAK") == [[], []]


def written_out(prompt: str) -> list[tuple[str, float]]:
    """The rules as they are told: every bracket that closes multiplies all texts since it was opened."""
    texts: list[list[object]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        for entry in texts[start:]:
            entry[1] = float(str(entry[1])) * factor

    for piece in re.findall(r"\\.|\\|:\s*[+-]?[.\d]+\s*\)|[()\[\]]|[^\\()\[\]:]+|:", prompt, re.DOTALL):
        number = re.fullmatch(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)", piece)
        if piece[0] == "\\" and len(piece) > 1:
            texts.append([piece[1:], 1.0])
        elif piece in opened:
            opened[piece].append(len(texts))
        elif number and opened["("]:
            multiply(opened["("].pop(), float(number[1]))
        elif piece == ")" and opened["("]:
            multiply(opened["("].pop(), 1.1)
        elif piece == "]" and opened["["]:
            multiply(opened["["].pop(), 1 / 1.1)
        elif piece != "\\":
            texts.append([piece, 1.0])
    for start in opened["("]:
        multiply(start, 1.1)
    for start in opened["["]:
        multiply(start, 1 / 1.1)
    return [(str(text), round(float(str(weight)), 4)) for text, weight in texts]


def letters(weighted: list[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(letter, weight) for text, weight in weighted for letter in text]


@given(st.text(alphabet="ab()[]:12, ", max_size=24))
def test_weights_beside_the_rules_written_out(prompt: str) -> None:
    [section] = web_ui_sections(prompt)
    found = letters([(one.text, one.weight) for one in section])
    expected = letters(written_out(prompt))
    assert [letter for letter, _ in found] == [letter for letter, _ in expected]
    for (_, one), (_, other) in zip(found, expected, strict=True):
        assert one == pytest.approx(max(-MOST, min(MOST, other)), abs=1e-3, rel=1e-3)


@pytest.mark.parametrize("prompt", ["(" * 100_000, "[(" * 50_000 + "a", ")" * 100_000, "(a" * 50_000, ":1)" * 33_333])
def test_deep_nesting_is_harmless(prompt: str) -> None:
    started = time.monotonic()
    for section in web_ui_sections(prompt):
        assert all(abs(one.weight) <= MOST for one in section)
    assert time.monotonic() - started < 10


# --- chunks -------------------------------------------------------------------------------------------------------


@cache
def stock() -> ClipTokenizer:
    return stock_tokenizer()


def chunks(prompt: str, embeddings: dict[str, list[torch.Tensor]] | None = None) -> list[Chunk]:
    found = web_ui_chunks(prompt, stock(), 0, embeddings or {})
    for chunk in found:
        assert len(chunk.tokens) == len(chunk.weights) == ROOM + 2
        assert chunk.tokens[0] == 49406
    return found


def lengths(prompt: str) -> list[int]:
    return [chunk.tokens.index(49407) - 1 for chunk in chunks(prompt)]


def test_chunks_of_75_tokens() -> None:
    assert lengths("") == [0]
    assert lengths("cat " * 75) == [75]
    assert lengths("cat " * 76) == [75, 1]
    assert lengths("cat BREAK dog dog") == [1, 2]


@pytest.mark.parametrize(("back", "expected"), [(COMMA_REACH - 1, [56, 20]), (COMMA_REACH, [75, 1])])
def test_a_full_chunk_ends_behind_its_last_comma(back: int, expected: list[int]) -> None:
    assert lengths("cat " * (ROOM - back - 1) + "," + " dog" * (back + 1)) == expected


def test_a_comma_that_is_too_much_opens_the_next_chunk() -> None:
    assert lengths("cat, " + "cat " * 72 + "dog, cat") == [75, 2]


def test_weights_stand_beside_their_tokens() -> None:
    [chunk] = chunks("a (red:1.5) cat")
    assert chunk.weights[:5] == (1.0, 1.0, 1.5, 1.0, 1.0)


def test_names_of_embeddings_are_vectors() -> None:
    vectors = [torch.ones(3), torch.zeros(3)]
    [chunk] = chunks("a (Bad_Hands:1.2), bad_hands2", {"bad_hands": vectors})
    [plain] = chunks("a , bad_hands2")
    assert chunk.tokens[2:4] == tuple(vectors)
    assert chunk.weights[2:4] == (1.2, 1.2)
    assert chunk.tokens[4:20] == plain.tokens[2:18]
    first, second = chunks("cat " * 74 + "bad_hands", {"bad_hands": vectors})
    assert first.tokens.index(49407) == 75
    assert second.tokens[1:3] == tuple(vectors)


def test_only_embeddings_for_both_encoders_are_read(tmp_path: Path) -> None:
    both = {"clip_l": torch.ones(2, 3), "clip_g": torch.ones(2, 5)}
    save_file(both, tmp_path / "verybad_v1.3.safetensors")
    save_file({"emb_params": torch.ones(2, 3)}, tmp_path / "older.safetensors")
    (tmp_path / "notes.txt").write_text("no embedding")
    files = EmbeddingFiles([tmp_path])
    assert files.names() == ["older", "verybad_v1.3"]
    found = named_embeddings("VERYBAD_V1.3, older", files, {"clip_l": 3, "clip_g": 5})
    assert {name: list(each) for name, each in found.items()} == {
        "clip_l": ["verybad_v1.3"],
        "clip_g": ["verybad_v1.3"],
    }
    assert len(found["clip_g"]["verybad_v1.3"]) == 2


# --- what is encoded ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> TextEncoders:
    return ModelStore(Library.below(tmp_path_factory.mktemp("models")), CPU).load(Models(POCKET_NAME)).text


def test_a_text_without_weights_is_encoded_as_ever(encoders: TextEncoders) -> None:
    one, other = encoders.encode_web_ui("a red apple", 2), encoders.encode("a red apple", 2)
    torch.testing.assert_close(one.context, other.context)
    torch.testing.assert_close(one.pooled, other.pooled)


def test_weights_multiply_and_leave_the_mean(encoders: TextEncoders) -> None:
    plain, weighted = encoders.encode_web_ui("apple", 2), encoders.encode_web_ui("(apple:1.5)", 2)
    tokens = len(encoders.tokenizer.ids(["apple"])[0])
    for part in (slice(0, encoders.l.width), slice(encoders.l.width, None)):
        before, after = plain.context[0, :, part], weighted.context[0, :, part]
        expected = before.clone()
        expected[1 : 1 + tokens] *= 1.5
        torch.testing.assert_close(after, expected * (before.mean() / expected.mean()), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weighted.pooled, plain.pooled)


def test_the_pooled_vector_is_the_first_chunks(encoders: TextEncoders) -> None:
    whole = encoders.encode_web_ui("apple BREAK dog", 2)
    assert whole.context.shape[1] == 2 * 77
    torch.testing.assert_close(whole.pooled, encoders.encode_web_ui("apple", 2).pooled)


def test_the_shorter_side_is_filled_up(encoders: TextEncoders) -> None:
    texts = [encoders.encode_web_ui(text, 2) for text in ("a BREAK b BREAK c", "d")]
    long, short = encoders.of_one_length(texts, 2)
    assert long.context.shape == short.context.shape
    torch.testing.assert_close(short.context[:, 154:], encoders.encode("", 2).context)
