"""Pictures that clients send, for every dialect: as a file, as base64, as an address, or not at all.

Contracts: ``fooocus-api.md`` sections 8 and 9, ``engine-generate.md`` on image-valued fields.
"""

from __future__ import annotations

import asyncio
import binascii
import io
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from anyio import CapacityLimiter
from starlette.datastructures import UploadFile

from fooocusapi.errors import Location, RefusedField
from fooocusapi.images.decode import ImageLimits, UnusableImage, decode_image
from fooocusapi.threads import run_in_threadpool, run_limited

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fooocusapi.settings import Settings

SentImage = UploadFile | str | None
"""What stands in a field for a picture: the part of a form, or text of a form or of JSON."""

Fetch = Callable[[str], Awaitable[bytes]]
"""``fooocusapi.fetch.Fetcher.fetch``."""

PLACEHOLDERS = frozenset({"", "none", "null", "string"})
"""Texts, in any case, that clients and documentation pages send where there is no picture."""

_TELLING = 1 + max(map(len, PLACEHOLDERS))
"""Characters that tell a placeholder from a picture as text, which may be very long."""

_WEB = re.compile(r"https?://", re.IGNORECASE)
_OTHER_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_DATA_URI = re.compile(r"data:[^,]{0,200},", re.IGNORECASE)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BLANKS = b" \t\r\n\v\f"
_ENDING = "=" + _BLANKS.decode()
_PIECE = 2**20
_SIGNATURES = ("\x89PNG", "\xff\xd8\xff", "GIF8", "RIFF")
_SIGNIFICANT = 64
"""Characters within which every kind of file with such a signature has a zero byte, in a length or in a size."""


def holds_image(value: object) -> bool:
    """Whether a field's value is meant as a picture, usable or not; placeholders and empty files are not."""
    if isinstance(value, UploadFile):
        return value.size != 0
    return isinstance(value, str) and value.strip()[:_TELLING].lower() not in PLACEHOLDERS


class OwnPictures(Protocol):
    """``OutputStore`` and ``ShownPictures``."""

    def find_by_url(self, url: str) -> Path | None:
        """The existing file that an address names, whatever its host, or ``None``; looks at the disk."""
        ...


@dataclass(frozen=True)
class SentPicture:
    """A field for a picture: where it stands, what was sent in it, and whether it may be left empty."""

    loc: Location
    value: SentImage
    is_required: bool = False


