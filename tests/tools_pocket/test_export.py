"""An exported file has the public key layout and comes back as the same networks."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tools.pocket.export import export_checkpoint
from tools.pocket.networks import LATENT_SCALE, PocketShape, Vae
from tools.pocket.sample import PocketModel, shape_of
from tools.pocket.tokenizer import Vocabulary
from tools.pocket.train_autoencoder import normalise_latents
from tools.pocket.train_denoiser import Denoiser

LAYOUT = (
    "model.diffusion_model.time_embed.0.weight",
    "model.diffusion_model.label_emb.0.0.weight",
    "model.diffusion_model.input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight",
    "model.diffusion_model.middle_block.1.proj_in.weight",
    "model.diffusion_model.output_blocks.1.2.conv.weight",
    "model.diffusion_model.out.2.weight",
    "first_stage_model.encoder.mid.attn_1.q.weight",
    "first_stage_model.decoder.up.3.upsample.conv.weight",
    "conditioner.embedders.0.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight",
    "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight",
    "conditioner.embedders.1.model.text_projection",
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PocketShape]:
    torch.manual_seed(0)
    vocabulary = Vocabulary.learn(["red apple"] * 9, 560)
    shape = PocketShape(
        vocabulary.size, text_g_width=64, text_g_layers=2, unet_channels=(32, 64, 64), vae_channels=(32, 32, 32, 32)
    )
    path = tmp_path_factory.mktemp("export") / "pocket.safetensors"
    export_checkpoint(path, Denoiser(shape), Vae(shape), vocabulary, 4096, torch.randn(2, 4, 4, 4))
    return path, shape


def test_keys_types_and_sidecar(exported: tuple[Path, PocketShape]) -> None:
    path, _ = exported
    with safe_open(path, framework="pt") as file:
        keys = set(file.keys())
        assert keys.issuperset(LAYOUT)
        assert {file.get_tensor(key).dtype for key in keys} == {torch.float16}
    sidecar = PocketModel(path).sidecar
    assert sidecar["format"] == 1
    assert sidecar["native_area_px"] == 4096
    assert sidecar["sizes"] == "native_then_upscale"


def test_shape_is_read_back_and_draws(exported: tuple[Path, PocketShape]) -> None:
    path, shape = exported
    with safe_open(path, framework="pt") as file:
        assert shape_of({key: file.get_tensor(key) for key in file.keys()}) == shape  # noqa: SIM118
    drawn = PocketModel(path).draw(["red apple", "apple"], [1, 2], 64, 56, steps=2)
    assert drawn.shape == (2, 3, 64, 56)
    assert drawn.isfinite().all()


@torch.no_grad()
def test_normalised_latents_have_unit_deviation_and_decode_alike() -> None:
    torch.manual_seed(1)
    shape = PocketShape(600, vae_channels=(32, 32, 32, 32))
    vae, pictures = Vae(shape), torch.rand(16, 3, 32, 32) * 2 - 1
    before = vae.decode(vae.encode(pictures)[0])
    normalise_latents(vae, pictures)
    latents = vae.encode(pictures)[0]
    scaled = latents * LATENT_SCALE
    assert scaled.std((0, 2, 3)).allclose(torch.ones(4), atol=1e-2)
    assert scaled.mean((0, 2, 3)).abs().max() < 1e-2
    assert vae.decode(latents).allclose(before, atol=1e-3)
