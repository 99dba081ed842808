"""Emphasis as the Stable Diffusion web UI writes it: ``(x)``, ``[x]``, ``(x:1.4)``, ``BREAK`` (TAMS contract, 13.4).

Brackets multiply: what stands in two pairs weighs 1.21. Read without recursion and in one pass, so that a prompt of a
million brackets does no harm.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from fooocus_core.conditioning.emphasis import STEP, Segment

MOST = 1e4
"""The largest weight either way: more would leave nothing of the numbers that it multiplies."""
_MARKS = re.compile(r"\\[()\[\]\\]|\\|:\s*[+-]?[.\d]{1,64}\s*\)|[()\[\]]")
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


@dataclass(frozen=True)
class _Mark:
    """A piece of text, or a bracket that opens or closes."""

    text: str
    opens: str = ""
    closes: str = ""
    """``(`` or ``[``: which bracket it is."""
    weight: float | None = None
    """What a closing bracket says; ``None``: nothing."""


def web_ui_sections(prompt: str) -> list[list[Segment]]:
    """What stands between the ``BREAK`` of a prompt, each in segments of constant weight. There is always one section,
    which may be empty. Never raises: brackets that close nothing stay as text.
    """
    sections: list[list[tuple[str, float]]] = [[]]
    for text, weight in _weighted(list(_marks(prompt))):
        first, *others = _BREAK.split(text)
        sections[-1].append((first, weight))
        sections.extend([(other, weight)] for other in others)
    return [_joined(section) for section in sections]


def _joined(texts: Iterable[tuple[str, float]]) -> list[Segment]:
    """Neighbours of one weight are one text: words may reach across an escaped bracket."""
    runs = groupby((each for each in texts if each[0]), key=itemgetter(1))
    return [Segment("".join(text for text, _ in run), weight) for weight, run in runs]


def _marks(prompt: str) -> Iterator[_Mark]:
    at = 0
    for match in _MARKS.finditer(prompt):
        yield _Mark(prompt[at : match.start()])
        yield _mark(match.group())
        at = match.end()
    yield _Mark(prompt[at:])


def _mark(text: str) -> _Mark:
    match text[0]:
        case "\\":
            return _Mark(text[1:])
        case "(" | "[":
            return _Mark(text, opens=text)
        case ")":
            return _Mark(text, closes="(", weight=STEP)
        case "]":
            return _Mark(text, closes="[", weight=1 / STEP)
        case _:
            number = _number(text[1:-1])
            return _Mark(text) if number is None else _Mark(text, closes="(", weight=number)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # more than one point
        return None


def _weighted(marks: list[_Mark]) -> Iterator[tuple[str, float]]:
    """All texts with their weights. Round and square brackets do not see each other."""
    factors = _factors(marks)
    products: dict[str, list[float]] = {"(": [1.0], "[": [1.0]}
    for index, mark in enumerate(marks):
        factor = factors.get(index)
        if factor is not None:
            product = products[mark.opens]
            product.append(_bounded(product[-1] * factor))
        elif mark.closes and len(products[mark.closes]) > 1:
            products[mark.closes].pop()
        elif mark.text:
            yield mark.text, _bounded(products["("][-1] * products["["][-1])


def _factors(marks: Iterable[_Mark]) -> dict[int, float]:
    """What every opening bracket multiplies by, by its place; one that is never closed counts to the end."""
    factors: dict[int, float] = {}
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for index, mark in enumerate(marks):
        if mark.opens:
            opened[mark.opens].append(index)
            factors[index] = STEP if mark.opens == "(" else 1 / STEP
        elif mark.closes and opened[mark.closes] and mark.weight is not None:
            factors[opened[mark.closes].pop()] = mark.weight
    return factors


def _bounded(weight: float) -> float:
    return max(-MOST, min(MOST, weight))
