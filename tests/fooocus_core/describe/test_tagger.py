"""Tags: which are likely enough, how they are written, and what the network is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fooocus_core.describe.tagger import TagList, fitted_on_white, likely, load_tagger, written
from fooocus_core.errors import ModelError, UnreadableModel, UnsupportedModel
from tests.fooocus_core.describe.files import SIDE_PX, TAGS, write_tagger
from tests.fooocus_core.onnx_files import write_mean_network

RED = np.full((20, 20, 3), (255, 0, 0), np.uint8)


def test_characters_come_first_and_thresholds_are_left_out_themselves() -> None:
    tags = TagList(("safe", "tree", "sky", "sea", "hero", "villain"), 1, 4)
    scores = np.array([1.0, 0.35, 0.36, 0.9, 0.85, 0.86])
    assert likely(scores, tags) == ["villain", "sky", "sea"]


def test_tags_are_written_as_prompts_want_them() -> None:
    assert written("red_(colour)") == r"red \(colour\)"


def test_the_whole_picture_lies_in_the_middle_of_white() -> None:
    square = fitted_on_white(np.zeros((30, 101, 3), np.uint8), 50)
    assert square.shape == (50, 50, 3)
    black = np.argwhere((square == 0).all(2))
    assert black.min(0).tolist() == [18, 0]  # 30 * 50 / 101 is 14.9, of which 14 rows are left
    assert black.max(0).tolist() == [31, 49]
    assert ((square == 0) | (square == 255)).all()


def test_a_sliver_keeps_a_row() -> None:
    assert (fitted_on_white(np.zeros((1, 400, 3), np.uint8), 50) == 0).any()


def test_a_red_picture(tmp_path: Path) -> None:
    """The network of the test gets blue first; the scores of a rating and of 0.8 for a character say nothing."""
    tagger = load_tagger(*write_tagger(tmp_path))
    assert tagger.describe(RED) == r"hero \(story\), red \(colour\)"


def test_what_is_not_the_picture_is_white(tmp_path: Path) -> None:
    """Half a square of red: white in the other half has as much blue and green."""
    tagger = load_tagger(*write_tagger(tmp_path))
    assert tagger.describe(RED[:10]) == r"hero \(story\), bluish, red \(colour\), greenish"


def test_a_list_of_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"csv: 5 tags do not fit the network, whose scores are \(6,\)"):
        load_tagger(*write_tagger(tmp_path, TAGS[:-1]))


@pytest.mark.parametrize("content", [b"", b"number,name\n1,red\n", b"\xff\xfe\x00", b"a,b,c\n1\n"])
def test_what_is_no_list_is_refused(tmp_path: Path, content: bytes) -> None:
    network, tags = write_tagger(tmp_path)
    tags.write_bytes(content)
    with pytest.raises(ModelError, match="csv"):
        load_tagger(network, tags)


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    network, tags = write_tagger(tmp_path)
    network.write_bytes(network.read_bytes()[:100])
    with pytest.raises(UnreadableModel, match="not an ONNX file"):
        load_tagger(network, tags)


def test_a_network_for_something_else_is_refused(tmp_path: Path) -> None:
    network, tags = write_tagger(tmp_path)
    write_mean_network(network, SIDE_PX, np.ones((3, 6), np.float32))
    network.write_bytes(network.read_bytes().replace(b"\x08\x20\x0a\x02\x08\x20", b"\x08\x20\x0a\x02\x08\x21"))
    with pytest.raises(UnsupportedModel, match="square"):
        load_tagger(network, tags)
