"""Texts to what the denoising network reads: token context and pooled vector (specification 02, section 4)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fooocus_core.conditioning.chunks import CHUNK_TOKENS, Chunk, Marks, empty_chunk, prompt_chunks
from fooocus_core.conditioning.inversion import EmbeddingFiles
from fooocus_core.conditioning.tokenizer import ClipTokenizer
from fooocus_core.conditioning.web_ui_chunks import Embeddings, named_embeddings, web_ui_chunks
from fooocus_core.models.recent import Recent
from fooocus_core.models.text_encoders import ClipTextEncoder

PAD_G = 0
ROWS_AT_ONCE = 16
"""Chunks run together: bounds the memory of a very long prompt."""
KEPT_BYTES = 32 * 2**20
"""Of hidden states that are kept of one encoder: eighty chunks of SDXL's larger one, more than a job of many styles and
pictures has, and little beside the weights. They lie where the encoder is."""


@dataclass(frozen=True)
class EncodedText:
    """``context``: ``[1, 77 m, width of L + width of G]``; ``pooled``: ``[1, projection width of G]``; both float32."""

    context: Tensor
    pooled: Tensor


class EncodedRows:
    """What encoders made of rows of tokens lately: the same rows are not encoded twice by the same weights.

    Kept are the hidden states before emphasis, under the tokens themselves: the words' weights, and how an embedding's
    file was called, do not matter. Rows count together, as one result: alone they could differ in the last bit.
    """

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        """``most_bytes``: of one encoder."""
        self._most_bytes = most_bytes
        self._kept: dict[ClipTextEncoder, tuple[int, Recent[Hashable, tuple[Tensor, Tensor]]]] = {}

    def of(
        self, encoder: ClipTextEncoder, rows: Sequence[Chunk], clip_skip: int, marks: Marks
    ) -> tuple[Tensor, Tensor]:
        """Hidden states ``[rows, 77, width]``, which stay the keeper's and must not be changed, and the first row's
        pooled vector ``[1, n]``, a copy (empty for an encoder without).
        """
        key = (encoder.device, clip_skip, marks, tuple(_content(chunk) for chunk in rows))
        hidden, pooled = self._kept_of(encoder).get_or(key, lambda: _run(encoder, rows, clip_skip, marks))
        return hidden, pooled.clone()

    def _kept_of(self, encoder: ClipTextEncoder) -> Recent[Hashable, tuple[Tensor, Tensor]]:
        """Nothing, where the weights are others than those that encoded it."""
        version, kept = self._kept.get(encoder, (None, None))
        if kept is None or version != encoder.weights_version:
            kept = Recent(self._most_bytes, _bytes_of)
            self._kept[encoder] = encoder.weights_version, kept
        return kept


def _bytes_of(encoded: tuple[Tensor, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in encoded)


def _content(chunk: Chunk) -> tuple[int | bytes, ...]:
    """What an encoder reads of a chunk; trained vectors by their values."""
    return tuple(token if isinstance(token, int) else token.numpy().tobytes() for token in chunk.tokens)


@dataclass(frozen=True)
class TextEncoders:
    """SDXL's pair of encoders and the tokenizer they share. Every text goes through ``kept``."""

    l: ClipTextEncoder  # noqa: E741 - the encoder's name in the specification
    g: ClipTextEncoder
    tokenizer: ClipTokenizer
    kept: EncodedRows = field(default_factory=EncodedRows)

    def encode_web_ui(self, text: str, clip_skip: int, embeddings: EmbeddingFiles | None = None) -> EncodedText:
        """One text as the web UI reads it (TAMS contract, section 13.4); ``clip_skip`` as in ``encode``."""
        widths = {"clip_l": self.l.width, "clip_g": self.g.width}
        named = named_embeddings(text, embeddings, widths) if embeddings is not None else {key: {} for key in widths}
        context_l, _ = self._chunked(self.l, self.tokenizer.end_id, text, clip_skip, named["clip_l"])
        context_g, pooled = self._chunked(self.g, PAD_G, text, clip_skip, named["clip_g"])
        length = min(context_l.shape[1], context_g.shape[1])
        return EncodedText(torch.cat([context_l[:, :length], context_g[:, :length]], dim=-1), pooled)

    def _chunked(
        self, encoder: ClipTextEncoder, pad: int, text: str, clip_skip: int, embeddings: Embeddings
    ) -> tuple[Tensor, Tensor]:
        chunks = web_ui_chunks(text, self.tokenizer, pad, embeddings)
        marks = Marks(self.tokenizer.start_id, self.tokenizer.end_id, pad)
        hidden, pooled = self.kept.of(encoder, chunks, clip_skip, marks)
        weights = torch.tensor([chunk.weights for chunk in chunks], device=hidden.device)
        return _multiplied(hidden, weights).reshape(1, -1, encoder.width), pooled

    def of_one_length(self, texts: Sequence[EncodedText], clip_skip: int) -> list[EncodedText]:
        """The same with empty chunks behind the shorter ones."""
        longest = max(text.context.shape[1] for text in texts)
        if all(text.context.shape[1] == longest for text in texts):
            return list(texts)
        empty = self.encode("", clip_skip).context
        return [_lengthened(text, longest, empty) for text in texts]

    def encode(self, text: str, clip_skip: int, embeddings: EmbeddingFiles | None = None) -> EncodedText:
        """One text. ``clip_skip`` 1 ... 12 counts layers from the end, 2 being SDXL's custom.

        Should the encoders' chunk counts differ (vectors of an embedding can), the longer context is cut.
        """
        context_l, _ = self._with(self.l, "clip_l", self.tokenizer.end_id, text, clip_skip, embeddings)
        context_g, pooled = self._with(self.g, "clip_g", PAD_G, text, clip_skip, embeddings)
        length = min(context_l.shape[1], context_g.shape[1])
        return EncodedText(torch.cat([context_l[:, :length], context_g[:, :length]], dim=-1), pooled)

    def encode_all(
        self, texts: Sequence[str], pool_top_k: int, clip_skip: int, embeddings: EmbeddingFiles | None = None
    ) -> EncodedText:
        """Several texts, each encoded alone: contexts in a row, pooled vectors of the first ``pool_top_k`` summed.

        Raises ``ValueError`` for no texts or ``pool_top_k`` below 1 (specification 01, section 8).
        """
        if not texts or pool_top_k < 1:
            raise ValueError("at least one text must be encoded and pooled")
        return joined([self.encode(text, clip_skip, embeddings) for text in texts], pool_top_k)

    def _with(
        self,
        encoder: ClipTextEncoder,
        name: str,
        pad: int,
        text: str,
        clip_skip: int,
        embeddings: EmbeddingFiles | None,
    ) -> tuple[Tensor, Tensor]:
        """Context ``[1, 77 m, width]`` and the first chunk's pooled vector ``[1, n]``."""
        marks = Marks(self.tokenizer.start_id, self.tokenizer.end_id, pad)
        chunks = prompt_chunks(text, self.tokenizer, pad, embeddings=embeddings, encoder=name, width=encoder.width)
        weighted = any(chunk.weighted for chunk in chunks)
        rows = [*chunks, empty_chunk(marks)] if weighted else chunks
        hidden, pooled = self.kept.of(encoder, rows, clip_skip, marks)
        if weighted:
            weights = torch.tensor([chunk.weights for chunk in chunks], device=hidden.device)
            hidden = _emphasised(hidden[:-1], hidden[-1], weights)
        return hidden.reshape(1, -1, encoder.width), pooled


