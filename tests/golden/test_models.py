"""Golden family D: denoising network, autoencoder, text encoders and preview, loaded by the general loaders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from fooocus_core.conditioning.adm import select_timed_adm
from fooocus_core.conditioning.chunks import prompt_chunks
from fooocus_core.conditioning.encode import EncodedText, TextEncoders
from fooocus_core.conditioning.inversion import EmbeddingFiles
from fooocus_core.conditioning.tokenizer import stock_tokenizer
from fooocus_core.models.autoencoder import Autoencoder, load_autoencoder
from fooocus_core.models.interposer import load_interposer
from fooocus_core.models.preview import PreviewNetwork, load_preview
from fooocus_core.models.text_encoders import load_text_g, load_text_l
from fooocus_core.models.tiles import tiled
from fooocus_core.models.unet import DiffusionNetwork, unet_names
from fooocus_core.models.upscaler import as_picture, load_upscaler
from fooocus_core.stages.picture_latents import latent_mask, masked_pixels
from tests.golden.networks import first_network, second_network
from tests.golden.vectors import golden_json, golden_tensors

CPU = torch.device("cpu")
TOLERANCE = 1e-4
UNET = golden_json("D_models/unet.json")


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


# --- denoising network --------------------------------------------------------------------------------------------


@cache
def unet_io() -> dict[str, Tensor]:
    return golden_tensors("D_models/unet_io.safetensors")


def inputs_of(net: DiffusionNetwork, case: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, timesteps, context, y = (unet_io()[f"{case['id']}/{part}"] for part in ("x", "timesteps", "context", "y"))
    if case["adm_scaler_end"] is not None:
        y = select_timed_adm(y, timesteps, case["adm_scaler_end"], net.adm_width)
    return x, timesteps, context, y


def evaluate(net: DiffusionNetwork, case: dict[str, Any]) -> Tensor:
    return net(*inputs_of(net, case))


@pytest.mark.parametrize("case", UNET["cases"], ids=lambda case: case["id"])
def test_unet(case: dict[str, Any]) -> None:
    close(evaluate(first_network(), case), unet_io()[f"{case['id']}/output"])


SECOND = [case for case in UNET["cases"] if f"{case['id']}/output_second_unet" in unet_io()]


@pytest.mark.parametrize("case", SECOND, ids=lambda case: case["id"])
def test_second_unet(case: dict[str, Any]) -> None:
    close(evaluate(second_network(), case), unet_io()[f"{case['id']}/output_second_unet"])


@contextmanager
def recorded_outputs(net: DiffusionNetwork) -> Iterator[dict[str, Tensor]]:
    """Collects the output of the last part of every block, under the block's ldm name."""
    outputs: dict[str, Tensor] = {}
    parts: dict[str, nn.Module] = dict(net.unet.named_modules())
    last = {}
    for ldm_name, name in unet_names(net.shape).items():
        if not ldm_name.startswith(("time", "label", "out.")):
            last[ldm_name.rpartition(".")[0]] = parts[name]

    def keep(block: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs[block] = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)

        return hook

    handles = [part.register_forward_hook(keep(block)) for block, part in last.items()]
    yield outputs
    for handle in handles:
        handle.remove()


def test_unet_block_by_block() -> None:
    probed = UNET["block_probes"]
    case = next(case for case in UNET["cases"] if case["id"] == probed["case"])
    network: Any = first_network()
    x, timesteps, context, y = inputs_of(network, case)
    with recorded_outputs(network) as outputs, torch.no_grad():  # by diffusers' modules, one after the other
        network.unet(x, timesteps, encoder_hidden_states=context, class_labels=y)
    for probe in probed["probes"]:
        output = outputs[probe["block"]]
        assert list(output.shape) == probe["shape"], probe["block"]
        assert output.mean().item() == pytest.approx(probe["mean"], abs=TOLERANCE), probe["block"]
        assert output.std().item() == pytest.approx(probe["std"], abs=TOLERANCE), probe["block"]
        close(output.flatten()[torch.tensor(probe["at_index"])], torch.tensor(probe["values"]))


# --- text ---------------------------------------------------------------------------------------------------------

TEXT = golden_json("D_models/text.json")
TEXT_PREFIXES = {"l": "conditioner.embedders.0.transformer.text_model.", "g": "conditioner.embedders.1.model."}
TOKEN_TABLES = {"l": "embeddings.token_embedding.weight", "g": "token_embedding.weight"}


def token_table(encoder: str) -> Tensor:
    """The token embedding given by formula: integer phases, sine in double precision, then float32."""
    table, width = TEXT["token_embedding"], TEXT["config"][encoder]["hidden_size"]
    t, j = torch.arange(table["rows"])[:, None], torch.arange(width)[None]
    phase = (t * (table[encoder]["a"] + table[encoder]["b"] * j) + table[encoder]["c"] * j * j) % 9973
    return (0.6 * torch.sin(2 * torch.pi * phase.double() / 9973)).float()


