"""What was made lately, kept to be used again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Values by key, up to ``most`` in all; those that were asked for longest ago go first. For one thread.

    ``size_of`` says what a value counts, by default 1. One that alone counts more than ``most`` is not kept.
    """

    def __init__(self, most: int, size_of: Callable[[Value], int] = lambda value: 1) -> None:
        self._most = most
        self._size_of = size_of
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get_or(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of ``key``, made if it is not kept. What ``make`` raises is raised, and nothing is kept."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        value = self._kept[key] = make()
        self._size += self._size_of(value)
        while self._size > self._most:
            _, oldest = self._kept.popitem(last=False)
            self._size -= self._size_of(oldest)
        return value

    def clear(self) -> None:
        self._kept.clear()
        self._size = 0
