"""Files that are sent for pictures and are none, or are more than they seem: a table by class of attack.

Each is made on use, because some are large. ``says`` is a part of the reason that the answer gives.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from PIL import Image

SIDE = 64
HUGE = 30_000
BOMB_BYTES = 256 * 2**20
PIECES = 600_000
"""More than a file may have of them, since each is gone back to three times."""


class Hostile(NamedTuple):
    """One file."""

    kind: str
    name: str
    make: Callable[[], bytes]
    says: str


def file_of(picture: Image.Image, kind: str, **options: Any) -> bytes:
    target = io.BytesIO()
    picture.save(target, kind, **options)
    return target.getvalue()


def plain(kind: str, **options: Any) -> bytes:
    """A small good picture that cannot be packed well."""
    noise = random.Random(5).randbytes(SIDE * SIDE * 3)
    return file_of(Image.frombytes("RGB", (SIDE, SIDE), noise), kind, **options)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, packed: bytes, *, before: bytes = b"", after: bytes = b"", colour: int = 2) -> bytes:
    """A PNG of eight bits with any promise in its header, and with more around its rows."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), before, chunk(b"IDAT", packed), after, chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def small_png(before: bytes = b"", after: bytes = b"") -> bytes:
    return png(SIDE, SIDE, zlib.compress(bytes(SIDE * (3 * SIDE + 1))), before=before, after=after)


