"""``<lora:name:weight>`` inside a prompt (specification 01, section 5)."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from fooocus_core.plan import Lora

log = logging.getLogger(__name__)

_TAG: Final = re.compile(r"<lora:([^:]+):([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))>")
_BLANKS: Final = re.compile(r" +")
_COMMAS: Final = re.compile(r",+")

FindLora = Callable[[str], str | None]
"""From the name in a tag to the file as the library lists it; ``None`` if there is none."""


class TaggedPrompt(NamedTuple):
    """A prompt without its tags, and what they named."""

    prompt: str
    loras: tuple[Lora, ...]


def find_by_stem(candidates: Sequence[str]) -> FindLora:
    """Looks a tag's name up among listed files: the first one whose name without its last extension equals it."""
    by_stem: dict[str, str] = {}
    for name in candidates:
        by_stem.setdefault(PurePosixPath(name).stem, name)
    return by_stem.get


def lora_candidates(names: Sequence[str], performance_lora: Lora | None) -> list[str]:
    """The files that tags may name: all but the one that the performance mode brings itself."""
    excluded = None if performance_lora is None else PurePosixPath(performance_lora.name).name
    return [name for name in names if PurePosixPath(name).name != excluded]


def take_lora_tags(prompt: str, find: FindLora) -> TaggedPrompt:
    """Takes all tags out of ``prompt``; those without a file or of an endless weight are dropped.

    Malformed tags stay as text. The punctuation of the prompt is tidied even when there is no tag.
    """
    loras = []
    pieces = []
    for piece in prompt.split(","):
        for tag in _TAG.finditer(piece):
            name, weight = find(tag[1]), float(tag[2])
            if name is not None and math.isfinite(weight):  # hundreds of digits are no number that could be merged
                loras.append(Lora(name, weight))
            else:
                log.warning("LoRA tag left out: %.80r", tag[0])
        pieces.append(_TAG.sub("", piece))
    return TaggedPrompt(tidy_commas(", ".join(pieces)), tuple(loras))


def tidy_commas(text: str) -> str:
    """``text`` with single blanks, and non-empty, trimmed pieces joined by ``", "``."""
    text = _COMMAS.sub(",", _BLANKS.sub(" ", text))
    return ", ".join(piece for piece in map(str.strip, text.split(",")) if piece)


def merge_loras(requested: Sequence[Lora], tagged: Sequence[Lora], limit: int) -> tuple[Lora, ...]:
    """The request's LoRAs, then the tagged ones that are not among them, ``limit`` in all.

    The same file may come twice with two weights when tags say so, never when the request has it. Without anything
    new the request's list stays as it is.
    """
    requested_names = {lora.name for lora in requested}
    new = [lora for lora in dict.fromkeys(tagged) if lora.name not in requested_names]
    if not new:
        return tuple(requested)
    return tuple(lora for lora in (*requested, *new) if lora.name != "None")[:limit]
