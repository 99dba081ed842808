"""The prompt expansion beside transformers' own sampling, and every way its folder can be incomplete or broken."""

from __future__ import annotations

import logging
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel, LogitsProcessor, LogitsProcessorList
from transformers.models.gpt2 import GPT2Tokenizer

from fooocus_core.errors import ModelError
from fooocus_core.models import residence
from fooocus_core.prompts.expansion import PromptExpansion, tidy_english
from tests.fooocus_core.prompts.expansion_folder import POSITIONS, WORDS, write_expansion_folder

BLOCKED = -8192.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_expansion_folder(tmp_path_factory.mktemp("models") / "fooocus_expansion")


@pytest.fixture(scope="module")
def expansion(folder: Path) -> PromptExpansion:
    return PromptExpansion(folder)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A whole folder of the test's own."""
    return write_expansion_folder(tmp_path / "fooocus_expansion")


class WordsOnce(LogitsProcessor):
    """Section 7's bias, written down once more from the specification."""

    def __init__(self, tokenizer: GPT2Tokenizer) -> None:
        admitted = {"Ġ" + word for word in WORDS}
        self.bias = torch.tensor(
            [0.0 if token in admitted else BLOCKED for token, _ in sorted(tokenizer.get_vocab().items(), key=_id_of)]
        )

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        bias = self.bias.clone()
        bias[input_ids[0]] = BLOCKED
        bias[11] = 0
        return scores + bias


def _id_of(entry: tuple[str, int]) -> int:
    return entry[1]


def sampled_by_the_library(folder: Path, prompt: str, seed: int) -> str:
    """The same draw by transformers' own loop, from the process-wide generator as in the reference."""
    tokenizer = GPT2Tokenizer.from_pretrained(str(folder))
    network = GPT2LMHeadModel.from_pretrained(str(folder), dtype=torch.float32)
    ids = tokenizer(prompt + ",", return_tensors="pt").input_ids
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**32)
        output = network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=100,
            min_new_tokens=0,
            max_new_tokens=-ids.shape[1] % 75,
            logits_processor=LogitsProcessorList([WordsOnce(tokenizer)]),
        )
    return str(tokenizer.decode(output[0], skip_special_tokens=True, clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 7, 2**63 - 1])
def test_the_library_s_own_sampling_draws_the_same(folder: Path, expansion: PromptExpansion, seed: int) -> None:
    expected = sampled_by_the_library(folder, "a ban, the den", seed)
    assert expansion("a ban, the den", seed) == tidy_english(expected).strip(",. \r\n")


def test_seeds_count_modulo_two_to_the_32(expansion: PromptExpansion) -> None:
    assert expansion("a ban", 7) == expansion("a ban", 2**32 + 7) != expansion("a ban", 8)


def test_what_is_written(expansion: PromptExpansion) -> None:
    expanded = expansion("  a ban.. ", 5) or ""
    assert expanded.startswith("a ban,")
    words = [word.strip() for part in expanded.split(",")[1:] for word in part.split()]
    assert set(words) <= set(WORDS) - {"ban"}, "only words of the list, and none that the prompt has"
    assert len(words) == len(set(words)) > 10, "each once"


def test_the_global_generators_are_left_alone(expansion: PromptExpansion) -> None:
    before = torch.get_rng_state(), random.getstate()
    expansion("a ban", 5)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_a_prompt_that_fills_its_block_or_the_network_stays_alone(folder: Path, expansion: PromptExpansion) -> None:
    tokenizer = GPT2Tokenizer.from_pretrained(str(folder))
    whole = "ban" + " den" * (75 - len(tokenizer.encode("ban,")))
    assert expansion(whole + ".", 1) == whole
    assert (expansion(whole + " den", 1) or "").startswith(whole + " den,")
    endless = "ban" + " den" * POSITIONS
    assert expansion(endless, 1) == endless


def test_an_empty_prompt_has_no_expansion(expansion: PromptExpansion) -> None:
    assert expansion("", 1) == ""


