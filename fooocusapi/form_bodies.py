"""Forms as clients send them, read under limits: what is too long is not kept while the rest of the body arrives.

The framework's own reader decodes texts by any codec that a client names, some of which take hours, knows no limit for
all texts together, and takes a body that breaks off for a whole one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Final
from urllib.parse import unquote_to_bytes

from fastapi import HTTPException
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import FormData, UploadFile

from fooocusapi.errors import RefusedField

IN_MEMORY_BYTES: Final = 2**20
"""Files beyond this lie on the disk, without a name."""
LONG_TEXT_BYTES: Final = 2**20
"""A text beyond this is a picture, as base64 or as its bytes."""
_PIECE: Final = 2**16
_ESCAPED: Final = ord("%")
_AN_ESCAPE: Final = len("%00")


@dataclass(frozen=True)
class FormLimits:
    """How much of a form is read. Of a longer file its true ``size`` is told, and its beginning kept."""

    files: int
    texts: int
    file_bytes: int
    text_bytes: int
    """Of all texts together."""


async def read_multipart(content_type: str, stream: AsyncIterator[bytes], limits: FormLimits) -> FormData:
    """The parts of a body; the caller closes them. Raises ``RefusedField``, and ``HTTPException`` for too many parts.

    Texts are UTF-8, else each byte is a character.
    """
    _, options = parse_options_header(content_type)
    parts = _Parts(limits)
    try:
        parser = MultipartParser(
            options.get(b"boundary", b""),
            {
                "on_part_begin": parts.begin,
                "on_header_field": parts.header_name,
                "on_header_value": parts.header_value,
                "on_header_end": parts.header_end,
                "on_headers_finished": parts.headers_finished,
                "on_part_data": parts.data,
                "on_part_end": parts.end,
            },
        )
        async for chunk in stream:
            parser.write(chunk)
            await parts.write_files()
        await parts.check_whole()
    except BaseException as error:
        await parts.close()
        if isinstance(error, FormParserError):
            raise RefusedField(("body",), "is no form that can be read") from error
        raise
    return FormData(parts.fields)


def read_urlencoded(body: bytes, limits: FormLimits) -> FormData:
    """The fields of a body whose type says that it is a form. Raises as ``read_multipart`` does."""
    if len(body) > limits.text_bytes:
        raise _too_long("", limits)
    if body.count(b"&") >= limits.texts:
        raise _too_many(limits.texts, "fields")
    pairs = (field.partition(b"=") for field in body.split(b"&") if field)
    return FormData([(_text_of(_unescaped(name)), _text_of(_unescaped(value))) for name, _, value in pairs])


class _Parts:
    """What the parser of one body has found so far."""

    def __init__(self, limits: FormLimits) -> None:
        self.fields: list[tuple[str, str | UploadFile]] = []
        self._limits = limits
        self._files: list[UploadFile] = []
        self._texts = 0
        self._text_bytes = 0
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._name: str | None = None
        """Of the part that has begun and not ended."""
        self._file: UploadFile | None = None
        self._text = bytearray()
        self._unwritten: list[tuple[UploadFile, bytes]] = []

    def begin(self) -> None:
        self._disposition, self._file, self._text = b"", None, bytearray()

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name = ""
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise RefusedField(("body",), "a part of the form has no name")
        self._name = _text_of(options[b"name"])
        if b"filename" in options:
            if len(self._files) == self._limits.files:
                raise _too_many(self._limits.files, "files")
            self._file = _new_file(_text_of(options[b"filename"]))
            self._files.append(self._file)
        elif self._texts == self._limits.texts:
            raise _too_many(self._limits.texts, "fields")
        else:
            self._texts += 1

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._unwritten.append((self._file, data[start:end]))
            return
        self._text_bytes += end - start
        if self._text_bytes > self._limits.text_bytes:
            raise _too_long(self._name or "", self._limits)
        self._text += data[start:end]

    def end(self) -> None:
        assert self._name is not None
        self.fields.append((self._name, _text_of(self._text) if self._file is None else self._file))
        self._name, self._text = None, bytearray()

    async def write_files(self) -> None:
        """What came for files: their beginnings to the disk, the rest is only counted."""
        for file, data in self._unwritten:
            assert file.size is not None
            room = max(0, self._limits.file_bytes - file.size)
            kept = len(data[:room])
            if kept:
                await file.write(data[:room])
            file.size += len(data) - kept
        self._unwritten.clear()

    async def check_whole(self) -> None:
        """A part that never ended would be missing without a word; the files can be read from their beginning."""
        if self._name is not None:
            raise RefusedField(
                ("body", self._name) if self._name else ("body",), "the form breaks off within this part"
            )
        for file in self._files:
            await file.seek(0)

    async def close(self) -> None:
        for file in self._files:
            await file.close()


def _new_file(name: str) -> UploadFile:
    return UploadFile(SpooledTemporaryFile(IN_MEMORY_BYTES), size=0, filename=name)  # type: ignore[arg-type]


def _text_of(data: bytes | bytearray) -> str:
    """A single character beyond Latin would make each character of a long text take four bytes."""
    if len(data) > LONG_TEXT_BYTES and not data.isascii():
        return data.decode("latin-1")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _unescaped(escaped: bytes) -> bytes:
    """A piece at a time: at once, there would be an object for each escape. No escape is parted."""
    plain = bytearray()
    position = 0
    while position < len(escaped):
        piece = escaped[position : position + _PIECE]
        cut = piece.rfind(_ESCAPED, max(0, len(piece) - _AN_ESCAPE + 1))
        if cut > 0 and position + len(piece) < len(escaped):
            piece = piece[:cut]
        plain += unquote_to_bytes(piece.replace(b"+", b" "))
        position += len(piece)
    return bytes(plain)


def _too_long(name: str, limits: FormLimits) -> RefusedField:
    reason = f"the texts of the form have more than {limits.text_bytes} bytes"
    return RefusedField(("body", name) if name else ("body",), reason)


def _too_many(limit: int, what: str) -> HTTPException:
    return HTTPException(413, f"the form has more than {limit} {what}")
