"""Styles: named texts around a prompt (specification 01, section 6.3)."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from fooocus_core.metadata.record import EXPANSION_STYLE
from fooocus_core.prompts.lines import holds_half_a_pair
from fooocus_core.prompts.listing import list_files

log = logging.getLogger(__name__)

BUNDLED_FOLDER: Final = Path(__file__).parent.parent / "styles"
RANDOM_STYLE: Final = "Random Style"
PLACEHOLDER: Final = "{prompt}"

_FAMILIES: Final = ("fooocus", "sai", "mre", "twri", "diva", "marc_k3nt3l")
"""Load order of the bundled files; a random style is drawn by position, so it matters."""
_ORIGINAL_PREFIX: Final = "sdxl_styles_"
"""Before the family in the original program's file names: a user's copies of them keep their order."""
_SPELLINGS: Final = (("3d", "3D"), ("Sai", "SAI"), ("Mre", "MRE"), ("(s", "(S"))


class StyledTexts(NamedTuple):
    """What one style adds to the positive and the negative texts."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]
    holds_prompt: bool
    """Whether the prompt is among the positive texts already."""


@dataclass(frozen=True)
class Style:
    """``positive`` may hold ``{prompt}``, any number of times; each line is a text of its own. Both may be empty."""

    name: str
    positive: str = ""
    negative: str = ""

    def apply(self, prompt: str) -> StyledTexts:
        """The style's texts around ``prompt``."""
        return StyledTexts(
            positive=tuple(self.positive.replace(PLACEHOLDER, prompt).splitlines()),
            negative=tuple(self.negative.splitlines()),
            holds_prompt=PLACEHOLDER in self.positive,
        )


class StyleBook:
    """All styles by name, in load order. A name that comes again keeps its place and takes the later texts."""

    def __init__(self, styles: Iterable[Style]) -> None:
        self._styles = {style.name: style for style in styles}

    def __iter__(self) -> Iterator[Style]:
        return iter(self._styles.values())

    @property
    def names(self) -> tuple[str, ...]:
        """What a request may name: the two special names, then the styles in order."""
        return (EXPANSION_STYLE, RANDOM_STYLE, *self._styles)

    def find(self, name: str) -> Style | None:
        """The style of that name, written as displayed or as in a style file."""
        return self._styles.get(name) or self._styles.get(display_name(name))

    def choose(self, names: Iterable[str], rng: random.Random) -> list[Style]:
        """The styles of a request in its order; ``Random Style`` draws one, unknown names are left out."""
        return [style for name in names if (style := self._choose_one(name, rng)) is not None]

    def _choose_one(self, name: str, rng: random.Random) -> Style | None:
        if name == RANDOM_STYLE:
            return rng.choice(list(self)) if self._styles else None
        style = self.find(name)
        if style is None:
            log.info("unknown style left out: %r", name)
        return style


def display_name(name: str) -> str:
    """The name as it is shown: words with a capital, known abbreviations in their own spelling."""
    words = name.replace("-", " ").split(" ")
    shown = " ".join(word[:1].upper() + word[1:].lower() for word in words)
    for plain, spelled in _SPELLINGS:
        shown = shown.replace(plain, spelled)
    return shown


class StyleFile(NamedTuple):
    """The styles of one file and where its family stands in the load order, from 0; -1 for a user's own family."""

    family_rank: int
    styles: list[Style]


def load_styles(user_folder: Path | None = None) -> StyleBook:
    """The user's styles and the bundled ones, the user's texts in place of bundled ones of the same name.

    As in the original, files of a user's own come first in order, and a file named like a bundled family stands where
    that family stands: what a random style draws depends on it. Unlike there the user's own files also win over the
    families, which is what somebody who writes such a file wants.
    """
    own = [] if user_folder is None else read_style_folder(user_folder)
    bundled = read_style_folder(BUNDLED_FOLDER)
    in_order = sorted([*bundled, *own], key=lambda file: file.family_rank)
    # A name that comes again keeps its place, so adding these once more decides about texts only.
    of_no_family = [file for file in own if file.family_rank < 0]
    return StyleBook(style for file in [*in_order, *of_no_family] for style in file.styles)


def read_style_folder(folder: Path) -> list[StyleFile]:
    """All JSON files below ``folder``, in the order of the listing."""
    return [StyleFile(_family_rank(path), read_style_file(path)) for path in list_files(folder, ".json")]


def read_style_file(path: Path) -> list[Style]:
    """The entries of one file; a broken file or entry is logged and left out."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        log.warning("style file skipped: %s: %s", path.name, error)
        return []
    if not isinstance(entries, list):
        log.warning("style file skipped: %s: not a list", path.name)
        return []
    styles = [_style(entry) for entry in entries]
    if None in styles:
        log.warning("entries skipped in style file: %s", path.name)
    return [style for style in styles if style is not None]


def _style(entry: object) -> Style | None:
    if not isinstance(entry, dict):
        return None
    name = entry.get("name")
    texts = ["" if entry.get(key) is None else entry[key] for key in ("prompt", "negative_prompt")]
    if not isinstance(name, str) or not name.strip() or not all(isinstance(text, str) for text in texts):
        return None
    if any(map(holds_half_a_pair, (name, *texts))):
        return None
    return Style(display_name(name), *texts)


def _family_rank(path: Path) -> int:
    family = path.stem.removeprefix(_ORIGINAL_PREFIX)
    return _FAMILIES.index(family) if family in _FAMILIES else -1
