"""A ``fooocus_expansion`` folder in miniature: the real file names and key layout, a tiny GPT-2 with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

WORDS = [first + vowel + last for first in "bdfgklm" for vowel in "aeiou" for last in "nrst"]
"""140 of them: more than are drawn from at once."""
POSITIONS = 160


def write_expansion_folder(folder: Path) -> Path:
    """All files of the folder, as the original program has them."""
    folder.mkdir(parents=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    model = json.loads(tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text('{"eos_token": "<|endoftext|>"}', encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        '{"add_prefix_space": false, "model_max_length": 1024, "tokenizer_class": "GPT2Tokenizer"}', encoding="utf-8"
    )
    size = tokenizer.get_vocab_size()
    config = GPT2Config(
        vocab_size=size,
        n_positions=POSITIONS,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_inner=64,
        bos_token_id=size - 1,
        eos_token_id=size - 1,
    )
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    (folder / "positive.txt").write_text("\n".join([*(word.title() for word in WORDS), "", "nowhere"]))
    torch.save(_weights(config), folder / "pytorch_model.bin")
    return folder


def _tokenizer() -> Tokenizer:
    """Byte-level BPE that knows every word with a blank before it; as in GPT-2, token 11 is the comma."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([f" {word}" for word in WORDS], trainer)
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>")])
    return tokenizer


def _weights(config: GPT2Config) -> dict[str, torch.Tensor]:
    """Half precision, with the head of its own and the mask buffers that the original file holds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = GPT2LMHeadModel(config)
        weights = {key: (tensor * 8).half() for key, tensor in network.state_dict().items()}
    for layer in range(config.n_layer):
        weights[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, POSITIONS, POSITIONS).tril().half()
        weights[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4).half()
    return weights
