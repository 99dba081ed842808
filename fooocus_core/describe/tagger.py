"""The tags of a drawing, by a tagger of the WD 1.4 family: a network with a list of the tags it gives scores for.

Specification: 07, section 3.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fooocus_core.errors import UnreadableModel, UnsupportedModel
from fooocus_core.images.pixels import Picture
from fooocus_core.images.resizing import lanczos
from fooocus_core.models.onnx import OnnxNetwork

GENERAL_ABOVE: Final = 0.35
CHARACTER_ABOVE: Final = 0.85
GENERAL, CHARACTER = "0", "4"
"""Categories of the list; ratings, which have another, stand before them."""
WHITE: Final = 255


class TagList(NamedTuple):
    """The tags in the order of the scores; general ones first, from where the ratings end."""

    names: tuple[str, ...]
    first_general: int
    first_character: int


@dataclass(frozen=True)
class Tagger:
    """A loaded network. ``side_px``: of the square that it sees."""

    network: OnnxNetwork
    side_px: int
    tags: TagList

    def describe(self, picture: Picture) -> str:
        """The tags that are likely enough, characters first, with commas between."""
        square = fitted_on_white(picture, self.side_px)
        seen = np.ascontiguousarray(square[None, :, :, ::-1], dtype=np.float32)
        return ", ".join(written(name) for name in likely(self.network(seen)[0], self.tags))


def likely(scores: NDArray[np.float32], tags: TagList) -> list[str]:
    """The names whose score, ``[tags]``, is above their kind's threshold."""
    scored = list(zip(tags.names, scores.tolist(), strict=True))
    general, characters = scored[tags.first_general : tags.first_character], scored[tags.first_character :]
    return [
        *(name for name, score in characters if score > CHARACTER_ABOVE),
        *(name for name, score in general if score > GENERAL_ABOVE),
    ]


def written(name: str) -> str:
    """A tag as prompts spell it: with blanks, and with parentheses that do not mean emphasis."""
    return name.replace("(", "\\(").replace(")", "\\)").replace("_", " ")


def fitted_on_white(picture: Picture, side_px: int) -> Picture:
    """The whole picture, its longer side as long as the square's, in the middle of white."""
    height, width = picture.shape[:2]
    share = side_px / max(height, width)
    height, width = max(1, int(height * share)), max(1, int(width * share))
    square = np.full((side_px, side_px, 3), WHITE, np.uint8)
    top, left = (side_px - height) // 2, (side_px - width) // 2
    square[top : top + height, left : left + width] = lanczos(picture, width, height)
    return square


def load_tagger(network_path: Path, tags_path: Path) -> Tagger:
    """The network and its list. Raises ``UnreadableModel``, and ``UnsupportedModel`` where they do not fit."""
    network = OnnxNetwork(network_path)
    match network.input_lengths:
        case (_, int(height), int(width), 3) if height == width:
            tags = _read_tags(tags_path)
        case _:
            raise UnsupportedModel(network.name, "not a tagger: its input is no square of three colours")
    if network.output_lengths[1:] != (len(tags.names),):
        reason = f"{len(tags.names)} tags do not fit the network, whose scores are {network.output_lengths[1:]}"
        raise UnsupportedModel(tags_path.name, reason)
    return Tagger(network, height, tags)


def _read_tags(path: Path) -> TagList:
    """The columns are number, name, category and count, below a line of titles."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row[1], row[2]) for row in list(csv.reader(file))[1:] if row]
    except (OSError, UnicodeDecodeError, csv.Error, IndexError) as error:
        raise UnreadableModel(path.name, "not a list of tags with their categories") from error
    categories = [category for _, category in rows]
    first_general = categories.index(GENERAL) if GENERAL in categories else len(rows)
    first_character = categories.index(CHARACTER) if CHARACTER in categories else len(rows)
    return TagList(tuple(name for name, _ in rows), first_general, first_character)
