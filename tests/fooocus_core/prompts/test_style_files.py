"""Style files: the bundled ones are sound, a user's own win, broken ones do no harm."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fooocus_core.prompts.styles import (
    BUNDLED_FOLDER,
    PLACEHOLDER,
    Style,
    StyleBook,
    display_name,
    load_styles,
    read_style_file,
)

ONLY_NEGATIVE = {"Fooocus Enhance", "Fooocus Semi Realistic", "Fooocus Negative"}


def _write(path: Path, entries: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries), encoding="utf-8")


def test_bundled_order() -> None:
    names = load_styles().names
    assert names[:4] == ("Fooocus V2", "Random Style", "Fooocus Enhance", "Fooocus Semi Realistic")
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("style", list(load_styles()), ids=lambda style: style.name)
def test_bundled_styles_hold_the_prompt_once_on_one_line(style: Style) -> None:
    assert display_name(style.name) == style.name
    assert style.positive.count(PLACEHOLDER) == (0 if style.name in ONLY_NEGATIVE else 1)
    assert len(style.positive.splitlines()) <= 1
    assert len(style.negative.splitlines()) <= 1


@pytest.mark.parametrize("path", sorted(BUNDLED_FOLDER.glob("*.json")), ids=lambda path: path.name)
def test_bundled_files_have_no_broken_entries(path: Path) -> None:
    assert len(read_style_file(path)) == len(json.loads(path.read_text(encoding="utf-8")))


def test_a_user_s_style_comes_first_and_wins(tmp_path: Path) -> None:
    _write(tmp_path / "mine.json", [{"name": "fooocus-sharp", "prompt": "mine {prompt}"}, {"name": "my own"}])
    book = load_styles(tmp_path)
    assert book.names[2:4] == ("Fooocus Sharp", "My Own")
    assert book.find("fooocus-sharp") == Style("Fooocus Sharp", "mine {prompt}", "")


def test_known_families_keep_their_order_under_their_original_names(tmp_path: Path) -> None:
    for family in ("diva", "fooocus", "own", "sai"):
        _write(tmp_path / f"sdxl_styles_{family}.json", [{"name": f"x {family}"}])
    assert load_styles(tmp_path).names[2:6] == ("X Own", "X Fooocus", "X SAI", "X Diva")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        "[" * 100_000,
        '[1, null, {"name": 3}, {"name": "x", "prompt": []}, {"prompt": "p"}, {"name": " "}]',
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
