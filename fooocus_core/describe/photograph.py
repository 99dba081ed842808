"""A sentence about a photograph, by BLIP (Li et al., 2022, https://arxiv.org/abs/2201.12086).

Specification: 07, section 3. The network is transformers', the file the one that was published with the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import BlipConfig, BlipForConditionalGeneration, BlipTextConfig, BlipVisionConfig

from fooocus_core.adapters.image_prompt import clip_pixels
from fooocus_core.errors import UnreadableModel, UnsupportedModel
from fooocus_core.images.pixels import Picture
from fooocus_core.models.checkpoint import assign_weights, read_content
from fooocus_core.prompts.expansion import tidy_english
from fooocus_core.vocabularies import bert_tokenizer

PROMPT: Final = "a picture of "
TOP_K: Final = 50
TOP_P: Final = 0.9
REPETITION_PENALTY: Final = 1.1
MIN_TOKENS: Final = 10
MAX_TOKENS: Final = 75
"""Both count the prompt's."""
BEGIN_ID: Final = 30522
"""``[DEC]``, the first of two marks that BLIP added to BERT's vocabulary; a caption begins with it."""
END_ID: Final = 102
"""``[SEP]``."""
HEAD_WIDTH: Final = 64
VISION_NORM_EPS: Final = 1e-6

_VISION_ROOTS: Final = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
    "norm.weight": "post_layernorm.weight",
    "norm.bias": "post_layernorm.bias",
}
_VISION_PARTS: Final = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
}
_VISION, _TEXT = "visual_encoder.", "text_decoder."
_BLOCKS: Final = "blocks."


@dataclass(frozen=True)
class Captioner:
    """A loaded network, on the CPU in float32. ``side_px``: of the square that it sees."""

    name: str
    network: BlipForConditionalGeneration
    tokenizer: Tokenizer
    side_px: int

    def caption(self, picture: Picture, seed: int) -> str:
        """One sentence without its beginning ("a picture of"); another for every seed."""
        with torch.inference_mode():
            seen = self.network.vision_model(self.pixels(picture)).last_hidden_state
            ids = self.written(seen, torch.Generator().manual_seed(seed))
        return sentence(ids, self.tokenizer)

    def pixels(self, picture: Picture) -> Tensor:
        """What the network sees: ``[1, 3, side, side]``, normalised. The picture is squeezed into the square."""
        values = torch.from_numpy(picture).movedim(2, 0)[None].float() / 255.0
        side = (self.side_px, self.side_px)
        # Without antialias, as torchvision resized tensors when the reference was made.
        squeezed = functional.interpolate(values, side, mode="bicubic", align_corners=False, antialias=False)
        return clip_pixels(squeezed.movedim(1, -1))

    def written(self, seen: Tensor, generator: torch.Generator) -> list[int]:
        """The tokens of a caption, the prompt's included; ``seen``: ``[1, positions, width]``."""
        ids = [BEGIN_ID, *self.tokenizer.encode(PROMPT, add_special_tokens=False).ids]
        fresh, past = torch.tensor([ids]), None
        while len(ids) < MAX_TOKENS and ids[-1] != END_ID:
            places = torch.arange(len(ids) - fresh.shape[1], len(ids))[None]
            output = self.network.text_decoder(
                fresh, position_ids=places, encoder_hidden_states=seen, past_key_values=past, use_cache=True
            )
            past = output.past_key_values
            odds = self._odds(output.logits[0, -1], ids)
            ids.append(int(torch.multinomial(odds, 1, generator=generator)))
            fresh = torch.tensor([ids[-1:]])
        return ids

    def _odds(self, logits: Tensor, ids: Sequence[int]) -> Tensor:
        if not bool(torch.isfinite(logits).all()):
            raise UnsupportedModel(self.name, "the network's output holds values that are not numbers")
        return next_odds(logits, ids)


