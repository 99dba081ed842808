"""Files of pictures as pixels: what a client sends is judged by its header before anything is unpacked.

The imaging library and numpy are imported on use, because the server's port must open before they are loaded.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Kinds of pictures that people have, and none whose reader starts other programs or opens other files."""

MIN_SIDE_PX = 8
"""One latent cell; a smaller picture is a placeholder."""

MAX_JPEG_SCANS = 100
"""Passes over a JPEG; encoders make about ten. Each costs the time of the whole picture, and few bytes."""
MAX_JPEG_SEGMENTS = 10_000
"""Between which the passes are looked for."""

MAX_READS = 2**20
"""How often a reader may go back to a file. Some do for each of its parts, keep something of each, and take hours for
millions of them; a large photograph takes some thousand."""

MAX_NOTED_NUMBERS = 2**17
"""Numbers under one tag of a TIFF, or of the EXIF data of other files. Each becomes an object."""
MAX_NOTES = 2**18
"""Tags of a file in all."""
MAX_EXIF_SEGMENTS = 16
"""Pieces in which a JPEG brings its EXIF data, of 64 KiB each."""
MAX_JPEG2000_TILES = 4096
"""Parts of a JPEG 2000 file, for each of which some ten kilobytes are needed, whatever its size."""

_MEMORY = {"AVIF": 1.2, "WEBP": 4 / 3, "JPEG2000": 2.0}
"""How much more memory than twelve bytes the readers take for a pixel: so much fewer pixels are allowed."""

_ORIENTATION_TAG = 0x0112
_TILE_WIDTH_TAG, _TILE_HEIGHT_TAG = 322, 323
_ROWS_AT_ONCE = 256
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)
"""What begins a segment: neither data of a scan, in which a zero follows 0xff, nor a restart, nor filling."""
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_PLAIN_PPM = re.compile(rb"P[123]\s")
_TIFF_HEADERS = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")
_BIG_TIFF = ord("+")
_EXIF = b"Exif\0\0"
_TAGS_OF_PARTS = (273, 324)
"""Where the strips and the tiles begin; each becomes a record, whatever the type of their numbers."""
_TYPES_OF_BYTES = (1, 2, 7)
"""Of tags: bytes, text, and what is not told. They stay in one piece."""
_JPEG2000_SIZES = re.compile(rb"\xff\x4f\xff\x51.{4}(.{32})", re.DOTALL)
"""The beginning of a code stream: sides of the canvas, their offsets, sides of the tiles, their offsets."""


class UnusableImage(Exception):
    """Why something sent as a picture is none that can be worked with, in words fit for the client."""


@dataclass(frozen=True)
class ImageLimits:
    """How large a picture may be as a file and as pixels."""

    max_bytes: int
    max_pixels: int

    def check_bytes(self, size: int) -> None:
        """Raises ``UnusableImage`` for a file of more than ``max_bytes``."""
        if size > self.max_bytes:
            raise UnusableImage(f"the picture has {size} bytes, at most {self.max_bytes} are allowed")

    def check_size(self, width_px: int, height_px: int, kind: str | None = None) -> None:
        """Raises ``UnusableImage`` for a picture that is too large, for a file of its ``kind``, or too small."""
        max_pixels = int(self.max_pixels / _MEMORY.get(kind or "", 1.0))
        if width_px * height_px > max_pixels:
            raise UnusableImage(
                f"the picture has {width_px} x {height_px} pixels, at most {max_pixels} of them are allowed"
            )
        if min(width_px, height_px) < MIN_SIDE_PX:
            raise UnusableImage(
                f"the picture has {width_px} x {height_px} pixels, its sides need at least {MIN_SIDE_PX}"
            )


def decode_image(data: bytes, limits: ImageLimits) -> NDArray[np.uint8]:
    """The pixels of a file: uint8 ``[height, width, 3]``, or ``[height, width, 4]`` where it has transparency.

    The first frame, turned the way its EXIF orientation says; colours of 16 bits by their upper eight. Raises
    ``UnusableImage``.
    """
    limits.check_bytes(len(data))
    _check_notes(data)
    picture = _opened(data, limits)
    with picture:
        limits.check_size(picture.width, picture.height, picture.format)
        _check_jpeg2000_tiles(data)
        _check_tiles(picture, limits)
        if picture.format in ("JPEG", "MPO"):
            _check_scans(data)
        _load(picture)
        return _pixels_of(_upright(picture, _in_colours(picture)))


def _opened(data: bytes, limits: ImageLimits) -> Image:
    """The file with its header read, and no more than that."""
    from PIL import Image

    if _PLAIN_PPM.match(data):
        raise UnusableImage("is a PPM in decimal numbers; known are those in bytes")
    try:
        return Image.open(_Metered(data), formats=FORMATS)
    except UnusableImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableImage(f"the picture has too many pixels, at most {limits.max_pixels} are allowed") from error
    except Exception as error:  # The readers raise whatever a broken header leads them to, not only OSError.
        raise UnusableImage(f"is no picture that can be read; known are {', '.join(FORMATS)}") from error


