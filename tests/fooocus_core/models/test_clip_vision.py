"""The image encoder, from both layouts of its file, beside one written out in open_clip's names."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from fooocus_core.errors import UnsupportedModel
from fooocus_core.models.checkpoint import Checkpoint, open_checkpoint
from fooocus_core.models.clip_vision import HEADS, ClipVisionEncoder, load_clip_vision
from fooocus_core.models.text_encoders import Activation
from tests.fooocus_core.models.guide_files import thin
from tools.synthetic import CLIP_VISION, DTYPES, published_shapes

CPU = torch.device("cpu")
WIDTH, LAYERS, PROJECTED, PATCH_PX = 128, 32, 64, 14
PIXELS = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(5))


def rough(manifest: str = CLIP_VISION) -> dict[str, Tensor]:
    """The thin copy, with biases and norms that count."""
    generator = torch.Generator().manual_seed(9)
    return {
        key: (tensor + 0.1 * torch.randn(tensor.shape, generator=generator).to(tensor)) if tensor.ndim == 1 else tensor
        for key, tensor in thin(manifest).items()
    }


def load(tensors: dict[str, Tensor], activation: Activation = "gelu") -> ClipVisionEncoder:
    file = Checkpoint("vision.safetensors", tensors)
    return load_clip_vision(file, device=CPU, dtype=torch.float32, activation=activation)


def reference(tensors: dict[str, Tensor], layers: int) -> Tensor:
    """So many layers of open_clip's vision transformer, ``[257, width]``."""
    w = {key.removeprefix("visual."): t.float() for key, t in tensors.items() if key.startswith("visual.")}
    patches = functional.conv2d(PIXELS, w["conv1.weight"], stride=PATCH_PX)[0].flatten(1).T
    x = torch.cat([w["class_embedding"][None], patches]) + w["positional_embedding"]
    x = functional.layer_norm(x, (WIDTH,), w["ln_pre.weight"], w["ln_pre.bias"])
    for index in range(layers):
        b = {key.split(".", 3)[3]: t for key, t in w.items() if key.startswith(f"transformer.resblocks.{index}.")}
        normed = functional.layer_norm(x, (WIDTH,), b["ln_1.weight"], b["ln_1.bias"])
        q, k, v = (normed @ b["attn.in_proj_weight"].T + b["attn.in_proj_bias"]).chunk(3, -1)
        q, k, v = (part.reshape(-1, HEADS, WIDTH // HEADS).transpose(0, 1) for part in (q, k, v))
        mixed = (q @ k.transpose(1, 2) / (WIDTH // HEADS) ** 0.5).softmax(-1) @ v
        x = x + mixed.transpose(0, 1).flatten(1) @ b["attn.out_proj.weight"].T + b["attn.out_proj.bias"]
        normed = functional.layer_norm(x, (WIDTH,), b["ln_2.weight"], b["ln_2.bias"])
        inner = functional.gelu(normed @ b["mlp.c_fc.weight"].T + b["mlp.c_fc.bias"])
        x = x + inner @ b["mlp.c_proj.weight"].T + b["mlp.c_proj.bias"]
    return x


def test_features_and_embedding_are_open_clips() -> None:
    tensors = rough()
    encoder = load(tensors)
    features = encoder.features(PIXELS)
    assert (features.shape, features.dtype) == ((1, 257, WIDTH), torch.float32)
    torch.testing.assert_close(features[0], reference(tensors, LAYERS - 1), atol=1e-4, rtol=1e-4)
    last = reference(tensors, LAYERS)[0]
    normed = functional.layer_norm(
        last, (WIDTH,), tensors["visual.ln_post.weight"].float(), tensors["visual.ln_post.bias"].float()
    )
    expected = normed @ tensors["visual.proj"].float()
    torch.testing.assert_close(encoder.embedding(PIXELS)[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_a_file_in_transformers_names(activation: Activation) -> None:
    """transformers' own network is asked for the same two things."""
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        image_size=224,
        patch_size=PATCH_PX,
        hidden_act=activation,
        projection_dim=PROJECTED,
    )
    torch.manual_seed(2)
    theirs = CLIPVisionModelWithProjection(config)
    theirs.train(False)
    encoder = load(dict(theirs.state_dict()), activation)
    with torch.no_grad():
        found = theirs(PIXELS, output_hidden_states=True)
    torch.testing.assert_close(encoder.features(PIXELS), found.hidden_states[-2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.embedding(PIXELS), found.image_embeds, atol=1e-5, rtol=1e-5)


def test_a_file_on_disk_stays_mapped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file(thin(CLIP_VISION), tmp_path / "vision.safetensors")
    file = open_checkpoint(tmp_path / "vision.safetensors")
    encoder = load_clip_vision(file, device=CPU, dtype=torch.float32)
    stored = file.tensors["visual.transformer.resblocks.3.mlp.c_fc.weight"]
    assert encoder.model.get_parameter("encoder.layers.3.mlp.fc1.weight").data_ptr() == stored.data_ptr()
    assert caplog.records == []  # the text tower is no surprise


def test_the_published_file_at_full_size(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    meta = torch.device("meta")
    tensors = {
        key: torch.empty(shape, dtype=DTYPES[dtype], device=meta)
        for key, (shape, dtype) in published_shapes(CLIP_VISION).items()
    }
    encoder = load_clip_vision(Checkpoint("full", tensors), device=meta, dtype=torch.float16)
    assert (encoder.shape.width, encoder.shape.layers, encoder.shape.inner_width) == (1280, 32, 5120)
    assert (encoder.shape.positions, encoder.projected_width) == (257, 1024)
    assert caplog.records == []


def test_other_files_are_refused_by_name() -> None:
    whole = thin(CLIP_VISION)
    visual = {key: tensor for key, tensor in whole.items() if key.startswith("visual.")}
    large = {**visual, "visual.positional_embedding": torch.zeros(577, WIDTH)}
    misfits = {
        "no CLIP image encoder": {key: tensor for key, tensor in whole.items() if key not in visual},
        "ln_pre|pre_layrnorm": {key: tensor for key, tensor in visual.items() if "ln_pre.weight" not in key},
        "projection": {key: tensor for key, tensor in visual.items() if key != "visual.proj"},
        "another size than 224": large,
    }
    for reason, tensors in misfits.items():
        with pytest.raises(UnsupportedModel, match=rf"vision\.safetensors.*({reason})"):
            load(tensors)
