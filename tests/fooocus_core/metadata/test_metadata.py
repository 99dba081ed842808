"""Pictures come back with what was written into them, and foreign files do no harm."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fooocus_core.errors import InvalidRequest
from fooocus_core.metadata.files import encode_image
from fooocus_core.metadata.read import FileNames, SavedMetadata, parse_metadata, read_metadata
from fooocus_core.metadata.record import EnlargedRecord, ImageRecord, RecordedLora, joined, rows
from fooocus_core.metadata.schemes import metadata_text
from fooocus_core.plan import PNG_LEVEL
from fooocus_core.prompts.styles import Style, StyleBook

PIXELS = (np.arange(6 * 8 * 3) % 256).astype(np.uint8).reshape(6, 8, 3)
RECORD = ImageRecord(seed=2**63 - 1, width_px=8, height_px=6, checkpoint="sub/base.safetensors", prompt="a cat")
FILES = FileNames(["sub/base.safetensors"], ["x/ink.v2.safetensors"], ["vae.pt"])
BOOK = StyleBook([Style("Plain", "{prompt}, plainly", "ornate"), Style("Twice", "{prompt} {prompt}"), Style("Nothing")])
FORMATS = ["png", "jpeg", "jpg", "webp"]


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("scheme", ["fooocus", "a1111"])
def test_what_is_written_is_read(image_format: Any, scheme: Any) -> None:
    encoded = encode_image(PIXELS, image_format, RECORD, scheme)
    saved = read_metadata(encoded)
    assert saved is not None
    assert saved.scheme == scheme
    values = parse_metadata(saved, FILES, BOOK)
    assert values["prompt"] == "a cat"
    assert values["seed"] == str(2**63 - 1)
    assert values["base_model"] == "sub/base.safetensors"


@pytest.mark.parametrize("image_format", FORMATS)
def test_pictures_without_metadata(image_format: Any) -> None:
    encoded = encode_image(PIXELS, image_format)
    assert read_metadata(encoded) is None
    image = Image.open(BytesIO(encoded))
    assert image.size == (8, 6)
    assert image.format == {"png": "PNG", "webp": "WEBP"}.get(image_format, "JPEG")


def test_png_keeps_every_pixel() -> None:
    assert np.array_equal(np.asarray(Image.open(BytesIO(encode_image(PIXELS, "png", RECORD)))), PIXELS)


def test_how_hard_a_png_is_packed_changes_nothing_that_it_shows() -> None:
    noise = np.random.default_rng(0).integers(0, 8, (64, 64, 3), np.uint8)
    files = {level: encode_image(noise, "png", RECORD, png_level=level) for level in range(10)}
    assert encode_image(noise, "png", RECORD) == files[PNG_LEVEL]
    assert len(files[6]) < len(files[0])
    for file in files.values():
        assert read_metadata(file) == read_metadata(files[6])
        assert np.array_equal(np.asarray(Image.open(BytesIO(file))), noise)
    default = BytesIO()
    Image.fromarray(noise).save(default, "PNG")
    assert encode_image(noise, "png", png_level=6) == default.getvalue(), "6 is the format's own default"


def test_what_is_packed_by_default_has_runs_and_no_other_repetition_looked_for() -> None:
    """A photograph has runs at most; what comes again at a distance is the part of higher levels."""
    row = np.random.default_rng(0).integers(0, 256, (1, 32, 3), np.uint8)
    again, plain = np.tile(row, (1, 64, 1)), np.full((8, 512, 3), 7, np.uint8)
    assert len(encode_image(again, "png", png_level=6)) < len(encode_image(again, "png")) / 4
    assert len(encode_image(plain, "png")) < plain.nbytes / 50


@pytest.mark.parametrize(("image_format", "is_kept"), [("png", True), ("webp", True), ("jpeg", False)])
def test_a_text_without_room_is_left_out_and_the_picture_is_kept(image_format: Any, is_kept: bool) -> None:
    record = ImageRecord(1, 8, 6, "base", prompt="x" * 70_000)
    assert (read_metadata(encode_image(PIXELS, image_format, record)) is not None) == is_kept


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("scheme", ["fooocus", "a1111"])
def test_a_file_name_that_is_not_utf8_costs_no_picture(image_format: Any, scheme: Any) -> None:
    record = ImageRecord(1, 8, 6, "caf\udce9.safetensors", prompt="a cat")
    saved = read_metadata(encode_image(PIXELS, image_format, record, scheme))
    assert saved is not None
    assert parse_metadata(saved, FILES, BOOK)["prompt"] == "a cat"


TEXT = st.text(max_size=30)
RECORDS = st.builds(
    ImageRecord,
    seed=st.integers(0, 2**63 - 1),
    width_px=st.integers(64, 2048),
    height_px=st.integers(64, 2048),
    checkpoint=st.sampled_from(["base.safetensors", "a, b: c.safetensors", ""]),
    prompt=TEXT,
    negative_prompt=TEXT,
    full_prompt=st.lists(TEXT, max_size=3).map(tuple),
    full_negative_prompt=st.lists(TEXT, max_size=3).map(tuple),
    styles=st.lists(TEXT, max_size=2).map(tuple),
    refiner=st.none() | TEXT,
    vae=st.none() | TEXT,
    loras=st.lists(st.none() | st.builds(RecordedLora, TEXT, st.floats(-2, 2), TEXT), max_size=3).map(tuple),
    created_by=TEXT,
)


@given(RECORDS, st.sampled_from(["fooocus", "a1111"]), st.sampled_from(FORMATS))
def test_any_record_can_be_written_and_read(record: ImageRecord, scheme: Any, image_format: Any) -> None:
    saved = read_metadata(encode_image(PIXELS, image_format, record, scheme))
    assert saved is not None
    parse_metadata(saved, FILES, BOOK)


@given(RECORDS)
def test_the_object_comes_back_whole_from_a_png(record: ImageRecord) -> None:
    saved = read_metadata(encode_image(PIXELS, "png", record, "fooocus"))
    assert saved is not None
    assert isinstance(saved.parameters, dict)
    assert saved.parameters["full_prompt"] == list(record.full_prompt)
    assert saved.parameters["seed"] == str(record.seed)


PARAMETERS = st.lists(
    st.tuples(st.sampled_from(["Steps", "Size", "Sampler", "Lora hashes", "Lora weights", "Raw prompt", "x y"]), TEXT),
    max_size=6,
).map(lambda pairs: ", ".join(f"{key}: {value}" for key, value in pairs))


@given(TEXT, PARAMETERS)
def test_any_text_can_be_parsed(text: str, parameters: str) -> None:
    values = parse_metadata(SavedMetadata(f"{text}\n{parameters}", "a1111"), FILES, BOOK)
    assert {"prompt", "negative_prompt", "styles"} <= values.keys()


@given(st.dictionaries(st.sampled_from(["base_model", "vae", "lora_combined_1", "loras", "steps"]), st.none() | TEXT))
def test_any_object_can_be_parsed(values: dict[str, Any]) -> None:
    assert parse_metadata(SavedMetadata(values, "fooocus"), FILES, BOOK).keys() == values.keys()


@given(st.binary(max_size=200))
def test_bytes_that_are_no_picture_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="image"):
        read_metadata(data)


@pytest.mark.parametrize("image_format", FORMATS)
def test_cut_files_are_refused_or_read(image_format: Any) -> None:
    encoded = encode_image(PIXELS, image_format, RECORD)
    for length in range(0, len(encoded), 7):
        _read_or_refuse(encoded[:length])


def _read_or_refuse(data: bytes) -> SavedMetadata | None:
    try:
        return read_metadata(data)
    except InvalidRequest:
        return None


@pytest.mark.parametrize(
    ("text", "scheme", "expected"),
    [
        ("{}", None, ({}, "fooocus")),
        ("a cat", None, ("a cat", "a1111")),
        ("a cat", "novel", ("a cat", "a1111")),
        ("[1]", "fooocus", ("[1]", "fooocus")),
        ("[" * 5000, None, ("[" * 5000, "a1111")),
    ],
)
def test_foreign_text_chunks(text: str, scheme: str | None, expected: Any) -> None:
    chunks = PngInfo()
    chunks.add_text("parameters", text)
    if scheme is not None:
        chunks.add_text("fooocus_scheme", scheme)
    buffer = BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG", pnginfo=chunks)
    assert read_metadata(buffer.getvalue()) == expected


def test_a_huge_text_is_parsed_in_a_moment() -> None:
    text = "a, " * 200_000 + "\nNegative prompt: " + "b" * 200_000 + "\n" + "c " * 200_000
    assert parse_metadata(SavedMetadata(text, "a1111"), FILES, BOOK)["styles"] == "[]"


def test_rows_without_saved_metadata() -> None:
    assert [(row.label, *row) for row in rows(RECORD, None)[-2:]] == [
        ("Metadata Scheme", "metadata_scheme", False),
        ("Version", "version", "Fooocus v2.5.5"),
    ]
    assert [row.label for row in rows(RECORD, "fooocus")][:4] == [
        "Prompt",
        "Negative Prompt",
        "Fooocus V2 Expansion",
        "Styles",
    ]


ENLARGED = EnlargedRecord(16, 12, "own.pth", "4x-UltraSharp")


def test_a_picture_that_was_only_enlarged_says_by_what() -> None:
    assert metadata_text(ENLARGED, "a1111") == (
        "Size: 16x12, Upscaler: own.pth, Upscaler fallback for: 4x-UltraSharp, Version: Fooocus v2.5.5"
    )
    saved = read_metadata(encode_image(PIXELS, "png", ENLARGED, "fooocus"))
    assert saved is not None
    assert saved.parameters == {
        "resolution": "(16, 12)",
        "upscaler": "own.pth",
        "upscaler_fallback": "4x-UltraSharp",
        "version": "Fooocus v2.5.5",
    }


def test_what_is_told_of_a_picture_that_was_made_of_another() -> None:
    larger = joined(ENLARGED, RECORD)
    assert larger == replace(RECORD, width_px=16, height_px=12, upscaler="own.pth", upscaler_fallback="4x-UltraSharp")
    assert joined(RECORD, larger) == replace(RECORD, upscaler="own.pth", upscaler_fallback="4x-UltraSharp")
    own = replace(RECORD, upscaler="Latent")
    assert joined(own, larger) == own
    assert joined(None, RECORD) == joined(RECORD, None) == RECORD
    assert joined(None, None) is None


def test_values_that_a_comma_would_split_are_quoted() -> None:
    assert 'Raw prompt: "a: b"' in metadata_text(ImageRecord(1, 8, 8, "m", prompt="a: b"), "a1111")