def _check_tiles(picture: Image, limits: ImageLimits) -> None:
    """Tiles of a TIFF are unpacked whole, and may be larger than the picture that its header promises."""
    tags = getattr(picture, "tag_v2", {})
    width_px, height_px = tags.get(_TILE_WIDTH_TAG), tags.get(_TILE_HEIGHT_TAG)
    if isinstance(width_px, int) and isinstance(height_px, int) and width_px * height_px > limits.max_pixels:
        raise UnusableImage(f"the picture's tiles have more than {limits.max_pixels} pixels")


def _check_scans(data: bytes) -> None:
    """Segments are stepped over by their lengths: thumbnails, and what phones put behind the end, do not count."""
    position, segments, scans = len(_JPEG_END), 0, 0
    while (marker := _JPEG_MARKER.search(data, position)) is not None and marker[0] != _JPEG_END:
        segments += 1
        if segments > MAX_JPEG_SEGMENTS:
            raise UnusableImage(f"the picture has more than {MAX_JPEG_SEGMENTS} segments")
        scans += marker[0] == _JPEG_SCAN
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    if scans > MAX_JPEG_SCANS:
        raise UnusableImage(f"the picture has {scans} scans, at most {MAX_JPEG_SCANS} are allowed")


def _check_jpeg2000_tiles(data: bytes) -> None:
    for sizes in _JPEG2000_SIZES.finditer(data):
        width, height, left, top, tile_width, tile_height, tiles_left, tiles_top = struct.unpack(">8I", sizes[1])
        across = (max(width, left) - tiles_left) // max(tile_width, 1) + 1
        down = (max(height, top) - tiles_top) // max(tile_height, 1) + 1
        if across * down > MAX_JPEG2000_TILES:
            raise UnusableImage(f"the picture has more than {MAX_JPEG2000_TILES} tiles")


def _check_notes(data: bytes) -> None:
    """Every directory of tags in a file, whatever its kind: EXIF data are small TIFF files within others."""
    left = MAX_NOTES
    for start in _tiff_headers(data):
        left -= 1
        for tag, kind, count in _tags_at(data, start):
            left -= 1
            # What is not in the file is not read.
            are_many = MAX_NOTED_NUMBERS < count <= len(data)
            if are_many and (kind not in _TYPES_OF_BYTES or tag in _TAGS_OF_PARTS):
                raise UnusableImage(f"the picture has more than {MAX_NOTED_NUMBERS} numbers under one tag")
            if left < 0:
                raise UnusableImage(f"the picture has more than {MAX_NOTES} tags")
    if data.count(_EXIF) > MAX_EXIF_SEGMENTS:
        raise UnusableImage(f"the picture has more than {MAX_EXIF_SEGMENTS} pieces of EXIF data")


def _tiff_headers(data: bytes) -> Iterator[int]:
    for header in _TIFF_HEADERS:
        start = data.find(header)
        while start >= 0:
            yield start
            start = data.find(header, start + 1)


def _tags_at(data: bytes, start: int) -> Iterator[tuple[int, int, int]]:
    """Tag, type and count of the entries in the directory that a TIFF header at ``start`` points at."""
    order: Literal["little", "big"] = "little" if data[start : start + 2] == b"II" else "big"
    is_big = data[start + 2] == _BIG_TIFF
    word, counting, entry_bytes = (8, 8, 20) if is_big else (4, 2, 12)

    def number(position: int, size: int) -> int:
        return int.from_bytes(data[position : position + size], order)

    directory = start + number(start + word, word)
    first = directory + counting
    for index in range(min(number(directory, counting), (len(data) - first) // entry_bytes)):
        entry = first + index * entry_bytes
        yield number(entry, 2), number(entry + 2, 2), number(entry + 4, word)


class _Metered(io.BytesIO):
    """A file that is not read without end."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads_left = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise UnusableImage("the picture is made of more pieces than any needs")
        return super().read(size)


def _load(picture: Image) -> None:
    try:
        picture.load()
    except UnusableImage:
        raise
    except Exception as error:  # As above; a file that ends early is an OSError, an EOFError or a SyntaxError.
        raise UnusableImage("the picture is incomplete or damaged") from error


def _in_colours(picture: Image) -> Image:
    """``picture`` as RGB, or as RGBA where it has transparency of any kind."""
    if picture.mode.startswith("I"):
        picture = _in_eight_bits(picture)
    mode = "RGBA" if picture.has_transparency_data else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


def _in_eight_bits(picture: Image) -> Image:
    """Greyscale of 16 bits by its upper eight, as the library reads colours of 16 bits; it would clip greys instead."""
    import numpy as np
    from PIL import Image

    return Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))


def _upright(picture: Image, colours: Image) -> Image:
    """``colours`` turned and mirrored as the EXIF data of ``picture`` say; data that make no sense say nothing."""
    from PIL.Image import Transpose

    ways = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        way = ways.get(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # Whatever is wrong with the notes beside a picture, the picture itself was read.
        return colours
    return colours if way is None else colours.transpose(way)


def _pixels_of(picture: Image) -> NDArray[np.uint8]:
    """A block of rows at a time: at once, the library would make two more copies of the whole."""
    import numpy as np

    pixels = np.empty((picture.height, picture.width, len(picture.getbands())), np.uint8)
    for top in range(0, picture.height, _ROWS_AT_ONCE):
        bottom = min(top + _ROWS_AT_ONCE, picture.height)
        pixels[top:bottom] = np.asarray(picture.crop((0, top, picture.width, bottom)))
    return pixels
