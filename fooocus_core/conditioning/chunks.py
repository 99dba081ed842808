"""Words to chunks of 77 tokens, each token with its weight (specification 02, section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fooocus_core.conditioning.emphasis import weighted_segments
from fooocus_core.conditioning.tokenizer import ClipTokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from fooocus_core.conditioning.inversion import EmbeddingFiles

CHUNK_TOKENS = 77
LARGE_GROUP = 8
"""A word of so many tokens or more is split across chunks instead of being moved to the next one."""
EMBEDDING_WORD = "embedding:"


@dataclass(frozen=True)
class Group:
    """The tokens of one word, all of one weight: ids, or vectors (``[width]``) that stand in an id's place."""

    tokens: Sequence[int | Tensor]
    weight: float


@dataclass(frozen=True)
class Chunk:
    """77 tokens with their weights; marks and padding weigh 1."""

    tokens: tuple[int | Tensor, ...]
    weights: tuple[float, ...]

    @property
    def weighted(self) -> bool:
        return any(weight != 1.0 for weight in self.weights)


@dataclass(frozen=True)
class Marks:
    """The ids an encoder wants around a text: CLIP-L pads with the end mark, bigG with 0."""

    start: int
    end: int
    pad: int


def prompt_chunks(
    prompt: str,
    tokenizer: ClipTokenizer,
    pad: int,
    *,
    embeddings: EmbeddingFiles | None = None,
    encoder: str = "",
    width: int = 0,
) -> list[Chunk]:
    """A prompt's chunks for one encoder. Without ``embeddings`` an ``embedding:`` word is plain text.

    ``encoder`` (``clip_l`` or ``clip_g``) and ``width`` pick the vectors out of an embedding file (section 5).
    """
    marks = Marks(tokenizer.start_id, tokenizer.end_id, pad)
    groups: list[Group] = []
    for word, weight in _weighted_words(prompt):
        if embeddings is not None and word.startswith(EMBEDDING_WORD):
            vectors, word = embeddings.vectors(word.removeprefix(EMBEDDING_WORD), encoder, width)
            groups.append(Group(vectors, weight))
        if word:
            groups.append(Group(tokenizer.ids([word])[0], weight))
    return packed(groups, marks)


def empty_chunk(marks: Marks) -> Chunk:
    """The chunk of an empty text."""
    return packed([], marks)[0]


def _weighted_words(prompt: str) -> Iterator[tuple[str, float]]:
    for segment in weighted_segments(prompt):
        for word in segment.text.replace("\n", " ").split(" "):
            if word:
                yield word, segment.weight


def packed(groups: Iterable[Group], marks: Marks) -> list[Chunk]:
    """Fill chunks with whole groups; only a large group is ever cut."""
    packer = _Packer(marks)
    for group in groups:
        packer.add(group)
    return packer.finished()


class _Packer:
    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._chunks: list[Chunk] = []
        self._begin()

    def _begin(self) -> None:
        self._tokens: list[int | Tensor] = [self._marks.start]
        self._weights: list[float] = [1.0]

    def _append(self, tokens: Sequence[int | Tensor], weight: float) -> None:
        self._tokens.extend(tokens)
        self._weights.extend([weight] * len(tokens))

    def _end(self) -> None:
        """Close the chunk: the end mark, then padding."""
        self._append([self._marks.end], 1.0)
        self._append([self._marks.pad] * (CHUNK_TOKENS - len(self._tokens)), 1.0)
        self._chunks.append(Chunk(tuple(self._tokens), tuple(self._weights)))

    def add(self, group: Group) -> None:
        rest = list(group.tokens)
        while rest:
            room = CHUNK_TOKENS - 1 - len(self._tokens)
            if len(rest) <= room:
                self._append(rest, group.weight)
                return
            if len(group.tokens) >= LARGE_GROUP:
                self._append(rest[:room], group.weight)
                del rest[:room]
            self._end()
            self._begin()

    def finished(self) -> list[Chunk]:
        self._end()
        return self._chunks
