"""Splitting a prompt into its lines (specification 01, section 4)."""

from __future__ import annotations

from typing import NamedTuple

_TRIMMED = ",. \r\n"


class PromptLines(NamedTuple):
    """The first line, which wildcards, arrays and styles work on, and the independent texts below it."""

    main: str
    extra: tuple[str, ...]


def safe_str(text: str) -> str:
    """``text`` with runs of blanks halved 16 times and without commas, full stops and blanks at its ends."""
    for _ in range(16):
        text = text.replace("  ", " ")
    return text.strip(_TRIMMED)


def split_lines(text: str) -> PromptLines:
    """The non-empty lines of ``text``, tidied; an empty main line where there are none."""
    lines = [line for line in map(safe_str, text.splitlines()) if line] or [""]
    return PromptLines(lines[0], tuple(lines[1:]))


def holds_half_a_pair(text: str) -> bool:
    """Whether half of a surrogate pair is in ``text``: JSON can spell it, but no file and no vocabulary has it."""
    return any("\ud800" <= character <= "\udfff" for character in text)
