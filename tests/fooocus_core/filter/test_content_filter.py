"""Who decides, and what becomes of a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fooocus_core.errors import UnreadableModel
from fooocus_core.filter.content_filter import ContentFilter
from fooocus_core.filter.open_nsfw import OpenNsfw
from fooocus_core.library import Library
from tests.fooocus_core.filter.files import ALWAYS, NEVER, write_checker

PICTURE = np.random.default_rng(0).integers(1, 256, (60, 91, 3), dtype=np.uint8)
DEMO = Path(__file__).parents[3] / "docs" / "demo.png"


def filter_of(root: Path) -> ContentFilter:
    return ContentFilter(Library.below(root), torch.device("cpu"))


def test_open_nsfw_calls_plain_pictures_safe() -> None:
    judge = OpenNsfw()
    shown = np.array(Image.open(DEMO).convert("RGB"))
    for picture in (shown, PICTURE, np.full((64, 80, 3), 200, np.uint8), np.zeros((8, 8, 3), np.uint8)):
        assert 0 <= judge.score(picture) < 0.2
        assert not judge.is_unsafe(picture)


def test_open_nsfw_decides_where_nothing_else_is_installed(tmp_path: Path) -> None:
    content_filter = filter_of(tmp_path)
    assert content_filter.judge().name == "Open NSFW"
    assert content_filter.blacked_out(PICTURE) is PICTURE


def test_a_score_from_one_half_on_is_unsafe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content_filter = filter_of(tmp_path)
    monkeypatch.setattr(OpenNsfw, "score", lambda *_: 0.499)
    assert content_filter.blacked_out(PICTURE) is PICTURE
    monkeypatch.setattr(OpenNsfw, "score", lambda *_: 0.5)
    assert not content_filter.blacked_out(PICTURE).any()


def test_the_checker_decides_where_its_file_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_checker(tmp_path, ALWAYS)
    black = filter_of(tmp_path).blacked_out(PICTURE)
    assert (black.shape, black.dtype, black.any()) == (PICTURE.shape, np.uint8, False)
    assert "by the word of stable-diffusion-safety-checker.bin" in caplog.text
    assert PICTURE.all()


def test_a_checker_may_come_and_go(tmp_path: Path) -> None:
    content_filter = filter_of(tmp_path)
    assert content_filter.blacked_out(PICTURE) is PICTURE
    path = write_checker(tmp_path, ALWAYS)
    assert not content_filter.blacked_out(PICTURE).any()
    path.unlink()
    assert content_filter.blacked_out(PICTURE) is PICTURE


def test_a_judge_is_kept_until_it_is_forgotten(tmp_path: Path) -> None:
    write_checker(tmp_path, ALWAYS)
    content_filter = filter_of(tmp_path)
    first = content_filter.judge()
    assert content_filter.judge() is first
    write_checker(tmp_path, NEVER)
    content_filter.unload()
    assert content_filter.blacked_out(PICTURE) is PICTURE


def test_a_broken_checker_is_an_error_and_no_leave_to_show(tmp_path: Path) -> None:
    write_checker(tmp_path).write_bytes(b"no checker")
    with pytest.raises(UnreadableModel, match=r"stable-diffusion-safety-checker\.bin"):
        filter_of(tmp_path).blacked_out(PICTURE)
