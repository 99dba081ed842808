"""Texts that reach files only while a picture is painted: words that name files, and what is written down."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from torch import ones

from fooocus_core.conditioning.inversion import EmbeddingFiles
from fooocus_core.errors import UnknownModel
from fooocus_core.library import Library
from fooocus_core.metadata.files import encode_image
from fooocus_core.metadata.read import read_metadata
from fooocus_core.metadata.record import ImageRecord
from fooocus_core.plan import ImageFormat, MetadataScheme
from fooocus_core.prompts.wildcards import Wildcards, fill_wildcards
from tests.attacks.table import NAMES_OF_FILES

SECRET = "what nobody shall see"
NAMES = (
    *NAMES_OF_FILES,
    "../secret",
    "..\\secret",
    "linked/secret",
    "./../secret",
    "secret\0",
    "..",
    ".",
    "",
    "~/secret",
)

TEXTS = (
    "a cat\nNegative prompt: a dog\nSteps: 999, Sampler: evil, Seed: 1, Model: evil, Version: evil",
    "Steps: 999, Sampler: evil, CFG scale: 99, Seed: 1, Size: 1x1, Model: evil, Version: evil",
    '", "seed": "1", "evil": "',
    '{"prompt": "evil"}',
    "a\0b",
    "a\x1b[2J\u202e\u2028b",
    "\ud800 alone",
    "\N{GRINNING FACE}" * 100,
    "tEXtparameters\0evil",
    "IEND\xae\x42\x60\x82",
    "</x:xmpmeta><script>alert(1)</script>",
    "%s%s%n {0} ${jndi:ldap://127.0.0.1/x}",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of files that may be named, with a secret beside it."""
    inside = tmp_path / "inside"
    inside.mkdir()
    for folder in (tmp_path, inside / "never"):
        folder.mkdir(exist_ok=True)
    (tmp_path / "secret.txt").write_text(SECRET)
    save_file({"clip_l": ones(1, 768), "clip_g": ones(1, 1280)}, tmp_path / "secret.safetensors")
    return inside


@pytest.mark.parametrize("name", NAMES)
def test_wildcards_stay_in_their_folder(root: Path, name: str) -> None:
    wildcards = Wildcards([root])
    assert wildcards.lines(name) == []
    assert SECRET not in fill_wildcards(f"a __{name}__ b", wildcards, random.Random(0), 0, in_order=False)


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_stay_in_their_folder(root: Path, name: str) -> None:
    vectors, _ = EmbeddingFiles([root]).vectors(name, "clip_l", 768)
    assert vectors == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["checkpoints", "loras", "vae", "controlnet", "upscale_models"])
def test_model_files_stay_in_their_folder(root: Path, kind: str, name: str) -> None:
    library = Library.below(root)
    assert library.find(kind, name) is None  # type: ignore[arg-type]
    with pytest.raises(UnknownModel) as caught:
        library.path(kind, name)  # type: ignore[arg-type]
    assert str(root) not in str(caught.value)


@pytest.mark.parametrize("text", TEXTS, ids=repr)
@pytest.mark.parametrize("scheme", ["fooocus", "a1111"])
@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_a_prompt_adds_nothing_to_a_file_but_itself(
    text: str, scheme: MetadataScheme, image_format: ImageFormat
) -> None:
    record = ImageRecord(7, 8, 8, "some.safetensors", prompt=text, negative_prompt=text, full_prompt=(text,))
    file = encode_image(np.zeros((8, 8, 3), np.uint8), image_format, record, scheme)
    plain = encode_image(np.zeros((8, 8, 3), np.uint8), image_format, ImageRecord(7, 8, 8, "x"), scheme)
    saved = read_metadata(file)
    assert saved is not None
    assert saved.scheme == scheme
    if scheme == "fooocus":
        assert isinstance(saved.parameters, dict)
        assert (saved.parameters["seed"], "evil" in saved.parameters) == ("7", False)
    assert entries(file) == entries(plain)


def entries(file: bytes) -> set[object]:
    """What readers find beside the picture, by its names."""
    with Image.open(io.BytesIO(file)) as picture:
        picture.load()
        return {*picture.info, *picture.getexif()}
