"""Files as pixels: every kind of picture, every kind of damage."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fooocusapi.images import decode
from fooocusapi.images.decode import ImageLimits, UnusableImage, decode_image

# What the library says beside its answers about damaged and about very large files.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]

LIMITS = ImageLimits(max_bytes=10**6, max_pixels=10**6)
WIDTH, HEIGHT = 24, 16


def rgb() -> NDArray[np.uint8]:
    """A picture without symmetry: red grows to the right, green downwards."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([columns * 10, rows * 15, np.full_like(rows, 77)], axis=-1).astype(np.uint8)


def rgba() -> NDArray[np.uint8]:
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:, : WIDTH // 2] = 40
    return np.concatenate([rgb(), alpha], axis=-1)


def file_of(picture: Image.Image, kind: str, **options: Any) -> bytes:
    target = io.BytesIO()
    picture.save(target, kind, **options)
    return target.getvalue()


def png(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    return file_of(Image.fromarray(pixels), "PNG", **options)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of_parts(
    width: int, height: int, depth: int, colour: int, rows: bytes, *, between: bytes = b"", packed: bool = False
) -> bytes:
    """A PNG as no writer here makes it: any depth, any promise in the header."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = rows if packed else zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + between + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def refusal(data: bytes, limits: ImageLimits = LIMITS) -> str:
    with pytest.raises(UnusableImage) as caught:
        decode_image(data, limits)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------- what can be read


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("PPM", {}),
        ("JPEG2000", {"irreversible": False}),
    ],
)
def test_lossless_files_give_their_pixels(kind: str, options: dict[str, Any]) -> None:
    pixels = decode_image(file_of(Image.fromarray(rgb()), kind, **options), LIMITS)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (HEIGHT, WIDTH, 3))
    assert np.array_equal(pixels, rgb())
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {"quality": 95}), ("JPEG", {"progressive": True, "quality": 95}), ("AVIF", {"quality": 95})],
)
def test_lossy_files_come_close(kind: str, options: dict[str, Any]) -> None:
    pixels = decode_image(file_of(Image.fromarray(rgb()), kind, **options), LIMITS)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(pixels.astype(int) - rgb()).mean() < 4


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_alpha_is_kept(kind: str, options: dict[str, Any]) -> None:
    assert np.array_equal(decode_image(file_of(Image.fromarray(rgba()), kind, **options), LIMITS), rgba())


def test_grey_becomes_three_equal_channels() -> None:
    grey = rgb()[:, :, 0]
    pixels = decode_image(png(grey), LIMITS)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert all(np.array_equal(pixels[:, :, channel], grey) for channel in range(3))


def test_grey_with_alpha_becomes_colours_with_alpha() -> None:
    picture = Image.fromarray(rgba()).convert("LA")
    pixels = decode_image(file_of(picture, "PNG"), LIMITS)
    assert pixels.shape == (HEIGHT, WIDTH, 4)
    assert np.array_equal(pixels[:, :, 3], rgba()[:, :, 3])


def test_black_and_white_is_all_or_nothing() -> None:
    picture = Image.fromarray(rgb()[:, :, 0] > 100)
    assert picture.mode == "1"
    assert set(np.unique(decode_image(file_of(picture, "PNG"), LIMITS))) == {0, 255}


def test_a_palette_is_looked_up() -> None:
    picture = Image.fromarray(rgb()).quantize(16)
    assert np.array_equal(decode_image(file_of(picture, "PNG"), LIMITS), np.asarray(picture.convert("RGB")))


def test_a_palette_with_a_transparent_colour_has_alpha() -> None:
    picture = Image.fromarray(rgb()).quantize(16)
    clear = np.asarray(picture) == 3
    pixels = decode_image(file_of(picture, "PNG", transparency=3), LIMITS)
    assert clear.any()
    assert np.array_equal(pixels[:, :, 3], np.where(clear, 0, 255))


def test_one_colour_can_be_transparent_without_a_palette() -> None:
    clear = tuple(int(value) for value in rgb()[3, 5])
    pixels = decode_image(png(rgb(), transparency=clear), LIMITS)
    assert pixels.shape == (HEIGHT, WIDTH, 4)
    assert np.argwhere(pixels[:, :, 3] == 0).tolist() == [[3, 5]]


@pytest.mark.parametrize(("channels", "colour"), [(1, 0), (3, 2), (2, 4), (4, 6)])
def test_sixteen_bits_are_told_by_the_upper_eight(channels: int, colour: int) -> None:
    values = np.random.default_rng(1).integers(0, 2**16, (HEIGHT, WIDTH, channels), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    pixels = decode_image(png_of_parts(WIDTH, HEIGHT, 16, colour, rows), LIMITS)
    upper = (values >> 8).astype(np.uint8)
    colours, alpha = (upper[:, :, :-1], upper[:, :, -1:]) if channels in (2, 4) else (upper, upper[:, :, :0])
    expected = np.concatenate([np.broadcast_to(colours, (HEIGHT, WIDTH, 3)), alpha], axis=-1)
    assert np.array_equal(pixels, expected)


def test_sixteen_bits_of_a_tiff_as_well() -> None:
    values = np.random.default_rng(2).integers(0, 2**16, (HEIGHT, WIDTH), np.uint16)
    pixels = decode_image(file_of(Image.fromarray(values), "TIFF"), LIMITS)
    assert np.array_equal(pixels[:, :, 1], values >> 8)


def test_printers_colours_become_red_green_and_blue() -> None:
    data = file_of(Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)), "JPEG")
    red, green, blue = decode_image(data, LIMITS)[4, 4]
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})])
def test_the_first_frame_counts(kind: str, options: dict[str, Any]) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "lime", "blue")]
    data = file_of(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.unique(decode_image(data, LIMITS).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(kind: str, orientation: int) -> None:
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](rgb())
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = file_of(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
    assert np.array_equal(decode_image(data, LIMITS), rgb())


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0"])
def test_damaged_notes_do_not_spoil_a_picture(exif: bytes) -> None:
    assert np.array_equal(decode_image(png(rgb(), exif=exif), LIMITS), rgb())


def test_pictures_of_many_rows_come_whole() -> None:
    tall = np.random.default_rng(3).integers(0, 256, (1000, 9, 3), np.uint8)
    assert np.array_equal(decode_image(png(tall), LIMITS), tall)


# -------------------------------------------------------------------------------------------------- what is turned away


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"<!DOCTYPE html><html><body>Not found</body></html>",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"%PDF-1.4\n1 0 obj",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n",
        b"PK\x03\x04",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"GIF89a",
        b"RIFF\0\0\0\0WEBP",
        b"BM",
        b"II*\0",
        "not a picture".encode("utf-16"),
    ],
)
def test_what_is_no_picture(data: bytes) -> None:
    assert "is no picture that can be read" in refusal(data)


NOISE = Image.fromarray(np.random.default_rng(4).integers(0, 256, (64, 96, 3), np.uint8))
FILES = {
    "PNG": file_of(NOISE, "PNG"),
    "JPEG": file_of(NOISE, "JPEG"),
    "progressive": file_of(NOISE, "JPEG", progressive=True),
    "WEBP": file_of(NOISE, "WEBP"),
    "GIF": file_of(NOISE, "GIF"),
    "BMP": file_of(NOISE, "BMP"),
    "TIFF": file_of(NOISE, "TIFF", compression="tiff_adobe_deflate"),
    "JPEG2000": file_of(NOISE, "JPEG2000"),
    "AVIF": file_of(NOISE, "AVIF"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_files_that_end_early(kind: str, share: float) -> None:
    assert refusal(FILES[kind][: int(len(FILES[kind]) * share)])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_damage_is_an_answer_and_never_an_accident(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = decode_image(bytes(damaged), LIMITS)
    except UnusableImage:
        return
    assert pixels.dtype == np.uint8
    assert pixels.size <= 4 * LIMITS.max_pixels


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 7), (7, 7)])
def test_placeholders_of_a_pixel(size: tuple[int, int]) -> None:
    reason = refusal(file_of(Image.new("RGB", size), "PNG"))
    assert f"{size[0]} x {size[1]} pixels" in reason
    assert "at least 8" in reason


def test_the_smallest_picture() -> None:
    assert decode_image(file_of(Image.new("RGB", (8, 8)), "PNG"), LIMITS).shape == (8, 8, 3)


def test_the_limit_of_pixels_is_exact() -> None:
    data = png(rgb())
    assert decode_image(data, ImageLimits(10**6, WIDTH * HEIGHT)).shape == (HEIGHT, WIDTH, 3)
    assert f"{WIDTH} x {HEIGHT} pixels, at most {WIDTH * HEIGHT - 1}" in refusal(
        data, ImageLimits(10**6, WIDTH * HEIGHT - 1)
    )


def test_the_limit_of_bytes_is_exact() -> None:
    data = png(rgb())
    assert decode_image(data, ImageLimits(len(data), 10**6)).shape == (HEIGHT, WIDTH, 3)
    assert f"{len(data)} bytes, at most {len(data) - 1}" in refusal(data, ImageLimits(len(data) - 1, 10**6))


@pytest.mark.parametrize("side", [1001, 10_000, 30_000, 2**31 - 1])
def test_a_header_that_promises_too_much_is_enough(side: int) -> None:
    """The rows are no such thing: whoever tried to unpack them would tell of damage."""
    data = png_of_parts(side, side, 8, 2, b"no rows", packed=True)
    assert f"at most {LIMITS.max_pixels}" in refusal(data)


@pytest.mark.parametrize("more", [80, 200])
def test_scans_without_end(more: int) -> None:
    """The last scan of a progressive file over and over: a few bytes each, and a pass over the picture."""
    plain = file_of(Image.fromarray(rgb()), "JPEG", progressive=True)
    last = plain.rindex(b"\xff\xda")
    data = plain[:last] + plain[last:-2] * more + plain[-2:]
    if more > 100:
        assert "scans, at most 100" in refusal(data)
    else:
        assert decode_image(data, LIMITS).shape == (HEIGHT, WIDTH, 3)


def test_scans_of_thumbnails_and_behind_the_end_do_not_count() -> None:
    scans = b"\xff\xda\0\x02" * 500
    plain = FILES["JPEG"]
    comment = b"\xff\xfe" + struct.pack(">H", len(scans) + 2) + scans
    assert np.array_equal(decode_image(plain[:2] + comment + plain[2:] + scans, LIMITS), decode_image(plain, LIMITS))


def test_tiles_count_as_well() -> None:
    # Width, height, bits, deflate, black is zero, one channel; tiles of 20000 x 20000 with nothing in them.
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 20_000, 323: 20_000, 324: 0, 325: 0}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0"
    assert "tiles" in refusal(data)


def tiff(tags: dict[int, tuple[int, int, int]], order: str = "<") -> bytes:
    """A TIFF's header and directory: type, count and value by tag; big-endian with ``>``."""
    entries = b"".join(struct.pack(f"{order}HHII", tag, *entry) for tag, entry in tags.items())
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}IH", 8, len(tags)) + entries + b"\0\0\0\0"


