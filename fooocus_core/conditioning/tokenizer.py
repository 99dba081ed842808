"""CLIP's byte-pair tokenizer: word by word, from the packaged vocabulary or from a checkpoint's own.

Specification: 02, section 1. The word rules below give the ids of the older pure-Python tokenizer that Fooocus ran.
"""

from __future__ import annotations

import gzip
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources

from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from tokenizers.models import BPE

START_TEXT = "<|startoftext|>"
END_TEXT = "<|endoftext|>"
WORD_END = "</w>"

_PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class ClipTokenizer:
    """Turns single words into token ids. ``start_id`` and ``end_id`` are the last two ids of the vocabulary."""

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> None:
        """Raises ``ValueError`` if a merge names a token that the vocabulary lacks, or the vocabulary is too small."""
        size = max(vocabulary.values(), default=-1) + 1
        if size < 2:
            raise ValueError("a vocabulary needs at least its two marks")
        self.start_id = size - 2
        self.end_id = size - 1
        self._tokenizer = _byte_pair_tokenizer(vocabulary, merges)

    def ids(self, words: Iterable[str]) -> list[list[int]]:
        """The ids of each word. A word without a known character has none."""
        return [self._tokenizer.encode(normalised(word), add_special_tokens=False).ids for word in words]


def stock_tokenizer() -> ClipTokenizer:
    """The tokenizer of every public SDXL checkpoint."""
    return ClipTokenizer(*stock_vocabulary())


def stock_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Its 49,408 tokens and, best first, its merges: built from the packaged merges."""
    packed = resources.files("fooocus_core.conditioning").joinpath("data/clip_merges.txt.gz").read_bytes()
    merges = [_pair(line) for line in gzip.decompress(packed).decode("utf-8").split("\n")]
    alphabet = byte_alphabet()
    tokens = [*alphabet, *(c + WORD_END for c in alphabet), *(a + b for a, b in merges), START_TEXT, END_TEXT]
    return {token: index for index, token in enumerate(tokens)}, merges


def tokenizer_from(vocabulary: Mapping[str, int], merges: Iterable[str | Sequence[str]]) -> ClipTokenizer:
    """A checkpoint's own tokenizer: ``merges`` best first, each ``"left right"`` or a pair. Raises ``ValueError``."""
    return ClipTokenizer(vocabulary, [_pair(merge) for merge in merges])


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _byte_pair_tokenizer(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> Tokenizer:
    try:
        model = BPE(vocab=dict(vocabulary), merges=list(merges), end_of_word_suffix=WORD_END)
    except Exception as error:  # the library raises bare exceptions
        raise ValueError(f"not a byte-pair vocabulary: {error}") from error
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    marks = [AddedToken(mark, normalized=False) for mark in (START_TEXT, END_TEXT) if mark in vocabulary]
    tokenizer.add_special_tokens(marks)
    return tokenizer


def byte_alphabet() -> list[str]:
    """One printable character for each byte, in vocabulary order: the printable bytes first, stand-ins for the rest."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def normalised(word: str) -> str:
    """A word as the tokenizer must see it: control characters out, ideographs apart, NFC, lower case."""
    spaced = "".join(_spaced(character) for character in word)
    return " ".join(part.lower() for part in unicodedata.normalize("NFC", spaced).split())


def _spaced(character: str) -> str:
    if character in "\t\n\r":
        return " "
    category = unicodedata.category(character)
    if category == "Zs":
        return " "
    if category[0] == "C" or character == "\ufffd":
        return ""
    return f" {character} " if _is_ideograph(ord(character)) else character


def _is_ideograph(code_point: int) -> bool:
    return any(first <= code_point <= last for first, last in _IDEOGRAPHS)