def encoder_weights(encoder: str) -> dict[str, Tensor]:
    prefix = TEXT_PREFIXES[encoder]
    stored = golden_tensors("D_models/text_encoders.safetensors").items()
    weights = {key.removeprefix(prefix): tensor for key, tensor in stored if key.startswith(prefix)}
    return {**weights, TOKEN_TABLES[encoder]: token_table(encoder)}


@cache
def text_encoders() -> TextEncoders:
    def loaded(load: Any, encoder: str) -> Any:
        sizes = TEXT["config"][encoder]
        head_width = sizes["hidden_size"] // sizes["num_attention_heads"]
        # float32: the token table is not exact in float16
        return load(encoder_weights(encoder), "text", device=CPU, dtype=torch.float32, head_width=head_width)

    return TextEncoders(loaded(load_text_l, "l"), loaded(load_text_g, "g"), stock_tokenizer())


@cache
def text_io() -> dict[str, Tensor]:
    return golden_tensors("D_models/text_io.safetensors")


def assert_encoded(encoded: EncodedText, key: str) -> None:
    close(encoded.context, text_io()[f"{key}/cond"])
    close(encoded.pooled, text_io()[f"{key}/pooled"])


@pytest.mark.parametrize("case", TEXT["tokenize"], ids=lambda case: case["text"][:24])
@pytest.mark.parametrize(("encoder", "pad"), [("l", 49407), ("g", 0)])
def test_tokens_and_weights(case: dict[str, Any], encoder: str, pad: int) -> None:
    chunks = prompt_chunks(case["text"], text_encoders().tokenizer, pad)
    assert [list(chunk.tokens) for chunk in chunks] == case[encoder]["ids"]
    not_one = [[[place, w] for place, w in enumerate(chunk.weights) if w != 1.0] for chunk in chunks]
    assert not_one == case[encoder]["weights_not_one"]


@pytest.mark.parametrize("case", TEXT["encode"], ids=lambda case: case["key"])
def test_text_encoding(case: dict[str, Any]) -> None:
    encoded = text_encoders().encode(case["text"], case["clip_skip"])
    assert encoded.context.shape[1] == 77 * case["chunks"]
    assert_encoded(encoded, case["key"])


@pytest.mark.parametrize("case", TEXT["multi"], ids=lambda case: case["key"])
def test_several_texts(case: dict[str, Any]) -> None:
    assert_encoded(text_encoders().encode_all(case["texts"], case["pool_top_k"], clip_skip=2), case["key"])


@pytest.mark.parametrize("case", TEXT["inversion"], ids=lambda case: case["key"])
def test_textual_inversion(case: dict[str, Any], tmp_path: Path) -> None:
    vectors = {f"clip_{encoder}": text_io()[f"inversion/embedding_{encoder}"] for encoder in "lg"}
    save_file(vectors, tmp_path / f"{case['embedding_name']}.safetensors")
    encoded = text_encoders().encode(case["text"], case["clip_skip"], EmbeddingFiles([tmp_path]))
    assert_encoded(encoded, case["key"])


# --- autoencoder --------------------------------------------------------------------------------------------------

VAE = golden_json("D_models/vae.json")


@cache
def vae_io() -> dict[str, Tensor]:
    return golden_tensors("D_models/vae_io.safetensors")


@cache
def autoencoder() -> Autoencoder:
    stored = golden_tensors("D_models/vae.safetensors").items()
    weights = {key.removeprefix("first_stage_model."): tensor for key, tensor in stored}
    return load_autoencoder(weights, "vae.safetensors", device=CPU, dtype=torch.float32)


def chw(name: str) -> Tensor:
    """A recorded picture ``[1, H, W, 3]`` as ``[1, 3, H, W]`` in [0, 1]."""
    picture = vae_io()[name].movedim(3, 1)
    return picture if picture.is_floating_point() else picture.float() / 255


