"""Style files: the bundled ones are sound, a user's own win, broken ones do no harm."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fooocus_core.metadata.found_styles import find_styles
from fooocus_core.prompts.styles import (
    BUNDLED_FOLDER,
    PLACEHOLDER,
    Style,
    StyleBook,
    display_name,
    load_styles,
    read_style_file,
)

KNOWN = json.loads(Path(__file__).with_name("style_names.json").read_text(encoding="utf-8"))
"""The original program's style names by family, in load order: what clients may name."""

ARTISTS_ASKED_FOR = {
    "Mk Van Gogh": "Vincent van Gogh",
    "Mk Singer Sargent": "John Singer Sargent",
    "Mk Pollock": "Jackson Pollock",
    "Mk Basquiat": "Jean-Michel Basquiat",
    "Mk Andy Warhol": "Andy Warhol",
    "Mk Adnate Style": "Adnate",
    "Mk Ron English Style": "Ron English",
    "Mk Shepard Fairey Style": "Shepard Fairey",
}
MOST_WORDS = 30
"""A style leaves most of the text encoders' 75 tokens to the prompt."""


def _write(path: Path, entries: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries), encoding="utf-8")


def test_the_names_are_the_original_program_s_in_its_order() -> None:
    names = load_styles().names
    assert list(names) == KNOWN["special"] + [name for family in KNOWN["files"].values() for name in family]
    assert len(names) == 279


@pytest.mark.parametrize(("family", "names"), KNOWN["files"].items())
def test_each_family_is_one_file_without_repetitions(family: str, names: list[str]) -> None:
    assert [style.name for style in read_style_file(BUNDLED_FOLDER / f"{family}.json")] == names


@pytest.mark.parametrize("style", list(load_styles()), ids=lambda style: style.name)
def test_bundled_styles_hold_the_prompt_once_on_one_line(style: Style) -> None:
    assert display_name(style.name) == style.name
    assert style.positive.count(PLACEHOLDER) == (0 if style.name in KNOWN["only_negative"] else 1)
    assert bool(style.positive) == (PLACEHOLDER in style.positive)
    assert style.negative
    for text in (style.positive, style.negative):
        assert len(text.splitlines()) <= 1
        assert text == text.strip(" ,.")
        assert "  " not in text
        assert not {"{", "}"} & set(text.replace(PLACEHOLDER, ""))
        assert not re.search("__|\\[\\[|<lora:", text), "styles are not parsed again"


@pytest.mark.parametrize("style", list(load_styles()), ids=lambda style: style.name)
def test_bundled_styles_suit_the_text_encoders(style: Style) -> None:
    for text in (style.positive, style.negative):
        assert len(text.split()) <= MOST_WORDS
    # The encoders understand what is named, not that it shall be missing.
    assert not re.search(r"\b(no|not|without|never)\b", style.positive)
    assert not re.search(r"[():]", style.positive + style.negative), "read as emphasis"


def test_no_two_bundled_styles_are_alike() -> None:
    styles = list(load_styles())
    for texts in ([style.positive for style in styles if style.positive], [style.negative for style in styles]):
        assert [text for text, count in Counter(texts).items() if count > 1] == []
    endings = [style.positive.partition(PLACEHOLDER)[2] for style in styles if style.positive]
    assert [text for text, count in Counter(endings).items() if text and count > 1] == []


def test_artists_are_named_where_the_style_s_name_asks_for_them_only() -> None:
    book = load_styles()
    for name, artist in ARTISTS_ASKED_FOR.items():
        style = book.find(name)
        assert style is not None
        assert artist in style.positive
    announced = re.compile(r"\b(?:by|style of|manner of) [A-Z]")
    assert {style.name for style in book if announced.search(style.positive)} == ARTISTS_ASKED_FOR.keys()


@pytest.mark.parametrize("style", list(load_styles()), ids=lambda style: style.name)
def test_a_bundled_style_is_recognised_in_the_text_it_made(style: Style) -> None:
    texts = style.apply("a red boat, at sea")
    positive = ", ".join(texts.positive) if texts.holds_prompt else "a red boat, at sea"
    found = find_styles(positive, ", ".join(texts.negative), load_styles())
    assert found.styles == (style.name,)
    assert (found.prompt, found.negative_prompt) == ("a red boat, at sea" if texts.holds_prompt else "", "")


@given(seed=st.integers(0, 2**63 - 1))
def test_a_random_style_is_drawn_by_its_place_in_the_order(seed: int) -> None:
    book = load_styles()
    names = [name for family in KNOWN["files"].values() for name in family]
    (style,) = book.choose(["Random Style"], random.Random(seed))
    assert style.name == random.Random(seed).choice(names)


@pytest.mark.parametrize("path", sorted(BUNDLED_FOLDER.glob("*.json")), ids=lambda path: path.name)
def test_bundled_files_have_no_broken_entries(path: Path) -> None:
    assert len(read_style_file(path)) == len(json.loads(path.read_text(encoding="utf-8")))


def test_a_user_s_style_comes_first_and_wins(tmp_path: Path) -> None:
    _write(tmp_path / "mine.json", [{"name": "fooocus-sharp", "prompt": "mine {prompt}"}, {"name": "my own"}])
    book = load_styles(tmp_path)
    assert book.names[2:4] == ("Fooocus Sharp", "My Own")
    assert book.find("fooocus-sharp") == Style("Fooocus Sharp", "mine {prompt}", "")


def test_a_user_s_copy_of_a_family_stands_where_the_family_stands(tmp_path: Path) -> None:
    bundled = load_styles().names
    for family, names in KNOWN["files"].items():
        _write(tmp_path / f"sdxl_styles_{family}.json", [{"name": name, "prompt": f"theirs {name}"} for name in names])
    _write(tmp_path / "own.json", [{"name": "x own"}, {"name": "sai-anime", "prompt": "mine"}])
    book = load_styles(tmp_path)
    assert book.names[2:4] == ("X Own", "SAI Anime")
    assert [name for name in book.names if name != "X Own"] == [
        *bundled[:2],
        "SAI Anime",
        *[name for name in bundled[2:] if name != "SAI Anime"],
    ]
    assert {style.positive for style in book} == {"", "mine"} | {
        f"theirs {name}" for name in bundled[2:] if name != "SAI Anime"
    }


def test_a_new_style_in_a_family_s_file_ends_that_family(tmp_path: Path) -> None:
    _write(tmp_path / "deeper" / "sdxl_styles_sai.json", [{"name": "sai-new"}])
    names = load_styles(tmp_path).names
    assert names[names.index("SAI New") - 1 : names.index("SAI New") + 2] == (
        "SAI Texture",
        "SAI New",
        "MRE Cinematic Dynamic",
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        "[" * 100_000,
        '[1, null, {"name": 3}, {"name": "x", "prompt": []}, {"prompt": "p"}, {"name": " "}]',
        '[{"name": "x", "prompt": "\\ud800 {prompt}"}, {"name": "\\udfff"}]',
    ],
)
def test_broken_files_hold_no_styles(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    assert read_style_file(path) == []


def test_unknown_styles_are_left_out() -> None:
    book = StyleBook([Style("One")])
    assert book.choose(["Nope", "One", "fooocus v9"], random.Random(0)) == [Style("One")]
    assert StyleBook([]).choose(["Random Style"], random.Random(0)) == []


@given(st.text(max_size=40))
def test_display_names_do_not_change_twice(name: str) -> None:
    once = display_name(name)
    assert display_name(once.replace(" ", "-")) == display_name(once)
