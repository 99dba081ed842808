"""The library of model files: what is listed, in which order, under which names, and what is never reached."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fooocus_core.errors import UnknownModel
from fooocus_core.library import POCKET_NAME, FileHashes, Library


def library(tmp_path: Path, *files: str) -> Library:
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return Library.below(tmp_path, {"checkpoints": (tmp_path / "checkpoints", tmp_path / "more")})


def test_sub_folders_first_then_names_without_case(tmp_path: Path) -> None:
    files = ["b.safetensors", "A.ckpt", "z/y.bin", "z/deep/x.pth", "C/c.safetensors", "note.txt", "f.fooocus.patch"]
    found = library(tmp_path, *(f"loras/{name}" for name in files)).lora_names()
    assert found == ["C/c.safetensors", "z/deep/x.pth", "z/y.bin", "A.ckpt", "b.safetensors"]


def test_several_folders_of_one_kind(tmp_path: Path) -> None:
    two = library(tmp_path, "checkpoints/a.ckpt", "more/a.ckpt", "more/b.ckpt")
    assert two.checkpoint_names() == ["a.ckpt", "b.ckpt", POCKET_NAME][: 2 + (POCKET_NAME in two.checkpoint_names())]
    assert two.path("checkpoints", "a.ckpt") == tmp_path / "checkpoints" / "a.ckpt"
    assert two.path("checkpoints", "b.ckpt") == tmp_path / "more" / "b.ckpt"


def test_the_pocket_model_is_the_last_unless_shadowed(tmp_path: Path) -> None:
    pocket = tmp_path / "shipped.safetensors"
    pocket.write_bytes(b"")
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "zzz.safetensors").write_bytes(b"")
    shipped = Library({"checkpoints": [folder]}, pocket)
    assert shipped.checkpoint_names() == ["zzz.safetensors", POCKET_NAME]
    assert shipped.path("checkpoints", "pocket") == pocket
    (folder / POCKET_NAME).write_bytes(b"")
    assert shipped.checkpoint_names() == [POCKET_NAME, "zzz.safetensors"]
    assert shipped.path("checkpoints", POCKET_NAME) == folder / POCKET_NAME
    assert Library({}, tmp_path / "missing").checkpoint_names() == []


@pytest.mark.parametrize("name", ["style/soft.safetensors", "style\\soft.safetensors", "soft"])
def test_names_with_either_separator_or_the_stem(tmp_path: Path, name: str) -> None:
    assert library(tmp_path, "loras/style/soft.safetensors").find("loras", name) == "style/soft.safetensors"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../secret.safetensors", "/etc/passwd", "a\0b", "x" * 5000, "sub", "loras/ok.safetensors"]
)
def test_nothing_outside_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.safetensors").write_bytes(b"")
    models = library(tmp_path, "loras/ok.safetensors", "loras/sub/notes.txt")
    assert models.find("loras", name) is None
    with pytest.raises(UnknownModel):
        models.path("loras", name)


@given(st.text())
def test_finding_never_raises(name: str) -> None:
    assert Library.below(Path("no such folder")).find("loras", name) is None


def test_hashes_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file, cache = tmp_path / "a.safetensors", tmp_path / "cache" / "hash_cache.txt"
    file.write_bytes(b"one")
    expected = hashlib.sha256(b"one").hexdigest()
    assert FileHashes(cache).sha256(file) == expected
    remembered = cache.read_text()
    assert expected in remembered
    assert FileHashes(cache).short(file) == expected[:10]
    file.write_bytes(b"other")
    assert FileHashes(cache).sha256(file) == hashlib.sha256(b"other").hexdigest()


def test_the_cache_is_believed(tmp_path: Path) -> None:
    file, cache = tmp_path / "a.safetensors", tmp_path / "hash_cache.txt"
    file.write_bytes(b"one")
    true = FileHashes(cache).sha256(file)
    cache.write_text(cache.read_text().replace(true, "f" * 64))
    assert FileHashes(cache).sha256(file) == "f" * 64


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'not json\n[]\n{}\n{"a": 1}\n5\nnull\n', b"{" * 100])
def test_a_broken_cache_is_replaced(tmp_path: Path, content: bytes) -> None:
    file, cache = tmp_path / "a.safetensors", tmp_path / "hash_cache.txt"
    file.write_bytes(b"one")
    cache.write_bytes(content)
    assert FileHashes(cache).sha256(file) == hashlib.sha256(b"one").hexdigest()


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"one")
    assert FileHashes(file / "cache.txt").sha256(file) == hashlib.sha256(b"one").hexdigest()


def test_no_torch_for_a_listing() -> None:
    code = "import sys, fooocus_core.library; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
