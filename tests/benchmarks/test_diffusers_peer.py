"""The peer is a fair one: diffusers' pipeline and the server's engine hold the same networks and the same tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.diffusers_peer import Pipeline, load_pipeline, tokenizer, unet_config
from fooocus_core.conditioning.adm import embed_numbers
from fooocus_core.conditioning.tokenizer import stock_tokenizer
from fooocus_core.errors import UnsupportedModel
from fooocus_core.library import POCKET_FOLDER, POCKET_NAME
from fooocus_core.models.checkpoint import UNET_PREFIX, Checkpoint, open_checkpoint
from fooocus_core.models.device import Placement
from fooocus_core.models.loaded import LoadedModel, load_model
from tests.fooocus_core.models.tiny import tiny_checkpoint

POCKET = POCKET_FOLDER / POCKET_NAME
CPU = Placement(torch.device("cpu"), torch.float32, torch.float32)
SIZES = [96.0, 128.0, 0.0, 0.0, 96.0, 128.0]


def assert_same(theirs: Tensor, ours: Tensor) -> None:
    """The same weights and formulas; other kernels for attention and other orders of addition."""
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(POCKET, CPU)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return load_pipeline(POCKET, CPU)


@torch.no_grad()
def test_the_same_denoising_network(model: LoadedModel, pipeline: Pipeline) -> None:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 12, 16, generator=generator)
    context = torch.randn(2, 77, model.network.shape.context_width, generator=generator)
    pooled = torch.randn(2, model.text.g.pooled_width, generator=generator)
    timesteps = torch.tensor([951.0, 20.0])
    theirs = pipeline.unet(
        latents,
        timesteps,
        encoder_hidden_states=context,
        added_cond_kwargs={"text_embeds": pooled, "time_ids": torch.tensor([SIZES, SIZES])},
    ).sample
    ours = model.network(latents, timesteps, context, torch.cat([pooled, embed_numbers(SIZES).expand(2, -1)], dim=1))
    assert ours.std() > 0.1
    assert_same(theirs, ours)


@torch.no_grad()
@pytest.mark.parametrize("text", ["a red apple, flat icon", ""])
def test_the_same_texts(model: LoadedModel, pipeline: Pipeline, text: str) -> None:
    context, _, pooled, _ = pipeline.encode_prompt(text, do_classifier_free_guidance=False)
    ours = model.text.encode(text, clip_skip=2)
    assert_same(context, ours.context)
    assert_same(pooled, ours.pooled)


@torch.no_grad()
def test_the_same_autoencoder(model: LoadedModel, pipeline: Pipeline) -> None:
    latents = torch.randn(1, 4, 6, 5, generator=torch.Generator().manual_seed(2))
    assert_same(pipeline.vae.decode(latents).sample, model.autoencoder.decode_raw(latents))


def test_a_public_checkpoint_gets_the_stock_tokens() -> None:
    words = ["a", "photo", "of", "an", "astronaut", "riding", "a", "horse"]
    ids = tokenizer(Checkpoint("public.safetensors", {}), pad="!")(" ".join(words)).input_ids
    stock = stock_tokenizer()
    assert ids == [stock.start_id, *(number for word in stock.ids(words) for number in word), stock.end_id]


def test_what_diffusers_would_load_in_part_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="one depth for each level"):
        unet_config(Checkpoint("tiny.safetensors", tiny_checkpoint()))


def test_every_weight_of_the_network_is_used(pipeline: Pipeline) -> None:
    stored = open_checkpoint(POCKET).under(UNET_PREFIX)
    assert sum(p.numel() for p in pipeline.unet.parameters()) == sum(tensor.numel() for tensor in stored.values())
