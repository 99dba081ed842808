"""Files in the published layouts load, at full size in name and shape and as thin copies with values."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fooocus_core.conditioning.adm import refiner_adm
from fooocus_core.errors import UnreadableModel, UnsupportedModel
from fooocus_core.models.autoencoder import load_autoencoder
from fooocus_core.models.checkpoint import TEXT_G_PREFIX, TEXT_L_PREFIX, UNET_PREFIX, VAE_PREFIX, open_checkpoint
from fooocus_core.models.device import Placement
from fooocus_core.models.interposer import load_interposer
from fooocus_core.models.loaded import load_model
from fooocus_core.models.refiner import LoadedRefiner, load_refiner
from fooocus_core.models.text_encoders import load_text_g, load_text_l
from fooocus_core.models.unet import load_unet, unet_shape
from tools.synthetic import BASE, DTYPES, INTERPOSER, REFINER, SD15, published_shapes, thin_checkpoint

META = torch.device("meta")
HALF = Placement(torch.device("cpu"), torch.float16, torch.float16)
FULL = Placement(torch.device("cpu"), torch.float32, torch.float32, torch.float32)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration and no tokenizer is looked up anywhere."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a network connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def full_size(manifest: str, prefix: str) -> dict[str, Tensor]:
    """The tensors of one part at their full shapes, without memory."""
    return {
        key.removeprefix(prefix): torch.empty(shape, dtype=DTYPES[dtype], device=META)
        for key, (shape, dtype) in published_shapes(manifest).items()
        if key.startswith(prefix)
    }


@pytest.mark.parametrize(
    ("manifest", "channels", "depths", "middle", "context", "adm"),
    [
        (BASE, (320, 640, 1280), (0, 2, 10), 10, 2048, 2816),
        (REFINER, (384, 768, 1536, 1536), (0, 4, 4, 0), 4, 1280, 2560),
        (SD15, (320, 640, 1280, 1280), (1, 1, 1, 0), 1, 768, None),
    ],
)
def test_full_size_networks(
    manifest: str,
    channels: tuple[int, ...],
    depths: tuple[int, ...],
    middle: int,
    context: int,
    adm: int | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    weights = full_size(manifest, UNET_PREFIX)
    shape = unet_shape(weights, manifest)
    assert (shape.channels, tuple(level[0] for level in shape.down_depths)) == (channels, depths)
    assert (shape.middle_depth, shape.context_width, shape.adm_width) == (middle, context, adm)
    network = load_unet(weights, manifest, device=META, dtype=torch.float16)
    assert sum(parameter.numel() for parameter in network.unet.parameters()) == sum(t.numel() for t in weights.values())
    assert caplog.records == []  # no key is of no use


@pytest.mark.parametrize("manifest", [BASE, REFINER, SD15])
def test_full_size_autoencoders(manifest: str, caplog: pytest.LogCaptureFixture) -> None:
    shape = load_autoencoder(full_size(manifest, VAE_PREFIX), manifest, device=META, dtype=torch.float32).shape
    assert (shape.channels, shape.blocks) == ((128, 256, 512, 512), 2)
    assert caplog.records == []


def test_full_size_text_encoders(caplog: pytest.LogCaptureFixture) -> None:
    text_l = load_text_l(full_size(BASE, TEXT_L_PREFIX), BASE, device=META)
    text_g = load_text_g(full_size(BASE, TEXT_G_PREFIX), BASE, device=META)
    assert (text_l.width, text_l.shape.layers, text_g.width, text_g.shape.layers) == (768, 12, 1280, 32)
    assert text_g.pooled_width == 1280
    assert caplog.records == []


def test_full_size_interposer(caplog: pytest.LogCaptureFixture) -> None:
    load_interposer(full_size(INTERPOSER, ""), INTERPOSER, device=META, dtype=torch.float32)
    assert caplog.records == []


# --- thin copies --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base_tensors() -> dict[str, Tensor]:
    return thin_checkpoint(BASE)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, base_tensors: dict[str, Tensor]) -> Path:
    """A folder of thin copies."""
    folder = tmp_path_factory.mktemp("thin")
    save_file(base_tensors, folder / "base.safetensors")
    for name, manifest in (("refiner", REFINER), ("sd15", SD15), ("interposer", INTERPOSER)):
        save_file(thin_checkpoint(manifest), folder / f"{name}.safetensors")
    return folder


def test_a_base_of_half_precision_is_not_copied(files: Path) -> None:
    model = load_model(files / "base.safetensors", HALF)
    original = model.network.originals["conv_in.weight"]
    assert model.network.unet.get_parameter("conv_in.weight").data_ptr() == original.data_ptr()
    # One mapping holds every tensor of the file.
    text = model.text.g.model.get_parameter("final_layer_norm.weight")
    assert text.untyped_storage().data_ptr() == original.untyped_storage().data_ptr()


def test_a_base_of_full_precision_is_not_copied(tmp_path: Path, base_tensors: dict[str, Tensor]) -> None:
    wide = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in base_tensors.items()}
    save_file(wide, tmp_path / "wide.safetensors")
    network = load_model(tmp_path / "wide.safetensors", FULL).network
    for name, original in network.originals.items():
        assert network.unet.get_parameter(name).data_ptr() == original.data_ptr()


def test_extras_of_training_and_an_autoencoder_of_its_own(
    tmp_path: Path, base_tensors: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    """Averaged weights and a mark of v-prediction in the checkpoint, whose autoencoder is another file."""
    extras = {
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.diffusion_modelinput_blocks00weight": torch.zeros(32, 4, 3, 3),
        "v_pred": torch.zeros(0),
    }
    without = {key: tensor for key, tensor in base_tensors.items() if not key.startswith(VAE_PREFIX)}
    own = {key.removeprefix(VAE_PREFIX): t.float() for key, t in base_tensors.items() if key.startswith(VAE_PREFIX)}
    save_file({**without, **extras}, tmp_path / "trained.safetensors")
    save_file(own, tmp_path / "vae.safetensors")
    model = load_model(tmp_path / "trained.safetensors", HALF, vae=tmp_path / "vae.safetensors")
    assert (model.prediction, model.autoencoder.factor) == ("v", 8)
    assert caplog.records == []


def answer(refiner: LoadedRefiner, context: int, adm: Tensor | None) -> Tensor:
    return refiner.network(torch.randn(2, 4, 8, 10), torch.tensor([300.0, 20.0]), torch.randn(2, 77, context), adm)


def test_sdxls_refiner(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    refiner = load_refiner(files / "refiner.safetensors", FULL)
    assert (refiner.kind, refiner.owns_vae, refiner.prediction) == ("sdxl_refiner", False, "eps")
    adm = refiner_adm(torch.randn(1, 128), 64, 80, "positive").expand(2, -1)
    assert answer(refiner, 128, adm).isfinite().all()
    assert caplog.records == []


def test_stable_diffusion_15_as_refiner(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    refiner = load_refiner(files / "sd15.safetensors", FULL, interposer=files / "interposer.safetensors")
    assert (refiner.kind, refiner.owns_vae, refiner.latent_format.name) == ("sd15", True, "sd15")
    assert answer(refiner, 64, None).isfinite().all()
    latents = torch.randn(1, 4, 8, 10)
    assert refiner.translate is not None
    assert refiner.decoded(refiner.translate(latents)).shape == (1, 3, 64, 80)
    assert refiner.preview.begin(latents).picture().shape == (16, 20, 3)
    # Eight heads at every width, unlike SDXL.
    heads = {module.heads for module in refiner.network.unet.modules() if hasattr(module, "to_out")}
    assert heads == {8}
    assert caplog.records == []


def test_a_base_as_refiner(files: Path) -> None:
    refiner = load_refiner(files / "base.safetensors", HALF)
    assert (refiner.kind, refiner.owns_vae) == ("sdxl", False)
    original = refiner.network.originals["conv_in.weight"]
    assert refiner.network.unet.get_parameter("conv_in.weight").data_ptr() == original.data_ptr()


def test_refiners_without_an_autoencoder_work_on_the_bases_latents(files: Path) -> None:
    refiner = load_refiner(files / "refiner.safetensors", HALF)
    with pytest.raises(RuntimeError, match="base model's latents"):
        refiner.decoded(torch.zeros(1, 4, 8, 8))
    with pytest.raises(RuntimeError, match="base model's latents"):
        _ = refiner.preview


def test_what_is_no_refiner_is_refused_by_name(files: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes((files / "refiner.safetensors").read_bytes()[:5000])
    with pytest.raises(UnreadableModel, match=r"cut\.safetensors"):
        load_refiner(tmp_path / "cut.safetensors", HALF)
    with pytest.raises(UnsupportedModel, match=r"interposer\.safetensors"):
        load_refiner(files / "interposer.safetensors", HALF)
    with pytest.raises(UnsupportedModel, match=r"refiner\.safetensors.*translator"):
        load_refiner(files / "sd15.safetensors", HALF, interposer=files / "refiner.safetensors")
    bare = {
        k: t for k, t in open_checkpoint(files / "sd15.safetensors").tensors.items() if not k.startswith(VAE_PREFIX)
    }
    save_file({key: tensor.clone() for key, tensor in bare.items()}, tmp_path / "bare.safetensors")
    with pytest.raises(UnsupportedModel, match=r"bare\.safetensors.*autoencoder"):
        load_refiner(tmp_path / "bare.safetensors", HALF)


def test_an_sd15_base_is_refused_by_name(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with pytest.raises(UnsupportedModel, match=r"sd15\.safetensors.*not an SDXL base"):
        load_model(files / "sd15.safetensors", HALF)
