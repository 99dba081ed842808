"""A CLIP-style byte-level BPE vocabulary learnt from the captions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

TOKENS: Final = 77
WORDS: Final = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def _bpe(vocabulary: dict[str, int] | None, merges: list[tuple[str, str]] | None) -> Tokenizer:
    model: Any = models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="</w>")
    bpe = Tokenizer(model)
    bpe.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    bpe.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return bpe


@dataclass(frozen=True)
class Vocabulary:
    """Token table and merge list; the last two entries are the begin and end markers."""

    vocab: dict[str, int]
    merges: list[str]

    @classmethod
    def learn(cls, texts: Iterable[str], size: int) -> Vocabulary:
        """Learns at most ``size`` tokens: every byte with and without word end, merges, two markers."""
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        bpe = _bpe(None, None)
        trainer = trainers.BpeTrainer(
            vocab_size=size - len(alphabet) - 2,
            initial_alphabet=alphabet,
            end_of_word_suffix="</w>",
            show_progress=False,
        )
        bpe.train_from_iterator(texts, trainer)
        learnt = json.loads(bpe.to_str())["model"]
        vocab: dict[str, int] = dict(learnt["vocab"])
        for letter in alphabet:
            vocab.setdefault(letter + "</w>", len(vocab))
        vocab["<|startoftext|>"] = len(vocab)
        vocab["<|endoftext|>"] = len(vocab)
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in learnt["merges"]]
        return cls(vocab, merges)

    @property
    def size(self) -> int:
        return len(self.vocab)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"vocab": self.vocab, "merges": self.merges}))

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        return cls(**json.loads(path.read_text()))


class Encoder:
    """Turns captions into the two padded id tables: the first padded with the end marker, the second with 0."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._bpe = _bpe(vocabulary.vocab, [tuple(m.split(" ")) for m in vocabulary.merges])  # type: ignore[misc]
        self._begin, self._end = vocabulary.size - 2, vocabulary.size - 1

    def __call__(self, captions: list[str], device: str = "cpu") -> tuple[Tensor, Tensor]:
        """Token ids for both text encoders, each [n, 77]."""
        first = torch.full((len(captions), TOKENS), self._end)
        second = torch.zeros((len(captions), TOKENS), dtype=torch.long)
        for row, encoding in enumerate(self._bpe.encode_batch(captions)):
            ids = torch.tensor([self._begin, *encoding.ids[: TOKENS - 2], self._end])
            first[row, : len(ids)] = ids
            second[row, : len(ids)] = ids
        return first.to(device), second.to(device)
