"""The prompt expansion behind the style "Fooocus V2" (specification 01, section 7).

GPT-2 writes words of a fixed list behind a prompt until it fills a multiple of 75 tokens. Weights, tokenizer and word
list are the user's ``fooocus_expansion`` folder. torch and transformers are imported when a prompt is first expanded.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fooocus_core.errors import UnreadableModel, UnsupportedModel
from fooocus_core.prompts.lines import safe_str

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

    from fooocus_core.models.checkpoint import Checkpoint

log = logging.getLogger(__name__)

FOLDER: Final = Path("prompt_expansion") / "fooocus_expansion"
"""Where the folder is below the models' root."""
WEIGHT_FILES: Final = ("model.safetensors", "pytorch_model.bin")
CONFIG_FILE: Final = "config.json"
WORD_FILE: Final = "positive.txt"
TOKENIZER_FILE: Final = "tokenizer.json"
OLDER_TOKENIZER_FILES: Final = ("vocab.json", "merges.txt")

BLOCK_TOKENS: Final = 75
"""A prompt is filled up to a multiple of this."""
CANDIDATES: Final = 100
"""How many of the likeliest tokens are drawn from."""
BLOCKED: Final = -8192.0
"""Added to the logits of what may not be written; a number that float16 holds."""
COMMA_ID: Final = 11
"""GPT-2's token for a comma, which may be written any number of times."""
SEEDS: Final = 2**32
WORD_START: Final = "Ġ"
"""How GPT-2's vocabulary writes the blank before a word."""

_ENGLISH: Final = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


class PromptExpansion:
    """Expands prompts with the model in ``folder``. It is loaded for the first prompt and stays. For one thread.

    ``stays``: whether it does so on the device; else it is there while it writes, because on a CPU it would draw other
    words.
    """

    def __init__(self, folder: Path, device: str | torch.device = "cpu", *, stays: bool = True) -> None:
        self._folder = folder
        self._device = device
        self._stays = stays
        self._model: ExpansionModel | None = None
        self._is_absence_told = False

    def __call__(self, prompt: str, seed: int) -> str | None:
        """``prompt`` with the words that the model adds for ``seed``; ``None`` where no model is installed.

        A folder without weights is none; the log says so once. Raises ``ModelError`` with the name of the file that is
        missing or broken in a folder that has them.
        """
        if self._model is None:
            weights = self._weights_path()
            if weights is None:
                self._tell_absence()
                return None
            self._model = load_expansion(weights, self._device)
            if not self._stays:
                network: Module = self._model.network
                network.to("cpu")
        from fooocus_core.models.residence import at_work

        with at_work(self._model.network, self._model.bias.device):
            return self._model.expand(prompt, seed)

    def unload(self) -> None:
        """Forget the model; the next prompt loads it again."""
        self._model = None

    def _weights_path(self) -> Path | None:
        return next((path for name in WEIGHT_FILES if (path := self._folder / name).is_file()), None)

    def _tell_absence(self) -> None:
        if not self._is_absence_told:
            log.warning("prompt expansion skipped: no %s in the folder %s", WEIGHT_FILES[-1], self._folder.name)
            self._is_absence_told = True


@dataclass(frozen=True)
class ExpansionModel:
    """A loaded model. ``bias`` is added to the logits: ``[vocabulary]``, 0 for the words of the list."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    network: GPT2LMHeadModel
    bias: Tensor

    def expand(self, prompt: str, seed: int) -> str:
        """The tidied prompt and what was written behind it; nothing for an empty prompt.

        A prompt that leaves nothing to write comes back alone. So does one that the network has no positions for,
        where the reference fails.
        """
        if not prompt:
            return ""
        text = safe_str(prompt) + ","
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        length = -(-len(ids) // BLOCK_TOKENS) * BLOCK_TOKENS
        if length == len(ids) or length > self.network.config.n_positions:
            return text[:-1]
        ids += self._write(ids, length - len(ids), seed)
        # The library's own tidying was on by default when the reference was made; today it is off.
        decoded = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return safe_str(tidy_english(str(decoded)))

    def _write(self, ids: list[int], count: int, seed: int) -> list[int]:
        """``count`` tokens behind ``ids``, each but the comma used once at most.

        The reference seeds and draws from the process-wide generators; one of our own, seeded alike, draws the same.
        """
        import torch

        generator = torch.Generator(self.bias.device).manual_seed(seed % SEEDS)
        bias = self.bias.clone()
        bias[ids] = BLOCKED
        bias[COMMA_ID] = 0.0
        written: list[int] = []
        fresh, past = torch.tensor([ids], device=bias.device), None
        with torch.inference_mode():
            for _ in range(count):
                output = self.network(fresh, past_key_values=past, use_cache=True)
                past = output.past_key_values
                fresh = torch.multinomial(self._odds(output.logits[:, -1] + bias), 1, generator=generator)
                written.append(int(fresh))
                if written[-1] != COMMA_ID:
                    bias[written[-1]] = BLOCKED
        return written

    def _odds(self, logits: Tensor) -> Tensor:
        """The probabilities of the likeliest tokens, ``[1, vocabulary]``, in the network's own precision."""
        import torch

        # Checked here because drawing from what is no number would lose a graphics card for the whole process.
        if not bool(torch.isfinite(logits).all()):
            raise UnsupportedModel(self.name, "the network's output holds values that are not numbers")
        least = logits.topk(min(CANDIDATES, logits.shape[-1])).values[:, -1:]
        return logits.masked_fill(logits < least, -torch.inf).softmax(-1)


