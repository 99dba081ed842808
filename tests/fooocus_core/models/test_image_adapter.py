"""IP-Adapter files in both layouts and both kinds, and files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from fooocus_core.adapters.image_prompt import resampled
from fooocus_core.errors import UnsupportedModel
from fooocus_core.models.checkpoint import Checkpoint, read_content
from fooocus_core.models.clip_vision import load_clip_vision
from fooocus_core.models.image_adapter import ImageAdapter, load_image_adapter, negative_tokens, require_fitting
from tests.fooocus_core.models.guide_files import adapter_content, thin
from tools.synthetic import CLIP_VISION, DTYPES, IMAGE_ADAPTER, NEGATIVE, published_shapes

CPU = torch.device("cpu")
LAYERS, IMAGE_WIDTH, TOKEN_WIDTH, PROJECTED = 70, 128, 192, 64
FEATURES = torch.randn(1, 257, IMAGE_WIDTH, generator=torch.Generator().manual_seed(4))


def load(content: Any) -> ImageAdapter:
    return load_image_adapter(content, "adapter.bin", device=CPU, dtype=torch.float32)


def plain_content() -> dict[str, dict[str, Tensor]]:
    """An adapter that takes a picture as one vector, for four tokens."""
    generator = torch.Generator().manual_seed(6)
    projection = {
        "proj.weight": torch.randn(4 * TOKEN_WIDTH, PROJECTED, generator=generator),
        "proj.bias": torch.randn(4 * TOKEN_WIDTH, generator=generator),
        "norm.weight": torch.rand(TOKEN_WIDTH, generator=generator),
        "norm.bias": torch.rand(TOKEN_WIDTH, generator=generator),
    }
    return {**adapter_content(), "image_proj": projection}


def test_a_pickled_plus_adapter(tmp_path: Path) -> None:
    content = adapter_content()
    torch.save(content, tmp_path / "adapter.bin")
    adapter = load(read_content(tmp_path / "adapter.bin"))
    assert (adapter.is_plus, adapter.image_width, len(adapter.layers)) == (True, IMAGE_WIDTH, LAYERS)
    tokens = adapter.tokens(FEATURES)
    torch.testing.assert_close(tokens, resampled(content["image_proj"], FEATURES))
    keys, values = adapter.keys_values(tokens)[4]  # the fifth pair bears the number nine
    attention = content["ip_adapter"]
    torch.testing.assert_close(keys, tokens @ attention["9.to_k_ip.weight"].float().T)
    torch.testing.assert_close(values, tokens @ attention["9.to_v_ip.weight"].float().T)


def test_the_larger_part_is_not_copied(tmp_path: Path) -> None:
    torch.save(adapter_content(), tmp_path / "adapter.bin")
    content = read_content(tmp_path / "adapter.bin")
    adapter = load(content)
    assert adapter.layers[0][1].data_ptr() == content["ip_adapter"]["1.to_v_ip.weight"].data_ptr()


def test_a_flat_file_is_the_same_adapter(tmp_path: Path) -> None:
    flat = {f"{part}.{key}": tensor for part, tensors in adapter_content().items() for key, tensor in tensors.items()}
    save_file(flat, tmp_path / "adapter.safetensors")
    nested, found = load(adapter_content()), load(read_content(tmp_path / "adapter.safetensors"))
    layers = (adapter.keys_values(adapter.tokens(FEATURES)) for adapter in (found, nested))
    for mine, theirs in zip(*layers, strict=True):
        assert torch.equal(mine.keys, theirs.keys)
        assert torch.equal(mine.values, theirs.values)


def test_a_plain_adapter() -> None:
    content = plain_content()
    adapter = load(content)
    embedding = torch.randn(1, PROJECTED)
    weights = content["image_proj"]
    expected = (embedding @ weights["proj.weight"].T + weights["proj.bias"]).reshape(1, 4, TOKEN_WIDTH)
    expected = functional.layer_norm(expected, (TOKEN_WIDTH,), weights["norm.weight"], weights["norm.bias"])
    assert not adapter.is_plus
    torch.testing.assert_close(adapter.tokens(embedding), expected)
    # Its negative is no picture at all, in as many tokens.
    nothing = functional.layer_norm(
        weights["proj.bias"].reshape(1, 4, TOKEN_WIDTH), (TOKEN_WIDTH,), weights["norm.weight"], weights["norm.bias"]
    )
    torch.testing.assert_close(negative_tokens({}, "negative", adapter), nothing)


def test_the_negative_of_a_plus_adapter_is_the_files() -> None:
    stored = thin(NEGATIVE)
    adapter = load(adapter_content())
    assert torch.equal(negative_tokens(stored, "negative", adapter), stored["data"].float())
    assert torch.equal(negative_tokens({"data": stored["data"][0]}, "negative", adapter), stored["data"].float())
    for misfit in ({}, {"data": torch.zeros(1, 4, TOKEN_WIDTH)}, {"data": torch.zeros(1, TOKEN_WIDTH, 16)}):
        with pytest.raises(UnsupportedModel, match=r"negative\.safetensors.*16 tokens 192 wide.*adapter\.bin"):
            negative_tokens(misfit, "negative.safetensors", adapter)


def test_the_published_file_at_full_size() -> None:
    content = {
        key: torch.empty(shape, dtype=DTYPES[dtype], device="meta")
        for key, (shape, dtype) in published_shapes(IMAGE_ADAPTER).items()
    }
    adapter = load_image_adapter(content, "full", device=torch.device("meta"), dtype=torch.float16)
    assert adapter.widths[:5] == (640, 640, 640, 640, 1280)
    assert len(adapter.widths) == LAYERS


def test_an_adapter_for_another_encoder_is_refused() -> None:
    encoder = load_clip_vision(Checkpoint("vision", thin(CLIP_VISION)), device=CPU, dtype=torch.float32)
    require_fitting(load(adapter_content()), encoder, "vision.safetensors")
    require_fitting(load(plain_content()), encoder, "vision.safetensors")
    content = plain_content()
    content["image_proj"]["proj.weight"] = torch.zeros(4 * TOKEN_WIDTH, PROJECTED + 1)
    with pytest.raises(UnsupportedModel, match=r"adapter\.bin.*65 wide.*vision\.safetensors gives 64"):
        require_fitting(load(content), encoder, "vision.safetensors")


def without(part: str, key: str) -> Any:
    content = adapter_content()
    del content[part][key]
    return content


def with_tensor(part: str, key: str, tensor: Tensor) -> Any:
    content = adapter_content()
    content[part][key] = tensor
    return content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (torch.zeros(3), "no IP-Adapter"),
        ({"lora_unet_x.lora_up.weight": torch.zeros(3)}, "no image_proj"),
        ({"image_proj": adapter_content()["image_proj"]}, "no ip_adapter"),
        ({**adapter_content(), "ip_adapter": {"x": torch.zeros(1)}}, "without layers"),
        (without("ip_adapter", "9.to_v_ip.weight"), "incomplete .*9.to_v_ip"),
        (without("image_proj", "latents"), "do not fit"),
        (without("image_proj", "layers.2.1.3.weight"), "do not fit .*layers.2.1.3"),
        (with_tensor("image_proj", "proj_out.weight", torch.zeros(7, 9)), "do not fit"),
        (with_tensor("ip_adapter", "5.to_k_ip.weight", torch.zeros(64, 9)), "do not fit"),
        (with_tensor("ip_adapter", "5.to_k_ip.weight", torch.zeros(60, 192)), "unlike"),
        (with_tensor("ip_adapter", "x.to_k_ip.weight", torch.zeros(64, 192)), "incomplete"),
    ],
)
def test_what_is_no_adapter_is_refused_by_name(content: Any, reason: str) -> None:
    with pytest.raises(UnsupportedModel, match=rf"adapter\.bin: .*{reason}"):
        load(content)
