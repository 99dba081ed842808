"""Emphasis in prompts: ``(word)``, ``((word))``, ``(word:1.3)`` (specification 02, section 2).

Read without recursion and in one pass over the parentheses, so that a prompt of a million of them does no harm.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from dataclasses import dataclass

STEP = 1.1
"""What one pair of parentheses multiplies the weight by."""
_LONGEST_NUMBER = 64
_MARKS = re.compile(r"\\[()]|[():]")


@dataclass(frozen=True)
class Segment:
    """A stretch of a prompt and its weight; escapes are resolved."""

    text: str
    weight: float


@dataclass(frozen=True)
class _Range:
    start: int
    end: int
    weight: float
    group: bool
    """Whether it begins with an opening parenthesis that is to be interpreted."""


def weighted_segments(prompt: str) -> list[Segment]:
    """Split a prompt into segments of constant weight, in order. Never raises: odd parentheses stay as text."""
    marks = _Marks(prompt)
    segments: list[Segment] = []
    todo = _children(marks, _Range(0, len(prompt), 1.0, group=False))[::-1]
    while todo:
        part = todo.pop()
        inner = _opened(prompt, marks, part)
        if inner is None:
            segments.append(Segment(_unescaped(prompt[part.start : part.end]), part.weight))
        else:
            todo.extend(reversed(_children(marks, inner)))
    return segments


class _Marks:
    """Where a prompt's unescaped parentheses and colons are, and which parentheses belong together."""

    def __init__(self, prompt: str) -> None:
        found = [(match.start(), match.group()) for match in _MARKS.finditer(prompt)]
        self.parentheses = [(at, mark) for at, mark in found if mark in "()"]
        self.places = [at for at, _ in self.parentheses]
        self.colons = [at for at, mark in found if mark == ":"]
        self.closing = {at for at, mark in self.parentheses if mark == ")"}
        self.partner = self._partners()

    def _partners(self) -> dict[int, int]:
        partner: dict[int, int] = {}
        opened: list[int] = []
        for at, mark in self.parentheses:
            if mark == "(":
                opened.append(at)
            elif opened:
                partner[opened.pop()] = at
        return partner

    def last_colon(self, start: int, end: int) -> int:
        """Place of the last colon in ``[start, end)``, or -1."""
        index = bisect_left(self.colons, end) - 1
        return self.colons[index] if index >= 0 and self.colons[index] >= start else -1


def _children(marks: _Marks, outer: _Range) -> list[_Range]:
    """The top-level parts of a range: text, balanced groups, and a last group that is never closed.

    Depth is not clamped: after a stray ``)`` an equal number of ``(`` open nothing.
    """
    parts: list[_Range] = []
    text_start, depth = outer.start, 0
    index = bisect_left(marks.places, outer.start)
    while index < len(marks.places) and marks.places[index] < outer.end:
        at, mark = marks.parentheses[index]
        if mark == "(" and depth == 0:
            if at > text_start:
                parts.append(_Range(text_start, at, outer.weight, group=False))
            end = min(marks.partner.get(at, outer.end) + 1, outer.end)
            parts.append(_Range(at, end, outer.weight, group=True))
            text_start = end
            index = bisect_left(marks.places, end)
            continue
        depth += 1 if mark == "(" else -1
        index += 1
    if text_start < outer.end:
        parts.append(_Range(text_start, outer.end, outer.weight, group=False))
    return parts


def _opened(prompt: str, marks: _Marks, part: _Range) -> _Range | None:
    """What a parenthesised range holds, at its new weight; ``None`` for plain text."""
    if not part.group or part.end - 1 not in marks.closing:
        return None
    start, end = part.start + 1, part.end - 1
    colon = marks.last_colon(start, end)
    number = _number(prompt[colon + 1 : end]) if colon > start else None
    if number is None:
        return _Range(start, end, part.weight * STEP, group=False)
    return _Range(start, colon, number, group=False)


def _number(text: str) -> float | None:
    """A finite number, or ``None``. (The reference takes ``nan`` and ``inf`` too, and then paints nothing.)"""
    if len(text) > _LONGEST_NUMBER:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _unescaped(text: str) -> str:
    return text.replace("\\)", ")").replace("\\(", "(")