def joined(encoded: Sequence[EncodedText], pool_top_k: int) -> EncodedText:
    """Contexts concatenated along tokens, the first ``pool_top_k`` pooled vectors summed (not averaged)."""
    context = torch.cat([text.context for text in encoded], dim=1)
    return EncodedText(context, torch.stack([text.pooled for text in encoded[:pool_top_k]]).sum(0))


def _lengthened(text: EncodedText, length: int, empty: Tensor) -> EncodedText:
    chunks = (length - text.context.shape[1]) // empty.shape[1]
    return EncodedText(torch.cat([text.context, *[empty] * chunks], dim=1), text.pooled)


def _run(encoder: ClipTextEncoder, rows: Sequence[Chunk], clip_skip: int, marks: Marks) -> tuple[Tensor, Tensor]:
    hidden: list[Tensor] = []
    pooled: list[Tensor] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        batch = [_embedded(encoder, chunk, marks) for chunk in rows[start : start + ROWS_AT_ONCE]]
        ends = torch.tensor([end for _, end in batch])
        encoded = encoder.encode(torch.stack([vectors for vectors, _ in batch]), ends, clip_skip)
        hidden.append(encoded.hidden)
        if encoded.pooled is not None:
            pooled.append(encoded.pooled[:1])
    first = pooled[0] if pooled else torch.empty(1, 0)
    return torch.cat(hidden), first


def _embedded(encoder: ClipTextEncoder, chunk: Chunk, marks: Marks) -> tuple[Tensor, int]:
    """A chunk's token vectors ``[77, width]`` and the place of its first end mark.

    A vector made for another width is left out, and the chunk padded at its end instead.
    """
    fitting = [token for token in chunk.tokens if isinstance(token, int) or token.shape == (encoder.width,)]
    fitting += [marks.pad] * (CHUNK_TOKENS - len(fitting))
    vectors = encoder.embed(torch.tensor([token if isinstance(token, int) else 0 for token in fitting]))
    for place, token in enumerate(fitting):
        if not isinstance(token, int):
            vectors[place] = token.to(vectors)
    return vectors, next(place for place, token in enumerate(fitting) if isinstance(token, int) and token == marks.end)


def _emphasised(hidden: Tensor, empty: Tensor, weights: Tensor) -> Tensor:
    """Move weighted tokens away from the empty prompt's, then restore each chunk's mean.

    ``hidden``: ``[chunks, 77, width]``; ``empty``: ``[77, width]``; ``weights``: ``[chunks, 77]``. The mean is
    restored in every chunk of the text, those without weights too (Fooocus's change).
    """
    before = hidden.mean(dim=(1, 2), keepdim=True)
    moved = empty + (hidden - empty) * weights[:, :, None]
    moved = torch.where(weights[:, :, None] == 1.0, hidden, moved)
    return moved * (before / moved.mean(dim=(1, 2), keepdim=True))


def _multiplied(hidden: Tensor, weights: Tensor) -> Tensor:
    """Tokens times their weights, after which each chunk's mean is restored, as the web UI does.

    ``hidden``: ``[chunks, 77, width]``; ``weights``: ``[chunks, 77]``. Chunks without weights stay to the last bit.
    """
    moved = hidden * weights[:, :, None]
    restored = moved * (hidden.mean(dim=(1, 2), keepdim=True) / moved.mean(dim=(1, 2), keepdim=True))
    is_plain = (weights == 1.0).all(dim=1)[:, None, None]
    return torch.where(is_plain, hidden, restored)
