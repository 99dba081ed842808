"""Nothing that a client can type breaks a parser, and each keeps its promise."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fooocus_core.plan import Lora
from fooocus_core.prompts.arrays import pick_from_arrays
from fooocus_core.prompts.lines import safe_str, split_lines
from fooocus_core.prompts.lora_tags import (
    find_by_stem,
    lora_candidates,
    merge_loras,
    take_lora_tags,
    tidy_commas,
)
from fooocus_core.prompts.wildcards import Wildcards, fill_wildcards

MARKUP = st.text(alphabet=st.sampled_from("[]<>_:,.- \nab1lora\u00d7é🦊\u2028"), max_size=80) | st.text(max_size=80)


@given(MARKUP)
def test_lines_are_tidy(text: str) -> None:
    lines = split_lines(text)
    assert all(lines.extra)
    assert all(line == safe_str(line) for line in (lines.main, *lines.extra))
    if not lines.main:
        assert lines.extra == ()


@given(MARKUP, st.integers(0, 2**63))
def test_arrays_take_any_text(text: str, index: int) -> None:
    picked = pick_from_arrays(text, index)
    assert len(picked) <= len(text)
    if "[[" not in text or "]]" not in text:
        assert picked == text


@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True), min_size=1, max_size=3))
def test_arrays_show_every_combination_once_before_starting_over(groups: list[list[str]]) -> None:
    text = " ".join(f"[[{','.join(group)}]]" for group in groups)
    count = 1
    for group in groups:
        count *= len(group)
    round_of_pictures = [pick_from_arrays(text, index) for index in range(count)]
    assert len(set(round_of_pictures)) == count
    assert pick_from_arrays(text, count) == round_of_pictures[0]


@given(MARKUP)
def test_lora_tags_take_any_text(text: str) -> None:
    tagged = take_lora_tags(text, lambda name: name)
    assert tidy_commas(tagged.prompt) == tagged.prompt
    assert all(isinstance(lora.weight, float) for lora in tagged.loras)


def test_a_weight_too_large_for_a_number_is_none() -> None:
    tagged = take_lora_tags(f"a <lora:x:{'9' * 400}> <lora:x:2>", lambda name: name)
    assert tagged == ("a", (Lora("x", 2.0),))


def test_the_first_listed_file_of_a_stem_is_taken() -> None:
    find = find_by_stem(["b/glow.safetensors", "glow.ckpt"])
    assert find("glow") == "b/glow.safetensors"
    assert find("Glow") is None


def test_tags_may_not_name_the_mode_s_own_lora() -> None:
    names = ["x/fast.safetensors", "ink.safetensors"]
    assert lora_candidates(names, Lora("fast.safetensors", 1.0)) == ["ink.safetensors"]
    assert lora_candidates(names, None) == names


LORAS = st.lists(st.builds(Lora, st.sampled_from(["a", "b", "c", "None"]), st.sampled_from([0.5, 1.0])), max_size=6)


@given(LORAS, LORAS, st.integers(1, 6))
def test_the_request_s_loras_come_first_and_the_limit_holds(
    requested: list[Lora], tagged: list[Lora], limit: int
) -> None:
    merged = merge_loras(requested, tagged, limit)
    if set(tagged) <= set(requested):
        assert merged == tuple(requested)
    if merged != tuple(requested):
        kept = [lora for lora in requested if lora.name != "None"]
        assert len(merged) <= limit
        assert list(merged[: len(kept)]) == kept[:limit]


@pytest.fixture(scope="module")
def wildcards(tmp_path_factory: pytest.TempPathFactory) -> Wildcards:
    folder = tmp_path_factory.mktemp("words")
    (folder / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    (folder / "twice.txt").write_text("__twice__ __twice__", encoding="utf-8")
    (folder / "b.txt").write_bytes(b"\xff\xfe broken\n")
    return Wildcards((folder,))


@given(text=MARKUP, seed=st.integers(0, 2**63 - 1), in_order=st.booleans())
def test_wildcards_take_any_text(text: str, seed: int, in_order: bool, wildcards: Wildcards) -> None:
    first = fill_wildcards(text, wildcards, random.Random(seed), 3, in_order)
    assert first == fill_wildcards(text, wildcards, random.Random(seed), 3, in_order)


def test_a_wildcard_that_doubles_itself_comes_to_an_end(wildcards: Wildcards) -> None:
    text = fill_wildcards("__twice__", wildcards, random.Random(0), 0, False)
    assert len(text) < 200_000


def test_a_wildcard_name_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    (tmp_path / "words").mkdir()
    wildcards = Wildcards((tmp_path / "words",))
    assert fill_wildcards("__../secret__ __secret__", wildcards, random.Random(0), 0, False) == "__../secret__ secret"
    assert wildcards.names == []


def test_sub_folders_come_first_and_user_words_before_bundled_ones(tmp_path: Path) -> None:
    for name, word in (("color.txt", "outer"), ("sub/color.txt", "inner"), ("Zebra.txt", "z"), ("apple.TXT", "a")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(word, encoding="utf-8")
    wildcards = Wildcards((tmp_path, *[Path(tmp_path, "missing")]))
    assert wildcards.lines("color") == ["inner"]
    assert wildcards.lines("apple") == ["a"]


def test_bundled_words() -> None:
    """The names that the original program ships, each with sound lines of our own."""
    wildcards = Wildcards()
    shipped = {"animal", "artist", "color", "color_flower", "extended-color", "flower", "nationality"}
    assert shipped <= set(wildcards.names)
    for name in wildcards.names:
        lines = wildcards.lines(name)
        assert lines
        assert len(set(lines)) == len(lines)
        assert all(line == line.strip() and "," not in line for line in lines)
        assert "__" not in fill_wildcards(f"a __{name}__", wildcards, random.Random(1), 0, False)