@cache
def zeros(count: int, fill: bytes = b"\0") -> bytes:
    """So many bytes, packed as small as they can be, without having been there at once."""
    packer = zlib.compressobj(9)
    block = fill * 2**20
    return b"".join(packer.compress(block) for _ in range(count // len(block))) + packer.flush()


def gif(width: int, height: int, between: bytes = b"", frames: int = 1) -> bytes:
    frame = b",\0\0\0\0" + struct.pack("<HH", width, height) + b"\0\x02\x02L\x01\0"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + bytes(6) + between + frame * frames + b";"


def jpeg_of_sides(width: int, height: int) -> bytes:
    """A small JPEG that promises to be larger."""
    data = bytearray(plain("JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_with(segments: bytes) -> bytes:
    """A JPEG with more between its beginning and its first segment."""
    data = plain("JPEG")
    return data[:2] + segments + data[2:]


def webp_of_sides(width: int, height: int) -> bytes:
    """A small WebP of the extended kind with a canvas that is none; no more than 16384 fit."""
    exif = Image.Exif()
    exif[0x0112] = 1
    data = bytearray(plain("WEBP", exif=exif))
    assert data[12:16] == b"VP8X"
    data[24:27] = (width - 1).to_bytes(3, "little")
    data[27:30] = (height - 1).to_bytes(3, "little")
    return bytes(data)


def tiff(tags: dict[int, tuple[int, int, int]]) -> bytes:
    """A TIFF's header and directory: type, count and value by tag."""
    entries = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def broken_off(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def tiles_of_jpeg2000() -> bytes:
    data = bytearray(file_of(Image.new("RGB", (1000, 1000)), "JPEG2000", no_jp2=True))
    start = data.index(b"\xff\x51") + len(b"\xff\x51") + 4 + 16
    data[start : start + 8] = struct.pack(">II", 4, 4)
    return bytes(data)


NO_PICTURE = "is no picture that can be read"
DAMAGED = "incomplete or damaged"
TOO_LARGE = "too many pixels|pixels, at most"
PIECEWISE = "more pieces"
NUMBERS = bytes(4 * 200_000)

FILES = [
    # Something else.
    Hostile("no picture", "text", lambda: b"hello", NO_PICTURE),
    Hostile("no picture", "page", lambda: b"<!DOCTYPE html><html><body>Not found</body></html>", NO_PICTURE),
    Hostile("no picture", "drawing", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", NO_PICTURE),
    Hostile("no picture", "PDF", lambda: b"%PDF-1.7\n1 0 obj\n", NO_PICTURE),
    Hostile(
        "no picture", "PostScript", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n", NO_PICTURE
    ),
    Hostile("no picture", "archive", lambda: b"PK\x03\x04" + bytes(100), NO_PICTURE),
    Hostile("no picture", "program", lambda: b"\x7fELF" + bytes(100), NO_PICTURE),
    Hostile("no picture", "pickle", lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.", NO_PICTURE),
    Hostile("no picture", "zeros", lambda: bytes(10_000), NO_PICTURE),
    Hostile("no picture", "signature alone", lambda: b"\x89PNG\r\n\x1a\n", NO_PICTURE),
    Hostile("no picture", "garbage behind a signature", lambda: b"GIF89a" + bytes(range(256)) * 40, "picture"),
    # Not all of it.
    *(
        Hostile("broken off", kind, lambda kind=kind: broken_off(plain(kind)), "picture")  # type: ignore[misc]
        for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF")
    ),
    Hostile("broken off", "large PNG", lambda: png(5000, 4999, zeros(50 * 2**20)), DAMAGED),
    Hostile(
        "broken off", "large greyscale PNG with alpha", lambda: png(5000, 4999, zeros(30 * 2**20), colour=4), DAMAGED
    ),
    Hostile(
        "broken off",
        "large JPEG in passes",
        lambda: broken_off(file_of(Image.new("RGB", (5000, 4999)), "JPEG", progressive=True, subsampling=0)),
        DAMAGED,
    ),
    # Smaller, or larger, than a picture to work with.
    Hostile("size", "one pixel", lambda: file_of(Image.new("RGB", (1, 1)), "PNG"), "at least 8"),
    Hostile("size", "one row", lambda: file_of(Image.new("RGB", (900, 1)), "PNG"), "at least 8"),
    Hostile("bomb", "PNG of a promise", lambda: png(HUGE, HUGE, b"no rows"), TOO_LARGE),
    Hostile("bomb", "PNG that keeps it", lambda: png(HUGE, HUGE, zeros(BOMB_BYTES)), TOO_LARGE),
    Hostile("bomb", "just too large a PNG", lambda: png(5001, 5000, zeros(2**20)), TOO_LARGE),
    Hostile("bomb", "GIF", lambda: gif(HUGE, HUGE), TOO_LARGE),
    Hostile("bomb", "GIF with a larger frame", lambda: gif(SIDE, SIDE)[:13] + gif(HUGE, HUGE)[13:], TOO_LARGE),
    Hostile("bomb", "JPEG", lambda: jpeg_of_sides(HUGE, HUGE), TOO_LARGE),
    Hostile("bomb", "WebP", lambda: webp_of_sides(16_000, 16_000), TOO_LARGE),
    Hostile("bomb", "PPM", lambda: b"P6 30000 30000 255\n", TOO_LARGE),
    Hostile(
        "bomb",
        "TIFF tiles",
        lambda: tiff(
            {
                256: (4, 1, 64),
                257: (4, 1, 64),
                258: (4, 1, 8),
                259: (4, 1, 8),
                262: (4, 1, 1),
                277: (4, 1, 1),
                322: (4, 1, 20_000),
                323: (4, 1, 20_000),
                324: (4, 1, 0),
                325: (4, 1, 0),
            }
        ),
        "tiles",
    ),
    Hostile("bomb", "JPEG 2000 tiles", tiles_of_jpeg2000, "tiles"),
    # Notes beside the picture that unpack to far more, or are far too many.
    *(
        Hostile(
            "notes",
            f"{name.decode()} {where}",
            lambda name=name, head=head, where=where: small_png(  # type: ignore[misc]
                **{where: chunk(name, head + zeros(BOMB_BYTES, b"x"))}
            ),
            "picture",
        )
        for name, head in ((b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0"))
        for where in ("before", "after")
        if (name, where) != (b"iCCP", "after")
    ),
    Hostile(
        "notes",
        "many texts",
        lambda: small_png(before=chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 1_000_000)) * 500),
        "picture",
    ),
    Hostile("notes", "EXIF", lambda: small_png(chunk(b"eXIf", tiff({0x0112: (4, 200_000, 26)}) + NUMBERS)), "numbers"),
    Hostile("notes", "EXIF of a JPEG", lambda: jpeg_with(b"\xff\xe1\0\x0aExif\0\0MM" * 50), "EXIF"),
    Hostile(
        "notes", "TIFF", lambda: tiff({256: (4, 1, 64), 257: (4, 1, 64), 273: (4, 200_000, 64)}) + NUMBERS, "numbers"
    ),
    # Of so many pieces that a reader would be busy for hours.
    Hostile("pieces", "PNG", lambda: small_png(before=chunk(b"teSt", b"") * PIECES), PIECEWISE),
    Hostile("pieces", "GIF comments", lambda: gif(SIDE, SIDE, b"!\xfe\1c\0" * PIECES), PIECEWISE),
    Hostile("pieces", "JPEG comments", lambda: jpeg_with(b"\xff\xfe\0\2" * PIECES), PIECEWISE),
    Hostile("pieces", "JPEG tables", lambda: plain("JPEG")[:-2] + b"\xff\xc4\0\2" * PIECES + b"\xff\xd9", "segments"),
    Hostile("pieces", "PPM in decimals", lambda: b"P3 5000 5000 255\n" + b"#\n1 " * PIECES, "decimal"),
]

FEW = [
    file
    for file in FILES
    if file.name in ("text", "PNG", "one pixel", "PNG of a promise", "EXIF") and file.kind != "pieces"
]
"""One of each class that costs nothing, for every field that takes a picture."""


def many_frames(kind: str) -> bytes:
    """An animation of thousands of frames, which is a picture: its first counts."""
    if kind == "GIF":
        return gif(SIDE, SIDE, frames=5000)
    frames = [Image.new("RGB", (16, 16), (index % 256, 0, 0)) for index in range(1000)]
    return file_of(Image.new("RGB", (16, 16)), kind, save_all=True, append_images=frames, method=0)