LONG = ImageLimits(max_bytes=10**8, max_pixels=10**6)
MANY = 150_000
NUMBERS = b"\0" * (4 * MANY + 64)
BIG_TIFF = b"II+\0\x08\0\0\0" + struct.pack("<QQHHQQ", 16, 1, 273, 16, MANY, 64) + NUMBERS


@pytest.mark.parametrize(
    "data",
    [
        tiff({256: (4, 1, 64), 257: (4, 1, 64), 273: (4, MANY, 64)}) + NUMBERS,
        tiff({256: (4, 1, 64), 257: (4, 1, 64), 273: (1, MANY, 64)}) + NUMBERS,
        tiff({256: (4, 1, 64), 257: (4, 1, 64), 324: (4, MANY, 64)}, ">") + NUMBERS,
        BIG_TIFF,
        png(rgb())[:33] + chunk(b"eXIf", tiff({0x0112: (4, MANY, 26)}, ">") + NUMBERS) + png(rgb())[33:],
        FILES["AVIF"] + tiff({0x0112: (5, MANY, 26)}) + NUMBERS * 2,
    ],
    ids=["strips", "strips as bytes", "tiles", "BigTIFF", "EXIF", "EXIF of other files"],
)
def test_more_numbers_under_a_tag_than_any_picture_has(data: bytes) -> None:
    assert "numbers under one tag" in refusal(data, LONG)


