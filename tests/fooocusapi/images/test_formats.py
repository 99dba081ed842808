"""Pictures without their metadata, and as other kinds."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fooocus_core.metadata.files import encode_image
from fooocus_core.metadata.record import ImageRecord
from fooocusapi.images.formats import Kind, converted, without_metadata

KINDS: list[Kind] = ["png", "jpeg", "webp"]
RECORD = ImageRecord(5, 24, 16, "some.safetensors", prompt="a red apple")


def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (16, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_stays_and_the_metadata_goes(kind: Kind) -> None:
    marked = encode_image(picture(), kind, RECORD, "fooocus")
    plain = without_metadata(marked, kind)
    before, after = Image.open(io.BytesIO(marked)), Image.open(io.BytesIO(plain))
    assert b"red apple" in marked
    assert b"red apple" not in plain
    assert b"Fooocus v" not in plain
    assert not after.getexif()
    assert after.format == before.format
    assert np.array_equal(np.asarray(before), np.asarray(after))


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_without_metadata_stays_the_same_picture(kind: Kind) -> None:
    plain = encode_image(picture(), kind, None, "fooocus")
    again = without_metadata(plain, kind)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(plain))), np.asarray(Image.open(io.BytesIO(again))))


def test_a_png_that_is_made_for_an_answer_is_packed_like_those_that_are_stored() -> None:
    """The harder way takes five times as long, and the caller waits for it."""
    stored = encode_image(picture(), "jpeg")
    shown = np.asarray(Image.open(io.BytesIO(stored)))
    assert converted(stored, "png") == encode_image(shown, "png")


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_every_kind_becomes_every_kind(source: Kind, target: Kind) -> None:
    smooth = np.full((16, 24, 3), 120, dtype=np.uint8)
    other = Image.open(io.BytesIO(converted(encode_image(smooth, source, RECORD, "fooocus"), target)))
    assert other.format == target.upper()
    assert other.size == (24, 16)
    assert np.abs(np.asarray(other.convert("RGB")).astype(int) - 120).max() <= 3


def test_transparency_becomes_white_in_jpeg() -> None:
    target = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(target, "PNG")
    flat = Image.open(io.BytesIO(converted(target.getvalue(), "jpeg")))
    assert flat.mode == "RGB"
    assert np.asarray(flat).min() > 250


def test_transparency_stays_where_it_can() -> None:
    target = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 7)).save(target, "PNG")
    assert Image.open(io.BytesIO(converted(target.getvalue(), "webp"))).mode == "RGBA"


def test_what_is_no_picture_raises() -> None:
    with pytest.raises(OSError, match="identify"):
        converted(b"not a picture", "png")
