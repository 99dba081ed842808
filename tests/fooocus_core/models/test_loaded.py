"""A whole checkpoint in miniature through the general loaders, and every way it can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor

from fooocus_core.adapters.lora import LoraFile, read_lora
from fooocus_core.conditioning.adm import base_adm, select_timed_adm
from fooocus_core.errors import UnknownModel, UnreadableModel, UnsupportedModel
from fooocus_core.library import FileHashes, Library
from fooocus_core.models import loaded
from fooocus_core.models.autoencoder import load_autoencoder
from fooocus_core.models.device import Placement, choose_placement
from fooocus_core.models.loaded import LoadedModel, ModelStore, load_model
from fooocus_core.plan import Lora, Models
from tests.fooocus_core.models.tiny import SIDECAR, tiny_checkpoint, write_checkpoint

CPU = Placement(torch.device("cpu"), torch.float32, torch.float32)
VAE = "first_stage_model."
UNET = "model.diffusion_model."


@pytest.fixture
def model(tmp_path: Path) -> LoadedModel:
    return load_model(write_checkpoint(tmp_path / "tiny.safetensors"), CPU)


def predicted(model: LoadedModel, height: int, width: int) -> Tensor:
    encoded = model.text.encode("ab (a:1.2)", clip_skip=2)
    adm = base_adm(encoded.pooled, 8 * width, 8 * height, 1.5)
    timesteps = torch.tensor([800.0])
    chosen = select_timed_adm(adm, timesteps, 0.3, model.network.adm_width)
    return model.network(torch.ones(1, 4, height, width), timesteps, encoded.context, chosen)


def test_from_text_to_pixels(model: LoadedModel) -> None:
    assert (model.stem, model.native_area_px, model.prediction) == ("tiny", 4096, "eps")
    output = predicted(model, 8, 8)
    assert (output.shape, output.dtype) == ((1, 4, 8, 8), torch.float32)
    pixels = model.decoded(output)
    assert pixels.shape == (1, 3, 64, 64)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    assert model.preview.begin(output).picture().shape == (16, 16, 3)
    assert model.autoencoder.encode(pixels).shape == output.shape


@pytest.mark.parametrize(("height", "width"), [(7, 9), (5, 8), (3, 3), (2, 31)])
def test_any_latent_size(model: LoadedModel, height: int, width: int) -> None:
    assert predicted(model, height, width).shape == (1, 4, height, width)


def test_results_can_be_changed_in_place(model: LoadedModel) -> None:
    output = predicted(model, 8, 8)
    output += 1


@pytest.mark.parametrize("middle_depth", [None, 1, 3])
def test_middles_of_any_depth(tmp_path: Path, middle_depth: int | None) -> None:
    model = load_model(write_checkpoint(tmp_path / "m.safetensors", tiny_checkpoint(middle_depth)), CPU)
    assert model.network.shape.middle_depth == middle_depth
    assert model.network.shape.up_depths == ((2, 1), (0, 0))
    assert predicted(model, 8, 8).isfinite().all()


def test_float32_weights_are_the_mapped_ones(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m.safetensors", tiny_checkpoint(dtype=torch.float32))
    model = load_model(path, CPU)
    weight = model.network.unet.get_parameter("conv_in.weight")
    assert weight.data_ptr() == model.network.originals["conv_in.weight"].data_ptr()


def test_text_weights_stay_in_the_files_float16(model: LoadedModel) -> None:
    name = "encoder.layers.0.mlp.fc1.weight"
    assert model.text.g.model.get_parameter(name).data_ptr() == model.text.g.originals[name].data_ptr()
    assert model.text.encode("a", 2).context.dtype == torch.float32


def test_the_vector_must_have_the_networks_width(model: LoadedModel) -> None:
    with pytest.raises(ValueError, match="1584 wide"):
        model.network(torch.ones(1, 4, 8, 8), torch.tensor([1.0]), torch.ones(1, 77, 80), torch.ones(1, 5))


def test_a_classic_inpaint_network_gets_its_extra_channels(tmp_path: Path) -> None:
    tensors = tiny_checkpoint()
    tensors[UNET + "input_blocks.0.0.weight"] = torch.zeros(32, 9, 3, 3, dtype=torch.float16)
    model = load_model(write_checkpoint(tmp_path / "m.safetensors", tensors), CPU)
    assert predicted(model, 8, 8).shape == (1, 4, 8, 8)


# --- wrong files --------------------------------------------------------------------------------------------------


def refusal(tmp_path: Path, tensors: dict[str, Tensor], sidecar: dict[str, object] | None = SIDECAR) -> str:
    with pytest.raises((UnsupportedModel, UnreadableModel)) as refused:
        load_model(write_checkpoint(tmp_path / "wrong.safetensors", tensors, sidecar), CPU)
    assert refused.value.name == "wrong.safetensors"
    return refused.value.reason


def test_every_missing_part_is_named(tmp_path: Path) -> None:
    for key in (
        UNET + "out.2.bias",
        UNET + "input_blocks.0.0.weight",
        UNET + "label_emb.0.0.weight",
        VAE + "post_quant_conv.bias",
        VAE + "decoder.conv_in.weight",
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
        "conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_bias",
        "conditioner.embedders.1.model.text_projection",
    ):
        tensors = tiny_checkpoint()
        del tensors[key]
        assert refusal(tmp_path, tensors)


def test_a_missing_autoencoder(tmp_path: Path) -> None:
    tensors = {key: tensor for key, tensor in tiny_checkpoint().items() if not key.startswith(VAE)}
    assert "no autoencoder" in refusal(tmp_path, tensors)


def test_a_misshapen_weight(tmp_path: Path) -> None:
    wrong = {UNET + "out.2.bias": torch.zeros(5, dtype=torch.float16)}
    assert "has shape (5,)" in refusal(tmp_path, {**tiny_checkpoint(), **wrong})


def test_parts_that_do_not_fit_each_other(tmp_path: Path) -> None:
    tensors = tiny_checkpoint()
    for key in [key for key in tensors if "attn2.to_k" in key or "attn2.to_v" in key]:
        tensors[key] = tensors[key][:, :64].contiguous()
    assert "text 80 wide" in refusal(tmp_path, tensors)


def test_attention_after_some_blocks_only(tmp_path: Path) -> None:
    tensors = {key: t for key, t in tiny_checkpoint().items() if "output_blocks.1.1" not in key}
    assert "some of its blocks" in refusal(tmp_path, tensors)


@pytest.mark.parametrize(
    "sidecar",
    [
        {**SIDECAR, "format": 2},
        {"name": "no format"},
        {**SIDECAR, "tokenizer": {"vocab": {}, "merges": []}},
        {**SIDECAR, "tokenizer": {"vocab": {"a": 0, "b": 1}, "merges": ["x y"]}},
        {**SIDECAR, "tokenizer": {"vocab": {"a": 0, "b": "one"}, "merges": []}},
        {**SIDECAR, "tokenizer": {"vocab": {"a": 0, "b": 99}, "merges": []}},
        {**SIDECAR, "tokenizer": 5},
        {**SIDECAR, "native_area_px": -1},
        {**SIDECAR, "sizes": "any"},
        {**SIDECAR, "preview_rgb": {"matrix": [[1, 2]], "bias": [1]}},
        ["format"],
    ],
)
def test_broken_sidecars(tmp_path: Path, sidecar: dict[str, object]) -> None:
    assert refusal(tmp_path, tiny_checkpoint(), sidecar)


def test_without_sidecar_the_stock_vocabulary_must_fit(tmp_path: Path) -> None:
    assert "49408 tokens" in refusal(tmp_path, tiny_checkpoint(), None)


# --- separate autoencoders ----------------------------------------------------------------------------------------


def ldm_vae() -> dict[str, Tensor]:
    return {key.removeprefix(VAE): t for key, t in tiny_checkpoint().items() if key.startswith(VAE)}


def test_a_separate_file_in_ldm_names(tmp_path: Path) -> None:
    other = {key: tensor * 0.5 for key, tensor in ldm_vae().items()}
    save_file(other, tmp_path / "vae.safetensors")
    path = write_checkpoint(tmp_path / "tiny.safetensors")
    replaced = load_model(path, CPU, vae=tmp_path / "vae.safetensors").autoencoder
    expected = load_autoencoder(other, "vae", device=CPU.device, dtype=torch.float32)
    latents = torch.randn(1, 4, 4, 4)
    assert torch.equal(replaced.decode(latents), expected.decode(latents))
    assert not torch.equal(replaced.decode(latents), load_model(path, CPU).autoencoder.decode(latents))


@pytest.mark.parametrize("old_names", [False, True])
def test_a_separate_file_in_diffusers_names(old_names: bool) -> None:
    ours = load_autoencoder(ldm_vae(), "vae", device=CPU.device, dtype=torch.float32)
    stored = ours.network.state_dict()
    if old_names:
        olden = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
        for new, old in olden.items():
            stored = {key.replace(new, old): tensor for key, tensor in stored.items()}
    again = load_autoencoder(stored, "vae", device=CPU.device, dtype=torch.float32)
    latents = torch.randn(1, 4, 4, 4)
    assert torch.equal(ours.decode(latents), again.decode(latents))


def test_decoding_beside_diffusers_itself() -> None:
    ours = load_autoencoder(ldm_vae(), "vae", device=CPU.device, dtype=torch.float32)
    theirs = AutoencoderKL(
        block_out_channels=(32,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
    )
    theirs.load_state_dict(ours.network.state_dict())
    latents, pixels = torch.randn(2, 4, 5, 3), torch.rand(2, 3, 40, 24)
    torch.testing.assert_close(ours.decode_raw(latents), theirs.decode(latents).sample, atol=1e-5, rtol=0)
    posterior = theirs.encode(pixels * 2 - 1).latent_dist
    noise = torch.randn(2, 4, 5, 3)
    torch.testing.assert_close(ours.encode(pixels, noise), posterior.mean + posterior.std * noise, atol=1e-5, rtol=0)


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError(), RuntimeError("can't allocate memory")])
def test_a_picture_without_room_is_decoded_in_tiles(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def decode(latents: Tensor) -> Tensor:
        raise error

    monkeypatch.setattr(model.autoencoder, "decode", decode)
    assert model.autoencoder.decode_or_tiled(torch.zeros(1, 4, 8, 8)).shape[1] == 3


def test_no_other_error_is_met_by_tiles(model: LoadedModel) -> None:
    with pytest.raises(RuntimeError, match="channels"):
        model.autoencoder.decode_or_tiled(torch.zeros(1, 3, 8, 8))


def test_something_else_as_autoencoder(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "not_a_vae.safetensors")
    with pytest.raises(UnsupportedModel, match="not_a_vae"):
        load_model(write_checkpoint(tmp_path / "tiny.safetensors"), CPU, vae=tmp_path / "not_a_vae.safetensors")


# --- the store ----------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    (tmp_path / "checkpoints").mkdir()
    write_checkpoint(tmp_path / "checkpoints" / "tiny.safetensors")
    return ModelStore(Library.below(tmp_path), CPU, FileHashes(tmp_path / "hashes.txt"))


def test_a_second_load_costs_nothing(store: ModelStore) -> None:
    first = store.load(Models("tiny.safetensors"))
    assert store.load(Models("tiny.safetensors")) is first
    assert len(first.checkpoint_hash) == 10


def test_a_changed_file_is_loaded_again(store: ModelStore, tmp_path: Path) -> None:
    first = store.load(Models("tiny.safetensors"))
    write_checkpoint(tmp_path / "checkpoints" / "tiny.safetensors", tiny_checkpoint(None))
    assert store.load(Models("tiny.safetensors")) is not first


def test_unloading(store: ModelStore) -> None:
    first = store.load(Models("tiny.safetensors"))
    store.unload()
    assert store.load(Models("tiny.safetensors")) is not first


def write_lora(folder: Path, name: str, strength: float) -> Lora:
    """A LoRA of rank 1 on one attention weight of the network and one of each text encoder."""
    folder.mkdir(exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for module, width in (
        ("lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q", 64),
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 32),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1", 48),
    ):
        rows = 4 * width if module.endswith("fc1") else width
        tensors[f"{module}.lora_up.weight"] = torch.full((rows, 1), strength)
        tensors[f"{module}.lora_down.weight"] = torch.ones(1, width)
    save_file(tensors, folder / name)
    return Lora(name, 0.5)


def weights_of(model: LoadedModel) -> dict[str, Tensor]:
    parts = {"unet": model.network.unet, "l": model.text.l.model, "g": model.text.g.model}
    return {f"{part}.{key}": weight.clone() for part, net in parts.items() for key, weight in net.named_parameters()}


def test_loras_are_merged_and_taken_off_bit_for_bit(store: ModelStore, tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "loras", "a.safetensors", 0.1)
    plain = weights_of(store.load(Models("tiny.safetensors")))
    merged = weights_of(store.load(Models("tiny.safetensors"), [lora]))
    changed = {name for name in plain if not torch.equal(plain[name], merged[name])}
    assert changed == {
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight",
        "l.encoder.layers.0.self_attn.q_proj.weight",
        "g.encoder.layers.0.mlp.fc1.weight",
    }
    assert merged["g.encoder.layers.0.mlp.fc1.weight"].dtype == torch.float16
    restored = weights_of(store.load(Models("tiny.safetensors")))
    assert all(torch.equal(plain[name], restored[name]) for name in plain)


def test_the_same_loras_are_not_merged_again(store: ModelStore, tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "loras", "a.safetensors", 0.1)
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    places = [
        store.load(Models("tiny.safetensors"), [lora]).network.unet.get_parameter(name).data_ptr() for _ in range(2)
    ]
    assert places[0] == places[1]
    write_lora(tmp_path / "loras", "a.safetensors", 0.25)
    changed = store.load(Models("tiny.safetensors"), [lora]).network.unet.get_parameter(name).clone()
    original = store.load(Models("tiny.safetensors")).network.originals[name]
    torch.testing.assert_close(changed - original.float(), torch.full((64, 64), 0.125), atol=1e-6, rtol=0)


def test_a_lora_file_is_read_once_until_it_changes(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: Path) -> LoraFile:
        read.append(path.name)
        return read_lora(path)

    monkeypatch.setattr(loaded, "read_lora", counted)
    one, other = (write_lora(tmp_path / "loras", f"{name}.safetensors", 0.1) for name in "ab")
    for loras in ([one], [other], [one], [], [one, other], [Lora(one.name, 0.25)]):
        store.load(Models("tiny.safetensors"), loras)
    assert sorted(read) == ["a.safetensors", "b.safetensors"]
    write_lora(tmp_path / "loras", one.name, 0.25)
    store.load(Models("tiny.safetensors"), [one])
    assert sorted(read) == ["a.safetensors", "a.safetensors", "b.safetensors"]
    store.unload()
    store.load(Models("tiny.safetensors"), [other])
    assert len(read) == 4


def test_one_set_of_loras_after_another_is_the_first_again_bit_for_bit(store: ModelStore, tmp_path: Path) -> None:
    one, other = (write_lora(tmp_path / "loras", f"{name}.safetensors", 0.1) for name in "ab")
    sets = [[], [one], [other, one], [Lora(one.name, -1.0)]]
    fresh = []
    for loras in sets:
        store.unload()
        fresh.append(weights_of(store.load(Models("tiny.safetensors"), loras)))
    for number in (0, 1, 2, 1, 3, 0, 3, 2, 0):
        again = weights_of(store.load(Models("tiny.safetensors"), sets[number]))
        assert all(torch.equal(fresh[number][name], weight) for name, weight in again.items()), number


def test_a_refiner_stays_loaded_when_its_loras_change(store: ModelStore, tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "loras", "a.safetensors", 0.1)
    models = Models("tiny.safetensors", refiner="tiny.safetensors")
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    refiner = store.refiner(models)
    assert refiner is not None
    weights = [refiner.network.unet.get_parameter(name).clone()]
    for loras in ([lora], [], [lora]):
        assert store.refiner(models, loras) is refiner
        weights.append(refiner.network.unet.get_parameter(name).clone())
    assert [torch.equal(weights[0], weight) for weight in weights] == [True, False, True, False]
    assert torch.equal(weights[1], weights[3])
    store.refiner(models, [lora])
    store.refiner(Models("tiny.safetensors"))
    again = store.refiner(models)
    assert again is not None
    assert torch.equal(again.network.unet.get_parameter(name), weights[0])


def test_embeddings_are_looked_up_in_the_folders_that_are_there(store: ModelStore, tmp_path: Path) -> None:
    assert store.embeddings() is None
    (tmp_path / "embeddings").mkdir()
    files = store.embeddings()
    assert files is not None
    assert store.embeddings() is files


def test_a_broken_lora_leaves_the_weights_as_they_were(store: ModelStore, tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "loras", "a.safetensors", 0.1)
    plain = weights_of(store.load(Models("tiny.safetensors")))
    (tmp_path / "loras" / "broken.safetensors").write_bytes(b"broken")
    with pytest.raises(UnreadableModel, match=r"broken\.safetensors"):
        store.load(Models("tiny.safetensors"), [lora, Lora("broken.safetensors", 1.0)])
    store.load(Models("tiny.safetensors"), [lora])
    with pytest.raises(UnreadableModel):
        store.load(Models("tiny.safetensors"), [Lora("broken.safetensors", 1.0)])
    after = weights_of(store.load(Models("tiny.safetensors"), [Lora("missing.safetensors", 1.0)]))
    assert all(torch.equal(plain[name], after[name]) for name in plain)


def test_the_hash_of_a_lora(store: ModelStore, tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "loras", "a.safetensors", 0.1)
    assert len(store.lora_hash(lora.name)) == 10
    (tmp_path / "loras" / lora.name).unlink()
    assert store.lora_hash(lora.name) == ""


def test_unknown_names(store: ModelStore) -> None:
    for models in (Models("nothing.safetensors"), Models("../hashes.txt"), Models("tiny.safetensors", vae="none")):
        with pytest.raises(UnknownModel):
            store.load(models)


def test_placement_on_a_cpu() -> None:
    assert choose_placement("cpu").network == torch.float32
    assert choose_placement("cpu", precision="bf16", autoencoder_precision="fp16") == Placement(
        torch.device("cpu"), torch.bfloat16, torch.float16
    )
