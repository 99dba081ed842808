"""BLIP: its published layout, the same numbers as the paper's own arrangement, the same captions as transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from fooocus_core.describe.photograph import (
    BEGIN_ID,
    END_ID,
    MAX_TOKENS,
    Captioner,
    load_captioner,
    next_odds,
    sentence,
)
from fooocus_core.errors import UnreadableModel, UnsupportedModel
from fooocus_core.vocabularies import bert_tokenizer
from tests.fooocus_core.describe.files import CAPTIONER, SIDE_PX, thin_captioner, write_captioner
from tools.synthetic import DTYPES, published_shapes

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
PROMPT_IDS = [BEGIN_ID, 1037, 3861, 1997]


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    return load_captioner(write_captioner(tmp_path_factory.mktemp("blip")))


def test_every_key_of_the_published_file_has_its_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At full size: pages that nobody writes to cost no memory."""
    weights = {
        key: torch.empty(shape, dtype=DTYPES[kind]) for key, (shape, kind) in published_shapes(CAPTIONER).items()
    }
    monkeypatch.setattr("fooocus_core.describe.photograph.read_content", lambda path: {"model": weights})
    loaded = load_captioner(Path("blip.pth"))
    numbers = sum(tensor.numel() for tensor in weights.values()) - 512  # position_ids counts positions
    assert sum(parameter.numel() for parameter in loaded.network.parameters()) == numbers
    assert loaded.side_px == 384
    assert loaded.network.text_decoder.bert.config.num_attention_heads == 12
    assert caplog.records == []


def test_the_image_encoder_calculates_what_the_paper_says(captioner: Captioner) -> None:
    """A plain vision transformer on the file's own names."""
    file = {
        key.removeprefix("visual_encoder."): tensor
        for key, tensor in thin_captioner().items()
        if key.startswith("visual_encoder.")
    }
    pixels = captioner.pixels(PICTURE)
    with torch.inference_mode():
        seen = captioner.network.vision_model(pixels).last_hidden_state
    torch.testing.assert_close(seen, vision_transformer(file, pixels), atol=2e-5, rtol=1e-4)


def vision_transformer(file: dict[str, Tensor], pixels: Tensor) -> Tensor:
    def linear(name: str, values: Tensor) -> Tensor:
        return values @ file[f"{name}.weight"].T + file[f"{name}.bias"]

    def norm(name: str, values: Tensor) -> Tensor:
        return layer_norm(values, values.shape[-1:], file[f"{name}.weight"], file[f"{name}.bias"], 1e-6)

    patches = torch.nn.functional.conv2d(
        pixels, file["patch_embed.proj.weight"], file["patch_embed.proj.bias"], stride=16
    )
    hidden = torch.cat([file["cls_token"], patches.flatten(2).transpose(1, 2)], 1) + file["pos_embed"]
    for block in ("blocks.0", "blocks.1"):
        joined = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", hidden))
        query, key, value = (part[:, None] for part in joined.chunk(3, -1))
        attended = scaled_dot_product_attention(query, key, value)[:, 0]
        hidden = hidden + linear(f"{block}.attn.proj", attended)
        inner = gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", hidden)))
        hidden = hidden + linear(f"{block}.mlp.fc2", inner)
    return norm("norm", hidden)


@pytest.mark.parametrize("seed", [1, 2])
def test_captions_are_those_of_transformers(captioner: Captioner, seed: int) -> None:
    """Its own loop with the settings of the specification, drawing from the process-wide generator."""
    embeddings = captioner.network.text_decoder.bert.embeddings
    embeddings.position_ids = torch.arange(embeddings.position_embeddings.weight.shape[0])[None]
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        (expected,) = captioner.network.generate(
            captioner.pixels(PICTURE),
            torch.tensor([[101, *PROMPT_IDS[1:], END_ID]]),
            do_sample=True,
            top_p=0.9,
            top_k=50,
            repetition_penalty=1.1,
            min_length=10,
            max_length=75,
        )
        seen = captioner.network.vision_model(captioner.pixels(PICTURE)).last_hidden_state
        assert captioner.written(seen, torch.Generator().manual_seed(seed)) == expected.tolist()


