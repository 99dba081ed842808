"""Both networks behind one door: which is asked, in which order, and what is told where a file is missing."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from fooocus_core.describe.describer import CAPTION_FILE, TAGGER_FILE, TAGS_FILE, Describer
from fooocus_core.errors import UnknownModel
from fooocus_core.library import Library
from fooocus_core.model_files.catalogue import Catalogue
from tests.fooocus_core.describe.files import write_captioner, write_tagger

RED = np.full((12, 24, 3), (255, 0, 0), np.uint8)
TAGS = r"hero \(story\), bluish, red \(colour\), greenish"
"""Half of the square that the network sees is white."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_captioner(root / "clip_vision")
    write_tagger(root / "clip_vision")
    return root


def describer_of(root: Path) -> Describer:
    return Describer(Library.below(root), Catalogue.of(), draw_seed=lambda: 5)


def test_a_photograph_comes_before_a_drawing(root: Path) -> None:
    describer = describer_of(root)
    sentence = describer.describe(RED, ["photo"])
    assert sentence
    assert describer.describe(RED, ["anime"]) == TAGS
    assert describer.describe(RED, ["anime", "photo"]) == f"{sentence}, {TAGS}"


def test_what_is_transparent_is_white(root: Path) -> None:
    nothing = np.zeros((16, 16, 4), np.uint8)
    assert describer_of(root).describe(nothing, ["anime"]) == TAGS


@pytest.mark.parametrize(("content", "name"), [("photo", CAPTION_FILE), ("anime", TAGGER_FILE), ("anime", TAGS_FILE)])
def test_a_missing_file_is_named_with_its_folder_and_address(tmp_path: Path, content: str, name: str) -> None:
    write_tagger(tmp_path / "clip_vision")
    (tmp_path / "clip_vision" / name).unlink(missing_ok=True)
    with pytest.raises(UnknownModel) as told:
        describer_of(tmp_path).describe(RED, [content])  # type: ignore[list-item]
    assert str(told.value).startswith(f"clip_vision: no file named '{name}', needed for describing ")
    assert f"published at https://huggingface.co/lllyasviel/misc/resolve/main/{name}" in str(told.value)


def test_a_file_may_come_later(tmp_path: Path) -> None:
    describer = describer_of(tmp_path)
    with pytest.raises(UnknownModel):
        describer.describe(RED, ["anime"])
    write_tagger(tmp_path / "clip_vision")
    assert describer.describe(RED, ["anime"]) == TAGS


def test_a_network_is_read_once_until_it_is_forgotten(tmp_path: Path) -> None:
    network, tags = write_tagger(tmp_path / "clip_vision")
    describer = describer_of(tmp_path)
    describer.describe(RED, ["anime"])
    network.unlink()
    tags.unlink()
    assert describer.describe(RED, ["anime"]) == TAGS
    describer.unload()
    with pytest.raises(UnknownModel):
        describer.describe(RED, ["anime"])


def test_several_threads_at_once(root: Path) -> None:
    describer = describer_of(root)
    told: list[str] = []
    threads = [
        threading.Thread(target=lambda: told.append(describer.describe(RED, ["photo", "anime"]))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(told)) == 1
    assert len(told) == 3
