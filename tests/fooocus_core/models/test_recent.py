"""Values that are kept to be used again, up to a size."""

from __future__ import annotations

from functools import partial

import pytest

from fooocus_core.models.recent import Recent


def fail() -> str:
    raise OSError("no such file")


def test_a_value_is_made_once() -> None:
    recent: Recent[str, list[int]] = Recent(2)
    first = recent.get_or("a", list)
    assert recent.get_or("a", list) is first
    recent.clear()
    assert recent.get_or("a", list) is not first


def test_what_was_asked_for_longest_ago_goes_first() -> None:
    recent: Recent[str, str] = Recent(2)
    for key in ("a", "b", "a", "c"):
        recent.get_or(key, lambda: "old")
    assert [recent.get_or(key, lambda: "new") for key in ("a", "c", "b")] == ["old", "old", "new"]
    assert len(recent) == 2


def test_sizes_are_added() -> None:
    recent: Recent[str, str] = Recent(5, len)
    for key in ("aa", "bbb", "cc"):
        recent.get_or(key, partial(str, key))
    assert recent.get_or("bbb", lambda: "new") == "bbb"
    assert recent.get_or("cc", lambda: "new") == "cc"
    assert recent.get_or("aa", lambda: "new") == "new"


def test_what_is_larger_than_the_room_is_not_kept() -> None:
    recent: Recent[str, str] = Recent(3, len)
    assert recent.get_or("a", lambda: "long") == "long"
    assert len(recent) == 0
    assert recent.get_or("a", lambda: "abc") == "abc"
    assert len(recent) == 1


def test_a_failure_is_not_kept() -> None:
    recent: Recent[str, str] = Recent(1)
    with pytest.raises(OSError, match="no such file"):
        recent.get_or("a", fail)
    assert recent.get_or("a", lambda: "made") == "made"
