"""``__name__``: a line of a text file in place of the placeholder (specification 01, section 6.1)."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fooocus_core.prompts.listing import list_files

log = logging.getLogger(__name__)

BUNDLED_FOLDER: Final = Path(__file__).parent.parent / "wildcards"

_PLACEHOLDER: Final = re.compile(r"__([\w-]+)__")
_MAX_PASSES: Final = 64
_MAX_CHARACTERS: Final = 100_000
"""Where replacing stops: a line with two placeholders of its own file would double the text 64 times."""


class Wildcards:
    """The wildcard files of some folders, the first folder's first.

    Files are listed when this is made and read when they are first used.
    """

    def __init__(self, folders: Sequence[Path] = (BUNDLED_FOLDER,)) -> None:
        self._folders = tuple(folders)
        self._files: dict[str, Path] = {}
        self._lines: dict[str, list[str]] = {}
        for path in (path for folder in folders for path in list_files(folder, ".txt")):
            self._files.setdefault(path.stem, path)

    def reread(self) -> Wildcards:
        """The same folders as they are now: what is edited while the server runs counts from the next job on."""
        return Wildcards(self._folders)

    @property
    def names(self) -> list[str]:
        """The names that have a file, sorted."""
        return sorted(self._files)

    def lines(self, name: str) -> list[str]:
        """The non-empty lines of a file; none if it is missing or cannot be read."""
        if name not in self._lines:
            self._lines[name] = self._read(name)
        return self._lines[name]

    def _read(self, name: str) -> list[str]:
        path = self._files.get(name)
        if path is None:
            return []
        try:
            text = path.read_text(encoding="utf-8-sig", errors="replace")
        except OSError as error:
            log.warning("wildcard file skipped: %s: %s", path.name, error)
            return []
        return [line for line in text.splitlines() if line]


def fill_wildcards(text: str, wildcards: Wildcards, rng: random.Random, index: int, in_order: bool) -> str:
    """``text`` with its placeholders replaced, those that come with the lines included.

    ``in_order`` takes line ``index`` (from 0, starting over at the end), otherwise ``rng`` draws one. All placeholders
    of a text draw before those that the drawn lines bring. A name without lines becomes plain text.
    """
    for _ in range(_MAX_PASSES):
        names = _PLACEHOLDER.findall(text)
        if not names:
            return text
        for name in names:
            if len(text) > _MAX_CHARACTERS:
                return text
            lines = wildcards.lines(name)
            if not lines:
                log.debug("no wildcard lines: %r", name)
                text = text.replace(f"__{name}__", name)
                continue
            word = lines[index % len(lines)] if in_order else rng.choice(lines)
            text = text.replace(f"__{name}__", word, 1)
    return text