def tilings(case: dict[str, Any], order: str) -> tuple[tuple[int, int], ...]:
    x, y = case["tile_x"], case["tile_y"]
    wide, tall = (2 * x, y // 2), (x // 2, 2 * y)
    return ((x, y), wide, tall) if order == "encode" else (tall, wide, (x, y))


def test_decode() -> None:
    close(autoencoder().decode_raw(vae_io()["latent"]), vae_io()["decoded_raw"])
    close(autoencoder().decode(vae_io()["latent"]).movedim(1, 3), vae_io()["decoded"])


def test_encode() -> None:
    mean, log_variance = autoencoder().moments(chw("pixels") * 2 - 1)
    close(torch.cat([mean, log_variance], 1), vae_io()["moments"])
    encoded = autoencoder().encode(chw("pixels"), vae_io()["encode_randn"])
    close(encoded, vae_io()["encoded_sample"])


@pytest.mark.parametrize(
    ("pixels", "seed", "expected"),
    [("pixels", "encode_seed", "encoded_sample"), ("odd_pixels", "odd_encode_seed", "odd_encoded_sample")],
)
def test_encode_with_the_global_generator(pixels: str, seed: str, expected: str) -> None:
    torch.manual_seed(VAE[seed])
    close(autoencoder().encode(chw(pixels)), vae_io()[expected])


def test_encode_for_inpainting() -> None:
    mask = vae_io()["inpaint_mask"][:, None]
    torch.manual_seed(VAE["inpaint_encode_seed"])
    latent = autoencoder().encode(masked_pixels(chw("pixels"), mask))
    close(latent, vae_io()["inpaint_latent"])
    torch.testing.assert_close(latent_mask(mask, latent, autoencoder().factor), vae_io()["inpaint_latent_mask"])


def test_tiled_decode() -> None:
    case = VAE["tiled_decode"]
    decoded = autoencoder().decode_tiled(vae_io()["tile_latent"], tilings(case, "decode"), case["overlap"])
    close(decoded.movedim(1, 3), vae_io()["tile_decoded"])


@pytest.mark.parametrize("case", VAE["tiled_decode_sizes"], ids=lambda case: case["key"])
def test_tiled_decode_sizes(case: dict[str, Any]) -> None:
    decoded = autoencoder().decode_tiled(vae_io()[f"{case['key']}/latent"], tilings(case, "decode"), case["overlap"])
    close(decoded.movedim(1, 3)[:, ::3, ::3], vae_io()[f"{case['key']}/decoded_every3"])


def test_tiled_encode() -> None:
    case = VAE["tiled_encode"]
    torch.manual_seed(case["seed"])
    encoded = autoencoder().encode_tiled(chw("tile_pixels"), tiles=tilings(case, "encode"), overlap=case["overlap"])
    close(encoded, vae_io()["tile_encoded"])


@pytest.mark.parametrize("case", VAE["tiled_encode_sizes"], ids=lambda case: case["key"])
def test_tiled_encode_sizes(case: dict[str, Any]) -> None:
    torch.manual_seed(case["seed"])
    encoded = autoencoder().encode_tiled(
        chw(f"{case['key']}/pixels_u8"), tiles=tilings(case, "encode"), overlap=case["overlap"]
    )
    close(encoded, vae_io()[f"{case['key']}/encoded"])


# --- preview ------------------------------------------------------------------------------------------------------


@cache
def preview(weights: str) -> PreviewNetwork:
    """``second``: the same network with ``conv8.weight`` negated."""
    prefix = "preview_weights/"
    stored = {key.removeprefix(prefix): tensor for key, tensor in vae_io().items() if key.startswith(prefix)}
    if weights == "second":
        stored["conv8.weight"] = -stored["conv8.weight"]
    return load_preview(stored, "preview.pth", device=CPU, dtype=torch.float32)


def assert_same_picture(actual: Any, expected: Tensor) -> None:
    """8-bit images: one level apart at most."""
    assert actual.shape == tuple(expected.shape)
    assert (torch.from_numpy(actual).int() - expected.int()).abs().max() <= 1


def test_preview() -> None:
    close(preview("first").raw(vae_io()["latent"]), vae_io()["preview_out"])
    assert_same_picture(preview("first").begin(vae_io()["latent"]).picture(), vae_io()["preview_u8"])


@pytest.mark.parametrize("case", VAE["preview_sizes"], ids=lambda case: case["key"])
def test_preview_sizes(case: dict[str, Any]) -> None:
    picture = preview(case["weights"]).begin(vae_io()[f"{case['key']}/latent"]).picture()
    assert_same_picture(picture, vae_io()[f"{case['key']}/u8"])


# --- tiles --------------------------------------------------------------------------------------------------------

UPSCALER = golden_json("D_models/upscaler.json")


def test_tiles_with_a_stand_in_network() -> None:
    """The stand-in: nearest enlargement plus the mean of the tile."""
    io, case = golden_tensors("D_models/upscaler.safetensors"), UPSCALER["tile"]
    scale = case["upscale"]

    def stand_in(tile: Tensor) -> Tensor:
        return functional.interpolate(tile, scale_factor=scale, mode="nearest") + tile.mean()

    size, source = (case["tile_x"], case["tile_y"]), io["tile/input"]
    enlarged = tiled(source, stand_in, tile=size, overlap=case["overlap"], scale=scale, channels=source.shape[1])
    close(enlarged, io["tile/output"])


# --- networks beside the pipeline ---------------------------------------------------------------------------------


def prefixed(tensors: dict[str, Tensor], prefix: str = "weights/") -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def test_upscaler() -> None:
    io = golden_tensors("D_models/upscaler.safetensors")
    upscaler = load_upscaler(prefixed(io), "upscaler.bin", device=CPU)
    assert upscaler.scale == UPSCALER["scale"]
    pixels = io["image"].float().movedim(2, 0)[None] / 255
    close(upscaler.enlarge(pixels), io["network_out"].clamp(0, 1))
    assert_same_picture(as_picture(upscaler.enlarge(pixels)), io["upscaled_u8"])


@pytest.mark.parametrize("key", [case["key"] for case in golden_json("D_models/interposer.json")["cases"]])
def test_interposer(key: str) -> None:
    io = golden_tensors("D_models/interposer.safetensors")
    interposer = load_interposer(prefixed(io), "interposer.safetensors", device=CPU, dtype=torch.float32)
    close(interposer(io[f"{key}/in"]), io[f"{key}/out"])
