"""Pictures that records of the history show: found by their addresses, gone with the last record."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fooocusapi.images.shown import ShownPictures

BASE = "http://127.0.0.1:8888"


def picture(level: int) -> np.ndarray:
    return np.full((4, 5, 3), level, np.uint8)


def test_a_picture_is_found_by_its_address(tmp_path: Path) -> None:
    shown = ShownPictures(tmp_path, BASE)
    address = shown.show(picture(1))
    assert address == shown.show(picture(1))
    found = shown.find_by_url(address)
    assert found is not None
    assert found.parent == tmp_path
    assert shown.find_by_url(f"{BASE}/inputs/other.png") is None


def test_a_picture_goes_with_its_last_record(tmp_path: Path) -> None:
    shown = ShownPictures(tmp_path, BASE)
    first, second = shown.show(picture(1)), shown.show(picture(2))
    record = {"params": {"uov_input_image": first, "controlnet_image": [{"cn_img": second}, {"cn_img": first}]}}
    shown.let_go(record, lambda name: name in first)
    assert shown.find_by_url(first) is not None
    assert shown.find_by_url(second) is None
    shown.let_go(record, lambda name: False)
    assert list(tmp_path.iterdir()) == []
