"""Files of pictures as pixels: what a client sends is judged by its header before anything is unpacked.

The imaging library and numpy are imported on use, because the server's port must open before they are loaded.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

_ORIENTATION_TAG = 0x0112
_TILE_WIDTH_TAG, _TILE_HEIGHT_TAG = 322, 323
_ROWS_AT_ONCE = 256
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)
"""What begins a segment: neither data of a scan, in which a zero follows 0xff, nor a restart, nor filling."""
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"


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

    def check_size(self, width_px: int, height_px: int) -> None:
        """Raises ``UnusableImage`` for a picture that is too large or too small."""
        if width_px * height_px > self.max_pixels:
            raise UnusableImage(
                f"the picture has {width_px} x {height_px} pixels, at most {self.max_pixels} of them are allowed"
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
    picture = _opened(data, limits)
    with picture:
        limits.check_size(picture.width, picture.height)
        _check_tiles(picture, limits)
        if picture.format in ("JPEG", "MPO"):
            _check_scans(data)
        _load(picture)
        return _pixels_of(_upright(picture, _in_colours(picture)))


def _opened(data: bytes, limits: ImageLimits) -> Image:
    """The file with its header read, and no more than that."""
    from PIL import Image

    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
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
    position, scans = len(_JPEG_END), 0
    while (marker := _JPEG_MARKER.search(data, position)) is not None and marker[0] != _JPEG_END:
        scans += marker[0] == _JPEG_SCAN
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    if scans > MAX_JPEG_SCANS:
        raise UnusableImage(f"the picture has {scans} scans, at most {MAX_JPEG_SCANS} are allowed")


def _load(picture: Image) -> None:
    try:
        picture.load()
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