def sentence(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """What was written behind the prompt. Marks say nothing, BLIP's own included, which the tokenizer does not know."""
    known = tokenizer.get_vocab_size()
    text = tidy_english(tokenizer.decode([number for number in ids if number < known]))
    return text[len(PROMPT) :].strip()


def next_odds(logits: Tensor, ids: Sequence[int]) -> Tensor:
    """The probabilities of the next token, ``[vocabulary]``: none but the likeliest, and of those the nucleus."""
    used = torch.tensor(ids)
    score = logits[used]
    logits = logits.index_put((used,), torch.where(score < 0, score * REPETITION_PENALTY, score / REPETITION_PENALTY))
    if len(ids) < MIN_TOKENS:
        logits[END_ID] = -torch.inf
    likeliest, places = logits.topk(TOP_K)  # in falling order
    # A token stays unless it and all that are less likely make up no more than what the nucleus leaves.
    is_nucleus = likeliest.softmax(-1).flip(0).cumsum(-1).flip(0) > 1 - TOP_P
    is_nucleus[0] = True
    odds = torch.zeros_like(logits)
    odds[places[is_nucleus]] = likeliest[is_nucleus].softmax(-1)
    return odds


def load_captioner(path: Path) -> Captioner:
    """The network of BLIP's own file. Raises ``UnreadableModel``, and ``UnsupportedModel`` for another kind."""
    content = read_content(path)
    nested = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(nested, Mapping):
        raise UnreadableModel(path.name, "holds no dictionary of tensors")
    weights = _transformers_names({str(key): value for key, value in nested.items() if isinstance(value, Tensor)})
    network, side_px = _empty_network(weights, path.name)
    assign_weights(
        cast(nn.Module, network),
        weights,
        path.name,
        device=torch.device("cpu"),
        dtype=torch.float32,
        skipped=(f"{_TEXT}bert.embeddings.position_ids",),
    )
    return Captioner(path.name, network, bert_tokenizer(), side_px)


def _transformers_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image encoder's tensors renamed; the decoder's have transformers' names already."""
    return {
        f"vision_model.{_vision_name(key.removeprefix(_VISION))}" if key.startswith(_VISION) else key: tensor
        for key, tensor in weights.items()
    }


def _vision_name(name: str) -> str:
    if not name.startswith(_BLOCKS):
        return _VISION_ROOTS.get(name, name)
    index, _, part = name.removeprefix(_BLOCKS).partition(".")
    inside, _, leaf = part.rpartition(".")
    return f"encoder.layers.{index}.{_VISION_PARTS.get(inside, inside)}.{leaf}"


def _empty_network(weights: Mapping[str, Tensor], name: str) -> tuple[BlipForConditionalGeneration, int]:
    """The network of these sizes on the meta device, and the side of the square that it sees."""
    try:
        vision, text = _vision_sizes(weights), _text_sizes(weights)
    except (KeyError, ValueError, IndexError) as error:
        raise UnsupportedModel(name, f"not a captioning network of BLIP's kind ({error})") from error
    if vision["hidden_size"] % HEAD_WIDTH or text["hidden_size"] % HEAD_WIDTH:
        raise UnsupportedModel(name, f"not a captioning network of BLIP's kind: its heads are not {HEAD_WIDTH} wide")
    if text["vocab_size"] <= BEGIN_ID or text["max_position_embeddings"] < MAX_TOKENS:
        raise UnsupportedModel(name, "not a captioning network of BLIP's kind: it has too few words or places for them")
    # Untied: the file holds the head's matrix, which is the embedding's, under a name of its own.
    vision_config = BlipVisionConfig(**vision, layer_norm_eps=VISION_NORM_EPS)
    text_config = BlipTextConfig(**text, encoder_hidden_size=vision["hidden_size"], tie_word_embeddings=False)
    parts = {"vision_config": vision_config.to_dict(), "text_config": text_config.to_dict()}
    config = BlipConfig.from_dict({**parts, "tie_word_embeddings": False}, attn_implementation="eager")
    with torch.device("meta"):
        return BlipForConditionalGeneration(config), vision["image_size"]


def _vision_sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    root = "vision_model."
    width, _, patch_px, _ = weights[f"{root}embeddings.patch_embedding.weight"].shape
    places = weights[f"{root}embeddings.position_embedding"].shape[1]
    return {
        "hidden_size": width,
        "intermediate_size": weights[f"{root}encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _count(weights, f"{root}encoder.layers."),
        "num_attention_heads": width // HEAD_WIDTH,
        "patch_size": patch_px,
        "image_size": round((places - 1) ** 0.5) * patch_px,
    }


def _text_sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    root = f"{_TEXT}bert."
    vocabulary, width = weights[f"{root}embeddings.word_embeddings.weight"].shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": weights[f"{root}encoder.layer.0.intermediate.dense.weight"].shape[0],
        "num_hidden_layers": _count(weights, f"{root}encoder.layer."),
        "num_attention_heads": width // HEAD_WIDTH,
        "max_position_embeddings": weights[f"{root}embeddings.position_embeddings.weight"].shape[0],
    }


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    return 1 + max(int(key.removeprefix(prefix).split(".")[0]) for key in weights if key.startswith(prefix))
