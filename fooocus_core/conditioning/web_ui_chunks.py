"""Prompts of the web UI's kind to chunks of 75 tokens between their marks (TAMS contract, section 13.4)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fooocus_core.conditioning.chunks import CHUNK_TOKENS, Chunk, Marks
from fooocus_core.conditioning.tokenizer import ClipTokenizer
from fooocus_core.conditioning.web_ui_emphasis import web_ui_sections

if TYPE_CHECKING:
    from torch import Tensor

    from fooocus_core.conditioning.inversion import EmbeddingFiles

ROOM = CHUNK_TOKENS - 2
COMMA_REACH = 20
"""A chunk that is full is cut behind its last comma, if that is no more tokens back."""

Embeddings = Mapping[str, Sequence["Tensor"]]
"""Trained vectors by the names, in lower case, that stand for them in the text."""


def web_ui_chunks(prompt: str, tokenizer: ClipTokenizer, pad: int, embeddings: Embeddings) -> list[Chunk]:
    """A prompt's chunks for one encoder; at least one. Names of ``embeddings`` are replaced by their vectors."""
    [comma] = tokenizer.ids([","])
    packer = _Packer(Marks(tokenizer.start_id, tokenizer.end_id, pad), comma[0] if len(comma) == 1 else None)
    for number, section in enumerate(web_ui_sections(prompt)):
        if number:
            packer.end_chunk()
        for segment in section:
            for piece in _pieces(segment.text, embeddings):
                if isinstance(piece, str):
                    packer.add_words(tokenizer.ids([piece])[0], segment.weight)
                else:
                    packer.add_vectors(piece, segment.weight)
    return packer.finished()


def named_embeddings(prompt: str, files: EmbeddingFiles, widths: Mapping[str, int]) -> dict[str, Embeddings]:
    """Of every encoder (its name and width in ``widths``) the vectors of those embeddings that the text names and that
    are made for all encoders: one that is made for another model leaves its name a word like others.
    """
    found: dict[str, dict[str, Sequence[Tensor]]] = {encoder: {} for encoder in widths}
    for name in files.names():
        if not _named(name).search(prompt):
            continue
        vectors = {encoder: files.vectors(name, encoder, width)[0] for encoder, width in widths.items()}
        if all(each and each[0].shape == (widths[encoder],) for encoder, each in vectors.items()):
            for encoder, each in vectors.items():
                found[encoder][name.lower()] = each
    return dict(found)


def _named(*names: str) -> re.Pattern[str]:
    """Whole words that are one of the names; the longest counts."""
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)


def _pieces(text: str, embeddings: Embeddings) -> Iterator[str | Sequence[Tensor]]:
    """The text with the vectors in place of the names."""
    if not embeddings:
        yield text
        return
    for number, piece in enumerate(_named(*embeddings).split(text)):
        yield embeddings[piece.lower()] if number % 2 else piece


class _Packer:
    def __init__(self, marks: Marks, comma: int | None) -> None:
        self._marks = marks
        self._comma = comma
        self._chunks: list[Chunk] = []
        self._begin([], [])

    def _begin(self, tokens: Sequence[int | Tensor], weights: Sequence[float]) -> None:
        self._tokens, self._weights, self._behind_comma = [*tokens], [*weights], 0

    def add_words(self, tokens: Sequence[int], weight: float) -> None:
        for token in tokens:
            if len(self._tokens) == ROOM:
                # A comma that would open the next chunk stays alone there: nothing belongs to it.
                self._make_room(at_comma=token != self._comma)
            self._tokens.append(token)
            self._weights.append(weight)
            if token == self._comma:
                self._behind_comma = len(self._tokens)

    def add_vectors(self, vectors: Sequence[Tensor], weight: float) -> None:
        """They stay together, unless they fill more than a chunk."""
        if len(self._tokens) + len(vectors) > ROOM and self._tokens:
            self.end_chunk()
        for vector in vectors:
            if len(self._tokens) == ROOM:
                self.end_chunk()
            self._tokens.append(vector)
            self._weights.append(weight)

    def _make_room(self, *, at_comma: bool) -> None:
        cut = self._behind_comma
        if not at_comma or cut == 0 or ROOM - cut >= COMMA_REACH:
            self.end_chunk()
            return
        rest = self._tokens[cut:], self._weights[cut:]
        del self._tokens[cut:], self._weights[cut:]
        self.end_chunk()
        self._begin(*rest)

    def end_chunk(self) -> None:
        """The start mark, what there is, the end mark, padding."""
        marks, missing = self._marks, ROOM - len(self._tokens)
        tokens = (marks.start, *self._tokens, marks.end, *[marks.pad] * missing)
        weights = (1.0, *self._weights, 1.0, *[1.0] * missing)
        self._chunks.append(Chunk(tokens, weights))
        self._begin([], [])

    def finished(self) -> list[Chunk]:
        if self._tokens or not self._chunks:
            self.end_chunk()
        return self._chunks
