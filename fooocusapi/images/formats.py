"""Finished files in another form: without metadata, or as another kind of picture.

Bytes in, bytes out. The imaging library is imported on use, because the server's port must open before it is loaded.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image

Kind = Literal["png", "jpeg", "webp"]

KIND_OF_SUFFIX: dict[str, Kind] = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
MEDIA_TYPES: dict[Kind, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_METADATA = frozenset({b"tEXt", b"iTXt", b"zTXt", b"eXIf", b"tIME"})
_JPEG_EXIF = b"\xff\xe1"
_WEBP_EXIF_FLAG = 0x08


def without_metadata(data: bytes, kind: Kind) -> bytes:
    """The same picture, bit for bit, without text chunks and EXIF. ``data`` must be a file this server wrote."""
    if kind == "png":
        return _PNG_SIGNATURE + b"".join(chunk for name, chunk in _png_chunks(data) if name not in _PNG_METADATA)
    if kind == "jpeg":
        return _jpeg_without_exif(data)
    return _webp_without_exif(data)


def converted(data: bytes, kind: Kind) -> bytes:
    """The picture re-encoded as ``kind``, without metadata. Transparency becomes white in JPEG.

    Raises ``PIL.UnidentifiedImageError`` (an ``OSError``) when ``data`` is not a picture.
    """
    from PIL import Image

    from fooocus_core.metadata.files import png_packing

    with Image.open(io.BytesIO(data)) as source:
        picture = _opaque(source) if kind == "jpeg" else source.convert("RGBA" if _has_alpha(source) else "RGB")
        target = io.BytesIO()
        if kind == "png":
            picture.save(target, "PNG", **png_packing())
        elif kind == "jpeg":
            picture.save(target, "JPEG", quality=95, progressive=True)
        else:
            picture.save(target, "WEBP", quality=95)
    return target.getvalue()


def _has_alpha(picture: Image) -> bool:
    return "A" in picture.getbands() or "transparency" in picture.info


def _opaque(picture: Image) -> Image:
    from PIL import Image

    if not _has_alpha(picture):
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    background = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(background, layer).convert("RGB")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(_PNG_SIGNATURE)
    while position < len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        yield data[position + 4 : position + 8], data[position:end]
        position = end


def _jpeg_without_exif(data: bytes) -> bytes:
    """Segments up to the start of scan carry their length; what follows is copied as it is."""
    kept = [data[:2]]
    position = 2
    while data[position : position + 2] != b"\xff\xda" and position + 4 <= len(data):
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position : position + 2] != _JPEG_EXIF:
            kept.append(data[position:end])
        position = end
    return b"".join(kept) + data[position:]


def _webp_without_exif(data: bytes) -> bytes:
    kept = []
    position = 12
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        end = position + 8 + length + length % 2
        name, chunk = data[position : position + 4], data[position:end]
        if name == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_EXIF_FLAG]) + chunk[9:]
        if name != b"EXIF":
            kept.append(chunk)
        position = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + len(body).to_bytes(4, "little") + body
