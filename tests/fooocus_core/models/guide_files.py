"""Thin copies of the published guides' files, in a library, and the thin network that they fit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fooocus_core.library import Library
from fooocus_core.models.checkpoint import UNET_PREFIX
from fooocus_core.models.guide_models import (
    ADAPTER_FILES,
    CONTROL_FILES,
    DETECTOR,
    ENCODER,
    NEGATIVE,
    GuideFile,
)
from fooocus_core.models.loaded import INPAINT_HEAD_FILE, INPAINT_PATCH_FILES
from fooocus_core.models.unet import DiffusionNetwork, load_unet
from tools import synthetic

CPU = torch.device("cpu")
BASE_NAME = "base.safetensors"


@cache
def thin(manifest: str) -> dict[str, Tensor]:
    return synthetic.thin_checkpoint(manifest)


def adapter_content(shift: float = 0.0) -> dict[str, dict[str, Tensor]]:
    """The two dictionaries of an adapter file, in its two types; ``shift`` makes another file of it."""
    tensors = thin(synthetic.IMAGE_ADAPTER)
    projection = {key.removeprefix("image_proj."): t.float() for key, t in tensors.items() if key[:5] == "image"}
    attention = {key.removeprefix("ip_adapter."): t + shift for key, t in tensors.items() if key[:2] == "ip"}
    return {"image_proj": projection, "ip_adapter": attention}


def control_content(shift: float = 0.0) -> dict[str, Tensor]:
    """A control file's tensors; ``shift`` makes another file of it."""
    tensors = thin(synthetic.CONTROL)
    return {key: tensor + shift if key.startswith("zero_convs") else tensor for key, tensor in tensors.items()}


def contents() -> dict[GuideFile, Any]:
    """What every file holds."""
    return {
        DETECTOR: thin(synthetic.FACES),
        ENCODER: thin(synthetic.CLIP_VISION),
        NEGATIVE: thin(synthetic.NEGATIVE),
        ADAPTER_FILES["ImagePrompt"]: adapter_content(),
        ADAPTER_FILES["FaceSwap"]: adapter_content(0.05),
        CONTROL_FILES["PyraCanny"]: control_content(),
        CONTROL_FILES["CPDS"]: control_content(0.05),
    }


def write_guide_files(root: Path, only: Sequence[GuideFile] | None = None) -> Library:
    """The library of a folder with these files, by default all of them."""
    for file, content in contents().items():
        if only is None or file in only:
            write_content(root / file.folder / file.name, content)
    return Library.below(root)


def write_thin_base(root: Path) -> str:
    """A thin SDXL in the library of a folder, with what repainting needs beside it. The checkpoint's name."""
    for folder in ("checkpoints", "inpaint"):
        (root / folder).mkdir()
    save_file(thin(synthetic.BASE), root / "checkpoints" / BASE_NAME)
    channels = thin(synthetic.BASE)[f"{UNET_PREFIX}input_blocks.0.0.weight"].shape[0]
    torch.save({"head": torch.full((channels, 5, 3, 3), 0.02)}, root / "inpaint" / INPAINT_HEAD_FILE)
    weight = thin(synthetic.BASE)[f"{UNET_PREFIX}input_blocks.1.0.in_layers.2.weight"]
    values = torch.arange(weight.numel()).reshape(weight.shape).to(torch.uint8)
    patch = {"diffusion_model.input_blocks.1.0.in_layers.2.weight": (values, torch.tensor(-0.5), torch.tensor(0.5))}
    torch.save(patch, root / "inpaint" / INPAINT_PATCH_FILES["v2.6"])
    return BASE_NAME


def write_content(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in content.items()}, path)
    else:
        torch.save(content, path)


def thin_network() -> DiffusionNetwork:
    """A fresh thin SDXL network in float32."""
    weights = {
        key.removeprefix(UNET_PREFIX): tensor
        for key, tensor in thin(synthetic.BASE).items()
        if key.startswith(UNET_PREFIX)
    }
    return load_unet(weights, "thin.safetensors", device=CPU, dtype=torch.float32)