def tidy_english(text: str) -> str:
    """``text`` without the blanks that classic detokenisation removes before punctuation and contractions."""
    for spaced, close in _ENGLISH:
        text = text.replace(spaced, close)
    return text


def load_expansion(weights_path: Path, device: str | torch.device) -> ExpansionModel:
    """The model whose weights are at ``weights_path``, with the files beside it: float16 on CUDA, else float32 on CPU.

    Nothing is looked up outside the folder and nothing but tensors is unpickled. Raises ``ModelError`` with the name
    of the file that is missing, broken, or does not fit the others.
    """
    import torch

    from fooocus_core.models.checkpoint import open_checkpoint

    folder = weights_path.parent
    is_cuda = torch.device(device).type == "cuda"
    network = _read_network(
        open_checkpoint(weights_path),
        _read_config(folder / CONFIG_FILE),
        torch.device(device) if is_cuda else torch.device("cpu"),
        torch.float16 if is_cuda else torch.float32,
    )
    tokenizer = _read_tokenizer(folder)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if max(COMMA_ID, *vocabulary.values()) >= network.config.vocab_size:
        raise UnsupportedModel(
            weights_path.name,
            f"{network.config.vocab_size} tokens, fewer than {TOKENIZER_FILE} has ({len(vocabulary)})",
        )
    admitted = _admitted_ids(_read_words(folder / WORD_FILE), vocabulary)
    bias = torch.full((network.config.vocab_size,), BLOCKED, dtype=network.dtype, device=network.device)
    bias[admitted] = 0.0
    return ExpansionModel(weights_path.name, tokenizer, network, bias)


def _read_network(
    weights: Checkpoint, config: Mapping[str, Any], device: torch.device, dtype: torch.dtype
) -> GPT2LMHeadModel:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from fooocus_core.models.checkpoint import assign_weights

    try:
        # Untied: the original file has a head of its own; one without it gets the embedding's matrix below.
        shape = GPT2Config.from_dict(dict(config), attn_implementation="eager", tie_word_embeddings=False)
        with torch.device("meta"):
            network = GPT2LMHeadModel(shape)
    except Exception as error:  # any library error means the same here: these are no settings of a GPT-2
        raise UnreadableModel(CONFIG_FILE, "does not describe a GPT-2") from error
    tensors = dict(weights.tensors)
    if "transformer.wte.weight" in tensors:
        tensors.setdefault("lm_head.weight", tensors["transformer.wte.weight"])
    masks = [key for key in tensors if key.endswith((".attn.bias", ".attn.masked_bias"))]
    assign_weights(network, tensors, weights.name, device=device, dtype=dtype, skipped=masks)
    return network


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    if not all((folder / name).is_file() for name in OLDER_TOKENIZER_FILES):
        _require(folder / TOKENIZER_FILE)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # any library error means the same here: these files give no tokenizer
        raise UnreadableModel(TOKENIZER_FILE, "no tokenizer can be made of it") from error
    return tokenizer


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(_read_text(path))
    except ValueError as error:
        raise UnreadableModel(path.name, f"not JSON ({error})") from error
    if not isinstance(values, dict):
        raise UnreadableModel(path.name, "not a JSON object")
    return values


def _read_words(path: Path) -> list[str]:
    return [line for line in _read_text(path).splitlines() if line]


def _admitted_ids(words: Iterable[str], vocabulary: Mapping[str, int]) -> list[int]:
    tokens = (WORD_START + word.lower() for word in words)
    ids = [vocabulary[token] for token in tokens if token in vocabulary]
    if not ids:
        raise UnreadableModel(WORD_FILE, "no line of it is a word of the tokenizer")
    return ids


def _read_text(path: Path) -> str:
    _require(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableModel(path.name, "cannot be read as text") from error


def _require(path: Path) -> None:
    if not path.is_file():
        raise UnreadableModel(path.name, f"missing from the folder {path.parent.name}")
