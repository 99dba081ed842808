"""Names that clients give: what may be a file's name and what is refused, by the field's own name."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fooocus_core.errors import InvalidRequest
from fooocusapi.images.names import MAX_SAVE_NAME_CHARS, MAX_SEGMENT_BYTES, check_save_name

HARMLESS = [
    "abc",
    "my picture",
    "sub/deep/name",
    "été",
    "名前",
    "a..b",
    "v1.2",
    "100%",
    "a#b",
    "x+y&z=1",
    "CONTROL",
    "-rf",
]

HOSTILE = [
    "..",
    "../x",
    "a/../../x",
    "a/..",
    "./x",
    ".hidden",
    "a/.b/c",
    "/etc/passwd",
    "//x",
    "a//b",
    "a/",
    "..\\x",
    "a\\..\\b",
    "\\\\server\\share",
    "C:x",
    "C:\\x",
    "name:stream",
    "a\x00b",
    "a\nb",
    "a\x7fb",
    "a\x1b[2Jb",
    "a\u202eb",
    "a\u2028b",
    "a\ud800b",
    "CON",
    "nul",
    "com1",
    "LPT9.txt",
    "aux/x",
    "a/PRN",
    "COM¹",
    "a. ",
    "a./b",
    "a /b",
    "a/ b",
    "what?",
    "a*b",
    'a"b',
    "a<b",
    "a|b",
    "x" * (MAX_SAVE_NAME_CHARS + 1),
    "é" * (MAX_SEGMENT_BYTES // 2 + 1),
]


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_names_stay_as_they_are(name: str) -> None:
    assert check_save_name(name) == name


@pytest.mark.parametrize("name", ["", " ", "   "])
def test_blank_names_are_no_name(name: str) -> None:
    assert check_save_name(name) == ""


def test_blanks_around_a_name_are_taken_off() -> None:
    assert check_save_name("  apple ") == "apple"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused_by_field(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_save_name(name)
    assert refused.value.field == "save_name"


@given(st.text(max_size=MAX_SAVE_NAME_CHARS))
def test_whatever_is_taken_stays_below_its_folder(name: str) -> None:
    try:
        taken = check_save_name(name)
    except InvalidRequest:
        return
    path = PurePosixPath(taken)
    assert not path.is_absolute()
    assert not any(part.startswith(".") for part in path.parts)
    assert "\\" not in taken
    assert "\x00" not in taken