def test_more_tags_than_any_picture_has() -> None:
    assert "tags" in refusal(png(rgb()) + tiff(dict.fromkeys(range(60_000), (1, 1, 0))) * 5, LONG)


def test_exif_data_in_more_pieces_than_any_picture_has() -> None:
    piece = b"\xff\xe1\0\x0aExif\0\0MM"
    plain = FILES["JPEG"]
    assert decode_image(plain[:2] + piece * 16 + plain[2:], LIMITS).shape == (64, 96, 3)
    assert "pieces of EXIF" in refusal(plain[:2] + piece * 17 + plain[2:])


PIECES = 50_000


@pytest.mark.parametrize(
    "data",
    [
        png_of_parts(8, 8, 8, 0, b"\0" * 72, between=chunk(b"teSt", b"") * PIECES),
        b"GIF89a\x08\0\x08\0\x80\0\0" + b"\0" * 6 + b"!\xfe\1c\0" * PIECES,
        FILES["JPEG"][:2] + b"\xff\xfe\0\2" * PIECES + FILES["JPEG"][2:],
        FILES["JPEG"][:2] + b"\xff" * 3 * PIECES + FILES["JPEG"][2:],
        b"P6 " + b"#\n" * PIECES * 2 + b"8 8 255\n",
        b"P6 1000 1000 254\n" + b"\0" * 3_000_000,
    ],
    ids=["PNG", "GIF", "JPEG", "filling of a JPEG", "PPM", "odd PPM"],
)
def test_more_pieces_than_any_picture_has(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(decode, "MAX_READS", 2**16)
    assert "pieces" in refusal(data, LONG)


def test_segments_without_end() -> None:
    plain = FILES["JPEG"]
    assert "segments" in refusal(plain[:-2] + b"\xff\xc4\0\2" * 10_001 + plain[-2:])


def test_numbers_as_texts_of_a_ppm() -> None:
    assert "decimal" in refusal(b"P3 8 8 255\n" + b"1 " * 192)


def test_tiles_of_jpeg_2000_count_too() -> None:
    data = bytearray(file_of(Image.new("RGB", (640, 640)), "JPEG2000", no_jp2=True))
    sizes = data.index(b"\xff\x51") + len(b"\xff\x51") + 4
    data[sizes + 16 : sizes + 24] = struct.pack(">II", 9, 9)
    assert "tiles" in refusal(bytes(data))


@pytest.mark.parametrize(("kind", "allowed"), [("PNG", 384), ("AVIF", 320), ("WEBP", 288), ("JPEG2000", 192)])
def test_kinds_that_take_more_memory_may_have_fewer_pixels(kind: str, allowed: int) -> None:
    data = file_of(Image.fromarray(rgb()), kind)
    assert decode_image(data, ImageLimits(10**6, -(-384 * 384 // allowed))).shape == (HEIGHT, WIDTH, 3)
    assert "at most 383 of them" in refusal(data, ImageLimits(10**6, -(-384 * 383 // allowed)))


def test_texts_of_a_picture_are_no_bomb() -> None:
    text = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * 20_000_000, 1))
    assert refusal(png_of_parts(WIDTH, HEIGHT, 8, 0, b"", between=text))


MEMORY_TEST = """
import re, sys
from pathlib import Path
from PIL import Image
from fooocusapi.images.decode import ImageLimits, UnusableImage, decode_image
import numpy
for name in sys.argv[1:]:
    try:
        decode_image(Path(name).read_bytes(), ImageLimits(64 * 2**20, 25_000_000))
    except UnusableImage as error:
        continue
    sys.exit(f"{name} was taken")
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is told elsewhere")
def test_bombs_take_no_memory(tmp_path: Any) -> None:
    """The process with the libraries and no picture has some 60 MiB; what the bombs hold is some 3 GB each."""
    bombs = {
        "png": png_of_parts(30_000, 30_000, 8, 2, zlib.compress(b"\0" * 5_000_000), packed=True),
        "gif": b"GIF89a" + struct.pack("<HH", 30_000, 30_000) + b"\x80\0\0" + b"\0" * 6 + b",\0\0\0\0" + b"\x30u" * 2,
        "webp": _webp_header(16_000, 16_000),
        "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "ppm": b"P6 30000 30000 255\n",
    }
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in bombs]
    told = subprocess.run([sys.executable, "-c", MEMORY_TEST, *paths], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert int(told.stdout) < 200


def _webp_header(width: int, height: int) -> bytes:
    """A small picture of the extended kind, with a canvas that is none."""
    exif = Image.Exif()
    exif[0x0112] = 1
    data = bytearray(file_of(Image.fromarray(rgb()), "WEBP", exif=exif))
    assert data[12:16] == b"VP8X"
    data[24:27] = (width - 1).to_bytes(3, "little")
    data[27:30] = (height - 1).to_bytes(3, "little")
    return bytes(data)