class InputImages:
    """Reads what was sent for a picture. Belongs to one application and its event loop."""

    def __init__(self, own: Sequence[OwnPictures], fetch: Fetch, limits: ImageLimits) -> None:
        """``own``: the pictures that this server itself has, which are not fetched."""
        self._own = own
        self._fetch = fetch
        self._limits = limits
        self._decoding = CapacityLimiter(1)  # Large pictures one after the other, or the memory for them adds up.

    async def read(self, loc: Location, value: SentImage) -> NDArray[np.uint8] | None:
        """The pixels as ``decode_image`` gives them; ``None`` where nothing was meant as a picture.

        Raises ``RefusedField`` naming ``loc`` for a picture that cannot be had or read, or is too large or too small.
        """
        if value is None or not holds_image(value):
            return None
        try:
            return await self._pixels_of(value)
        except UnusableImage as error:
            reason = str(error)
        # Not as its cause: that holds the file, for as long as the other pictures of the request are read.
        raise RefusedField(loc, reason, value=value.filename if isinstance(value, UploadFile) else value)

    async def read_required(self, loc: Location, value: SentImage) -> NDArray[np.uint8]:
        """The same for a field that must have a picture."""
        pixels = await self.read(loc, value)
        if pixels is None:
            raise RefusedField(loc, "a picture is required", value=None if isinstance(value, UploadFile) else value)
        return pixels

    async def read_all(self, sent: Sequence[SentPicture]) -> dict[Location, NDArray[np.uint8]]:
        """The pixels of all fields that hold a picture, by their places.

        Side by side: several addresses that do not answer take no longer than one. Raises ``RefusedField`` for the
        first, in their order, that cannot be taken.
        """
        outcomes = await asyncio.gather(*(self._read_one(picture) for picture in sent), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        pictures = {
            picture.loc: outcome
            for picture, outcome in zip(sent, outcomes, strict=True)
            if outcome is not None and not isinstance(outcome, BaseException)
        }
        if failures:
            del outcomes, pictures  # What is raised holds this frame: the frame must not hold it, nor the others.
            raise failures.pop(0)
        return pictures

    async def _read_one(self, picture: SentPicture) -> NDArray[np.uint8] | None:
        read = self.read_required if picture.is_required else self.read
        return await read(picture.loc, picture.value)

    async def _pixels_of(self, value: UploadFile | str) -> NDArray[np.uint8]:
        get = await self._getter_of(value)
        return await run_limited(self._decoding, lambda: decode_image(get(), self._limits))

    async def _getter_of(self, value: UploadFile | str) -> Callable[[], bytes]:
        """What gives the bytes of the file, on a thread; never more than the limit, give or take one.

        Only what comes from the network is there before: of all else, one picture at a time is in memory.
        """
        if isinstance(value, UploadFile):
            self._limits.check_bytes(value.size or 0)
            return lambda: value.file.read(self._limits.max_bytes + 1)
        if _WEB.match(value.strip()):
            return await self._at_address(value.strip())
        return lambda: bytes_of_text(value, self._limits)

    def _find_own(self, url: str) -> Path | None:
        return next((path for pictures in self._own if (path := pictures.find_by_url(url)) is not None), None)

    async def _at_address(self, url: str) -> Callable[[], bytes]:
        """This server's own pictures come from its disk, so that it need not reach itself under its public name."""
        from fooocusapi.fetch import FetchFailed

        own = await run_in_threadpool(self._find_own, url)
        if own is not None:
            return lambda: _stored(own, self._limits)
        try:
            data = await self._fetch(url)
        except FetchFailed as error:
            raise UnusableImage(str(error)) from error
        return lambda: data


def input_images(settings: Settings, own: Sequence[OwnPictures]) -> InputImages:
    """The reader that the settings describe, on the real network. Reads certificates: call it from a thread."""
    from fooocusapi.fetch import Fetcher, FetchLimits, GuardedTransport, network_transports

    connect = network_transports()
    limits = FetchLimits(settings.max_input_bytes, settings.fetch_timeout_s, settings.max_fetch_redirects)

    def guarded() -> GuardedTransport:
        return GuardedTransport(connect(), allow_private=settings.fetch_private, own_url=settings.public_url)

    return InputImages(
        own, Fetcher(limits, guarded).fetch, ImageLimits(settings.max_input_bytes, settings.max_input_pixels)
    )


def bytes_of_text(text: str, limits: ImageLimits) -> bytes:
    """The file that a text holds. Raises ``UnusableImage``.

    Base64 of either alphabet, with or without ``data:...,`` in front, line breaks and padding; or the bytes themselves,
    as a form's text part carries them.
    """
    raw = _raw(text)
    if raw is not None:
        return raw
    text = text.strip()
    if _OTHER_SCHEME.match(text):
        raise UnusableImage("only http:// and https:// addresses are fetched")
    prefix = _DATA_URI.match(text)
    start = prefix.end() if prefix else 0
    limits.check_bytes((len(text) - start) * 3 // 4 - len("=="))
    try:
        return _from_base64(text.rstrip(_ENDING), start)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise UnusableImage("is neither base64 nor an address that begins with http:// or https://") from error


def _from_base64(text: str, start: int) -> bytes:
    """A piece at a time: each step of the way would make a copy of the whole."""
    unpacked = io.BytesIO()
    left = b""
    for position in range(start, len(text), _PIECE):
        packed = left + text[position : position + _PIECE].encode("ascii").translate(_URL_SAFE, _BLANKS)
        if b"=" in packed:
            raise binascii.Error("padding within")
        whole = len(packed) - len(packed) % 4
        unpacked.write(binascii.a2b_base64(packed[:whole], strict_mode=True))
        left = packed[whole:]
    unpacked.write(binascii.a2b_base64(left + b"=" * (-len(left) % 4), strict_mode=True))
    return unpacked.getvalue()


def _raw(text: str) -> bytes | None:
    """The bytes that a form's text part shows as one character each; they have zeros early on, which no text has."""
    if not text.startswith(_SIGNATURES) or "\0" not in text[:_SIGNIFICANT]:
        return None
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return None


def _stored(path: Path, limits: ImageLimits) -> bytes:
    try:
        limits.check_bytes(path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise UnusableImage("the picture is not there any more") from error