def test_a_seed_is_a_caption(captioner: Captioner) -> None:
    caption = captioner.caption(PICTURE, 3)
    assert captioner.caption(PICTURE, 3) == caption
    assert captioner.caption(PICTURE, 4) != caption
    assert captioner.caption(255 - PICTURE, 3) != caption


def test_the_prompt_is_not_part_of_the_caption() -> None:
    tokenizer = bert_tokenizer()
    ids = [*PROMPT_IDS, *tokenizer.encode("the man's dog, asleep", add_special_tokens=False).ids, END_ID]
    assert sentence(ids, tokenizer) == "the man's dog, asleep"
    assert sentence(ids[:4], tokenizer) == ""
    assert sentence([*ids[:-1], 30523, END_ID], tokenizer) == "the man's dog, asleep"


def test_a_caption_ends_no_sooner_than_it_may() -> None:
    logits = torch.full((200,), -5.0)
    logits[END_ID], logits[7] = 9.0, 0.0
    assert next_odds(logits.clone(), range(120, 129))[END_ID] == 0
    assert next_odds(logits.clone(), range(120, 130))[END_ID] == 1


def test_a_caption_ends_when_it_is_full(captioner: Captioner) -> None:
    bias = captioner.network.text_decoder.cls.predictions.decoder.bias
    usual = float(bias[END_ID])
    bias[END_ID] = -100.0
    with torch.inference_mode():
        assert len(captioner.written(torch.ones(1, 5, 64), torch.Generator().manual_seed(1))) == MAX_TOKENS
    bias[END_ID] = usual


def test_the_picture_is_squeezed_and_normalised(captioner: Captioner) -> None:
    pixels = captioner.pixels(np.full((10, 99, 3), (255, 0, 51), np.uint8))
    assert pixels.shape == (1, 3, SIDE_PX, SIDE_PX)
    expected = [(1 - 0.48145466) / 0.26862954, -0.4578275 / 0.26130258, (0.2 - 0.40821073) / 0.27577711]
    torch.testing.assert_close(pixels[0, :, 3, 5], torch.tensor(expected))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "blip.pth"
    odd = {"model": {"visual_encoder.blocks.0": torch.ones(2), 7: torch.ones(2)}}
    for content in ({"model": {"a": torch.ones(2)}}, {"b": torch.ones(2)}, odd, {}):
        torch.save(content, path)
        with pytest.raises(UnsupportedModel, match=r"blip\.pth: not a captioning network"):
            load_captioner(path)
    for broken in ({"model": [1]}, [torch.ones(2)]):
        torch.save(broken, path)
        with pytest.raises(UnreadableModel, match="dictionary"):
            load_captioner(path)
    path.write_text(json.dumps({}))
    with pytest.raises(UnreadableModel):
        load_captioner(path)


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    weights = thin_captioner()
    del weights["visual_encoder.blocks.1.attn.proj.bias"]
    torch.save({"model": weights}, tmp_path / "blip.pth")
    with pytest.raises(UnsupportedModel, match=r"encoder\.layers\.1\.self_attn\.projection\.bias is missing"):
        load_captioner(tmp_path / "blip.pth")


@pytest.mark.parametrize("table", ["word", "position"])
def test_a_decoder_that_is_too_small_is_refused(tmp_path: Path, table: str) -> None:
    weights = thin_captioner()
    key = f"text_decoder.bert.embeddings.{table}_embeddings.weight"
    torch.save({"model": {**weights, key: weights[key][:50]}}, tmp_path / "blip.pth")
    with pytest.raises(UnsupportedModel, match="too few words or places"):
        load_captioner(tmp_path / "blip.pth")


def test_a_network_of_no_numbers_is_told(captioner: Captioner) -> None:
    with pytest.raises(UnsupportedModel, match="not numbers"):
        captioner.written(torch.full((1, 5, 64), torch.nan), torch.Generator())