def test_detokenisation() -> None:
    assert tidy_english("it 's , we 've ! do n't ? I 'm . they 're a ' b") == "it's, we've! don't? I'm. they're a'b"


def test_no_weights_is_no_expansion_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for absent in (tmp_path / "gone", tmp_path):
        expansion = PromptExpansion(absent)
        with caplog.at_level(logging.WARNING):
            assert [expansion("a ban", 1), expansion("a ban", 2)] == [None, None]
    assert [record.message for record in caplog.records] == [
        f"prompt expansion skipped: no pytorch_model.bin in the folder {name}" for name in ("gone", tmp_path.name)
    ]


def test_nothing_is_asked_of_the_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert PromptExpansion(folder)("a ban", 1)


@pytest.mark.parametrize("gone", ["config.json", "positive.txt"])
def test_a_missing_file_is_named(broken: Path, gone: str) -> None:
    (broken / gone).unlink()
    with pytest.raises(ModelError, match="missing from the folder fooocus_expansion") as caught:
        PromptExpansion(broken)("a ban", 1)
    assert caught.value.name == gone


def test_either_form_of_the_tokenizer_is_enough(broken: Path, expansion: PromptExpansion) -> None:
    for gone in ("merges.txt", "vocab.json"):
        (broken / gone).unlink()
    assert PromptExpansion(broken)("a ban", 1) == expansion("a ban", 1)
    (broken / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json: missing"):
        PromptExpansion(broken)("a ban", 1)


@pytest.mark.parametrize("name", ["config.json", "positive.txt", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[1]", b"PK\x03\x04", b'{"n_embd": "wide"}'])
def test_a_broken_file_is_named(broken: Path, name: str, content: bytes) -> None:
    (broken / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        PromptExpansion(broken)("a ban", 1)
    assert caught.value.name == name


def test_a_truncated_file_is_named(broken: Path) -> None:
    for gone in ("merges.txt", "vocab.json"):
        (broken / gone).unlink()
    for name in ("tokenizer.json", "pytorch_model.bin"):
        content = (broken / name).read_bytes()
        (broken / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ModelError) as caught:
            PromptExpansion(broken)("a ban", 1)
        assert caught.value.name == name


def test_weights_that_are_not_these(broken: Path) -> None:
    weights = torch.load(broken / "pytorch_model.bin", weights_only=True)
    torch.save({**weights, "transformer.ln_f.bias": torch.full((32,), torch.nan)}, broken / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: .*not numbers"):
        PromptExpansion(broken)("a ban", 1)
    weights.pop("transformer.wpe.weight")
    torch.save(weights, broken / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: .*wpe\.weight is missing"):
        PromptExpansion(broken)("a ban", 1)


def test_a_repaired_folder_works_without_a_restart(broken: Path, expansion: PromptExpansion) -> None:
    other = PromptExpansion(broken)
    words = (broken / "positive.txt").read_bytes()
    (broken / "positive.txt").unlink()
    with pytest.raises(ModelError):
        other("a ban", 1)
    (broken / "positive.txt").write_bytes(words)
    assert other("a ban", 1) == expansion("a ban", 1)
    other.unload()
    assert other("a ban", 1) == expansion("a ban", 1)


def test_a_network_that_does_not_stay_is_brought_for_every_prompt(
    folder: Path, expansion: PromptExpansion, monkeypatch: pytest.MonkeyPatch
) -> None:
    visits: list[str] = []

    @contextmanager
    def noting(network: torch.nn.Module, device: torch.device) -> Iterator[None]:
        visits.append(device.type)
        yield

    monkeypatch.setattr(residence, "at_work", noting)
    visiting = PromptExpansion(folder, stays=False)
    assert [visiting("a ban", seed) for seed in (1, 2)] == [expansion("a ban", seed) for seed in (1, 2)]
    assert visits == ["cpu"] * 4, "the one that stays is there already, and asks as well"
