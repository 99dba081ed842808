"""Vocabularies that several networks read, so that nothing is looked up online."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BERT_VOCABULARY: Final = Path(__file__).parent / "bert_base_uncased.txt"
"""One word piece a line; the line's number, from 0, is the piece's."""


def bert_tokenizer() -> Tokenizer:
    """BERT's tokenizer for texts in any case: ``[CLS]`` before and ``[SEP]`` behind what is encoded.

    Decoded text has blanks around every mark; ``fooocus_core.prompts.expansion.tidy_english`` takes them out.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces = BERT_VOCABULARY.read_text(encoding="utf-8").splitlines()
    numbers = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", numbers["[SEP]"]), ("[CLS]", numbers["[CLS]"]))
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return tokenizer
