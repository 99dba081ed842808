"""From lists of prompts to one text (contract section 13.4); emphasis is read later, in the text as a whole."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Final

from fooocusapi.surfaces.tams.schemas import Prompt

logger = logging.getLogger(__name__)

MAX_ENTRIES: Final = 150

_LORA_TAG: Final = re.compile(r"<lora:[^<>]*>", re.IGNORECASE)
_MAIN: Final = "[PROMPT]"
_SEPARATOR: Final = "[SEP]"


def joined(prompts: Sequence[Prompt] | None) -> str:
    """All entries with commas between: one bracket may begin in one and end in another."""
    text = ",".join(_weighted(prompt) for prompt in prompts or ())
    without_tags, tags = _LORA_TAG.subn("", text)
    if tags:
        logger.warning("LoRA tags in a prompt are left out; this dialect names LoRAs by their numbers")
    return without_tags.rstrip(", ")


def for_each_part(prompts: Sequence[Prompt] | None, main: str) -> tuple[str, ...]:
    """The texts for the parts that are found, in their order; empty ones mean the main prompt."""
    return tuple(text.strip().replace(_MAIN, main) for text in joined(prompts).split(_SEPARATOR))


def _weighted(prompt: Prompt) -> str:
    text = prompt.text or ""
    return text if prompt.weight in (None, 0, 1) else f"({text}:{prompt.weight:g})"
