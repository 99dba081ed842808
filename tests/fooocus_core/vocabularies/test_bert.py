"""BERT's tokenizer gives the numbers that its networks were trained with."""

from __future__ import annotations

import hashlib

import pytest
from transformers import BertTokenizer

from fooocus_core.prompts.expansion import tidy_english
from fooocus_core.vocabularies import BERT_VOCABULARY, bert_tokenizer

PUBLISHED = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


def test_the_vocabulary_is_the_published_one() -> None:
    assert hashlib.sha256(BERT_VOCABULARY.read_bytes()).hexdigest() == PUBLISHED


def test_known_numbers() -> None:
    assert bert_tokenizer().encode("a picture of ").ids == [101, 1037, 3861, 1997, 102]


@pytest.mark.parametrize(
    "text", ["Two CATS, one dog.", "don't", "café naïve", "日本 x", "unbelievableness!", "", "😀 cat"]
)
def test_the_numbers_are_those_of_transformers(text: str) -> None:
    assert bert_tokenizer().encode(text).ids == BertTokenizer(vocab=str(BERT_VOCABULARY))(text)["input_ids"]


def test_decoded_text_reads_like_english() -> None:
    tokenizer = bert_tokenizer()
    decoded = tokenizer.decode(tokenizer.encode("The man's unbelievable hat, and a dog.").ids)
    assert decoded == "the man ' s unbelievable hat , and a dog ."
    assert tidy_english(decoded) == "the man's unbelievable hat, and a dog."
