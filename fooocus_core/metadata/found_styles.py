"""Recognising styles in the texts of scheme ``a1111``, which does not name them (specification 08, section 6.5)."""

from __future__ import annotations

from typing import Final, NamedTuple

from fooocus_core.metadata.record import EXPANSION_STYLE
from fooocus_core.prompts.styles import PLACEHOLDER, StyleBook

_COMMA: Final = ", "
_MAX_CHARACTERS: Final = 50_000
"""No such prompt is ever run; searching it for hundreds of styles, hundreds of times, would take minutes."""


class FoundStyles(NamedTuple):
    """The styles in the order in which they were applied, and what is left of the texts."""

    styles: tuple[str, ...]
    prompt: str
    negative_prompt: str


class _Match(NamedTuple):
    rest: str
    inner: str
    """What stood where the prompt goes."""


def find_styles(positive: str, negative: str, book: StyleBook) -> FoundStyles:
    """Takes one style after the other off both texts, the first that matches each time.

    The prompt is what stood inside the first style that shows it. Text that no style accounts for means that the
    prompt expansion ran.
    """
    if len(positive) + len(negative) > _MAX_CHARACTERS:
        return FoundStyles((), "", negative)
    remaining = list(book)
    found: list[str] = []
    prompt = ""
    while remaining:
        for style in remaining:
            in_positive = _match(style.positive, positive)
            in_negative = _match(style.negative, negative)
            if in_positive is not None and in_negative is not None:
                break
        else:
            break
        positive, negative = in_positive.rest, in_negative.rest
        prompt = prompt or (in_positive.inner if in_positive.inner != positive else "")
        remaining.remove(style)
        found.append(style.name)
    if positive and not prompt:
        prompt = _repeated_start(positive)
    if positive and prompt:
        found.append(EXPANSION_STYLE)
    return FoundStyles(tuple(reversed(found)), prompt, negative)


def _match(template: str, text: str) -> _Match | None:
    """``text`` without a style's: around a prompt where the style has exactly one place for it, else at the end."""
    prefix, *suffixes = template.split(PLACEHOLDER)
    match suffixes:
        case []:
            return _match_end(template, text)
        case [suffix]:
            return _match_around(prefix, suffix, text)
        case _:
            return None


def _match_end(ending: str, text: str) -> _Match | None:
    if not text.endswith(ending):
        return None
    rest = text.removesuffix(ending).removesuffix(_COMMA)
    return _Match(rest, rest)


def _match_around(prefix: str, suffix: str, text: str) -> _Match | None:
    start = text.find(prefix)
    end = text.find(suffix, start + len(prefix)) if start >= 0 else -1
    if end < 0:
        return None
    rest = text[:start] + text[end + len(suffix) :]
    return _Match(rest.removeprefix(_COMMA).removesuffix(_COMMA), text[start + len(prefix) : end])


def _repeated_start(text: str) -> str:
    """What precedes the last occurrence of the first piece of ``text``: the expansion starts with the prompt again."""
    first = text.split(_COMMA)[0]
    return text[: text.rfind(first)].removesuffix(_COMMA)
