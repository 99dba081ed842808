"""Forms byte by byte, in pieces of any size, up to their limits and beyond."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import quote_from_bytes, urlencode

import pytest
from fastapi import HTTPException
from starlette.datastructures import FormData, UploadFile

from fooocusapi.errors import RefusedField
from fooocusapi.form_bodies import FormLimits, read_multipart, read_urlencoded

LIMITS = FormLimits(files=2, texts=3, file_bytes=1000, text_bytes=500)
TYPE = "multipart/form-data; boundary=b"


def part(name: str, data: bytes, more: str = "") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data + b"\r\n"


def read(body: bytes, *, at_once: int = 10**9, content_type: str = TYPE) -> FormData:
    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(body), at_once):
            yield body[start : start + at_once]

    return asyncio.run(read_multipart(content_type, stream(), LIMITS))


def content(form: FormData, name: str) -> bytes:
    file = form[name]
    assert isinstance(file, UploadFile)
    return file.file.read()


@pytest.mark.parametrize("at_once", [1, 7, 10**9])
def test_texts_and_files_in_pieces_of_any_size(at_once: int) -> None:
    data = bytes(range(256)) * 3
    body = part("a", "ä\r\n--".encode()) + part("f", data, '; filename="x.png"') + part("a", b"2") + b"--b--\r\n"
    form = read(body, at_once=at_once)
    assert form.getlist("a") == ["ä\r\n--", "2"]
    file = form["f"]
    assert isinstance(file, UploadFile)
    assert (file.filename, file.size, content(form, "f")) == ("x.png", len(data), data)


def test_texts_are_utf_8_or_bytes_whatever_the_client_calls_them() -> None:
    body = part("a", "ä".encode()) + part("b", b"\x89PNG\xff") + b"--b--"
    form = read(body, content_type=f"{TYPE}; charset=utf-16")
    assert (form["a"], form["b"]) == ("ä", "\x89PNG\xff")


@pytest.mark.parametrize(("size", "kept"), [(1000, 1000), (1001, 1000), (5000, 1000)])
def test_of_a_longer_file_the_beginning_is_kept_and_the_size_told(size: int, kept: int) -> None:
    form = read(part("f", b"x" * size, '; filename=""') + b"--b--", at_once=300)
    file = form["f"]
    assert isinstance(file, UploadFile)
    assert (file.size, len(content(form, "f"))) == (size, kept)


def test_texts_count_together() -> None:
    assert read(part("a", b"x" * 400) + part("c", b"x" * 100) + b"--b--")["c"] == "x" * 100
    with pytest.raises(RefusedField, match=r"body\.c: the texts of the form have more than 500 bytes"):
        read(part("a", b"x" * 400) + part("c", b"x" * 101) + b"--b--")


@pytest.mark.parametrize(("more", "count", "what"), [("", 3, "3 fields"), ('; filename="f"', 2, "2 files")])
def test_so_many_parts_and_no_more(more: str, count: int, what: str) -> None:
    assert len(read(part("a", b"", more) * count + b"--b--").multi_items()) == count
    with pytest.raises(HTTPException) as caught:
        read(part("a", b"", more) * (count + 1) + b"--b--")
    assert (caught.value.status_code, caught.value.detail) == (413, f"the form has more than {what}")


def test_an_end_that_is_missing_between_parts_is_forgiven() -> None:
    assert read(part("a", b"1") + b"--b\r\n")["a"] == "1"
    assert read(b"").multi_items() == []


@pytest.mark.parametrize("body", [part("f", b"x" * 10, '; filename="f"')[:-6], part("f", b"x" * 10)])
def test_a_part_without_an_end(body: bytes) -> None:
    with pytest.raises(RefusedField, match=r"body\.f: the form breaks off within this part"):
        read(body)


def test_files_are_closed_where_the_form_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str | None] = []

    async def close(file: UploadFile) -> None:
        closed.append(file.filename)

    monkeypatch.setattr(UploadFile, "close", close)
    with pytest.raises(RefusedField):
        read(part("f", b"x", '; filename="one"') + part("g", b"x", '; filename="two"')[:-2])
    assert closed == ["one", "two"]


@pytest.mark.parametrize("text", ["", "a b+c&d=e%", "ä\N{GRINNING FACE}", "%41" * 30])
def test_urlencoded_fields(text: str) -> None:
    form = read_urlencoded(urlencode({"a": text, text or "b": "1"}).encode(), LIMITS)
    assert form["a"] == text
    assert form[text or "b"] == "1"


def test_long_urlencoded_fields() -> None:
    """No escape is parted where the field is worked through in pieces."""
    limits = FormLimits(files=0, texts=3, file_bytes=0, text_bytes=10**7)
    for shift in range(4):
        data = b"x" * shift + b"+/=" * 100_000
        body = b"a=" + quote_from_bytes(data, safe="").encode() + b"&c"
        form = read_urlencoded(body, limits)
        assert (form["a"], form["c"]) == (data.decode(), "")


def test_broken_escapes_stay_as_they_are() -> None:
    assert read_urlencoded(b"a=%4&b=%zz&c=%", LIMITS).multi_items() == [("a", "%4"), ("b", "%zz"), ("c", "%")]


def test_urlencoded_forms_have_the_same_limits() -> None:
    with pytest.raises(HTTPException, match="more than 3 fields"):
        read_urlencoded(b"a=1&b=2&c=3&d=4", LIMITS)
    with pytest.raises(RefusedField, match="more than 500 bytes"):
        read_urlencoded(b"a=" + b"x" * 500, LIMITS)
