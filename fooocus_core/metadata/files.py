"""Encoding a picture, with what made it inside (specification 08, sections 6 and 6.1)."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from typing import TYPE_CHECKING, Final

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fooocus_core.metadata.record import VERSION, AnyRecord
from fooocus_core.metadata.schemes import metadata_text
from fooocus_core.plan import PNG_LEVEL, ImageFormat, MetadataScheme

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

QUALITY: Final = 95
"""Of JPEG and lossy WebP."""

RUNS_ONLY: Final = 1
"""The level of a PNG at which deflate looks for runs of a byte and nothing else.

A quick search takes longer than that and makes photographs larger.
"""

TEXT_KEY: Final = "parameters"
SCHEME_KEY: Final = "fooocus_scheme"

SOFTWARE_TAG: Final = 0x0131
MAKER_NOTE_TAG: Final = 0x927C
USER_COMMENT_TAG: Final = 0x9286

_JPEG_EXIF_PREFIX: Final = b"Exif\x00\x00"
_JPEG_SEGMENT_BYTES: Final = 65_533
_ASCII_TYPE: Final = 2
_HEADER_BYTES: Final = 8
_ENTRY_BYTES: Final = 12
_INLINE_BYTES: Final = 4
"""A value that fits into its entry's offset field stands there itself."""


def encode_image(
    pixels: NDArray[np.uint8],
    image_format: ImageFormat,
    record: AnyRecord | None = None,
    scheme: MetadataScheme = "fooocus",
    png_level: int = PNG_LEVEL,
) -> bytes:
    """The bytes of an image file.

    ``pixels`` is uint8 ``[height, width, 3]``. Without ``record`` nothing is written beside the picture.
    ``png_level`` changes how long a PNG takes and how large it is, never what it shows.
    """
    image = Image.fromarray(pixels)
    texts = None if record is None else (metadata_text(record, scheme), scheme)
    buffer = io.BytesIO()
    match image_format:
        case "png":
            image.save(buffer, "PNG", pnginfo=_png_chunks(texts), **png_packing(png_level))
        case "jpeg" | "jpg":
            image.save(buffer, "JPEG", quality=QUALITY, optimize=True, progressive=True, exif=_jpeg_exif(texts))
        case "webp":
            image.save(buffer, "WEBP", quality=QUALITY, lossless=False, exif=exif_block(texts))
    return buffer.getvalue()


def png_packing(level: int = PNG_LEVEL) -> dict[str, int]:
    """How Pillow is told to pack a PNG as hard as ``level`` says."""
    return {"compress_level": level, "compress_type": zlib.Z_RLE if level == RUNS_ONLY else zlib.Z_FILTERED}


def exif_block(texts: tuple[str, str] | None) -> bytes:
    """A big-endian TIFF with the metadata text and the scheme's name in one directory, or with an empty directory.

    The tags are of type ASCII, so every other character becomes a question mark.
    """
    if texts is None:
        return _tiff([])
    text, scheme = texts
    return _tiff([(SOFTWARE_TAG, VERSION), (MAKER_NOTE_TAG, scheme), (USER_COMMENT_TAG, text)])


def _jpeg_exif(texts: tuple[str, str] | None) -> bytes:
    """The block as JPEG holds it; an empty one for a text that its segments have no room for."""
    exif = _JPEG_EXIF_PREFIX + exif_block(texts)
    if len(exif) <= _JPEG_SEGMENT_BYTES:
        return exif
    log.warning("metadata left out, too long for JPEG: %d bytes", len(exif))
    return _JPEG_EXIF_PREFIX + exif_block(None)


def _png_chunks(texts: tuple[str, str] | None) -> PngInfo | None:
    """Pillow writes ``tEXt``, or ``iTXt`` where the text is not Latin-1."""
    if texts is None:
        return None
    chunks = PngInfo()
    # A file name that is not UTF-8 on disk has characters that cannot be written.
    chunks.add_text(TEXT_KEY, texts[0].encode(errors="replace").decode())
    chunks.add_text(SCHEME_KEY, texts[1])
    return chunks


def _tiff(tags: list[tuple[int, str]]) -> bytes:
    entries = b""
    values = b""
    values_start = _HEADER_BYTES + 2 + _ENTRY_BYTES * len(tags) + 4
    for tag, text in tags:
        value = text.encode("ascii", errors="replace") + b"\x00"
        entries += struct.pack(">HHL", tag, _ASCII_TYPE, len(value))
        if len(value) <= _INLINE_BYTES:
            entries += value.ljust(_INLINE_BYTES, b"\x00")
        else:
            entries += struct.pack(">L", values_start + len(values))
            # Values start on even offsets.
            values += value + b"\x00" * (len(value) % 2)
    header = b"MM\x00\x2a" + struct.pack(">L", _HEADER_BYTES)
    return header + struct.pack(">H", len(tags)) + entries + struct.pack(">L", 0) + values
