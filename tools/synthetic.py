"""Checkpoints in the published layouts with random values: for tests, and at full size for benchmarks.

A manifest (``tools/manifests``) holds every key of a published file with its shape and type. A *thin* copy has the same
keys, depths and types at about a tenth of the widths.

    python -m tools.synthetic sdxl_base_checkpoint big.safetensors        # 6.9 GB
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MANIFESTS = Path(__file__).parent / "manifests"
BASE, REFINER, SD15 = "sdxl_base_checkpoint", "sdxl_refiner_checkpoint", "sd15_checkpoint"
INTERPOSER = "xl-to-v1_interposer-v4.0"
FACES = "detection_Resnet50_Final"
CLIP_VISION, NEGATIVE = "clip_vision_vit_h", "fooocus_ip_negative"
IMAGE_ADAPTER, CONTROL = "ip-adapter-plus_sdxl_vit-h", "control-lora-rank128"
BLOCK_BYTES = 2**24
BYTES = {"F16": 2, "F32": 4, "I64": 8}
DTYPES = {"F16": torch.float16, "F32": torch.float32, "I64": torch.int64}

Shapes = dict[str, tuple[tuple[int, ...], str]]


def published_shapes(manifest: str) -> Shapes:
    """Every key with its shape and type."""
    stored: Mapping[str, Any] = json.loads((MANIFESTS / f"{manifest}.json").read_text(encoding="utf-8"))
    return {key: (tuple(shape), dtype) for key, (shape, dtype) in stored.items()}


# --- thin copies --------------------------------------------------------------------------------------------------

_UNET = {
    # Text contexts of 64 (CLIP-L) and 128 (bigG) channels; the size vectors keep their 6 or 5 times 256 values.
    BASE: (10, 320, {2048: 64 + 128, 2816: 128 + 6 * 256}),
    REFINER: (12, 384, {1280: 128, 2560: 128 + 5 * 256}),
    SD15: (10, 320, {768: 64}),
}
_GUIDES = {
    CLIP_VISION: (10, 1280, {1024: 64, 3072: 192, 4096: 256, 49408: 99}),
    # Tokens are as wide as the thin base's text contexts, as they are in the published files.
    IMAGE_ADAPTER: (10, 640, {2048: 64 + 128}),
    NEGATIVE: (10, 640, {2048: 64 + 128}),
    CONTROL: (10, 320, {2048: 64 + 128, 2816: 128 + 6 * 256, 128: 12}),
}


def thin_checkpoint(
    manifest: str, dtype: torch.dtype = torch.float16, keep: Callable[[str], bool] = lambda key: True
) -> dict[str, Tensor]:
    """Every key of the published file, or those to ``keep``; the same numbers each time."""
    generator = torch.Generator().manual_seed(1)
    return {
        key: _values(key, _thin_shape(manifest, key, shape), stored, generator, dtype)
        for key, (shape, stored) in published_shapes(manifest).items()
        if keep(key)
    }


def _thin_shape(manifest: str, key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if manifest in _GUIDES or key.startswith("model.diffusion_model."):
        divisor, unit, named = (_GUIDES if manifest in _GUIDES else _UNET)[manifest]
        return tuple(named.get(size, size // divisor if size % unit == 0 else size) for size in shape)
    if key.startswith("first_stage_model."):
        return tuple(size // 4 if size % 128 == 0 else size for size in shape)
    if key.startswith(("conditioner.embedders.0.transformer.", "cond_stage_model.")):
        return tuple(size // 12 if size % 768 == 0 else size for size in shape)
    if key.startswith("conditioner.embedders."):
        return tuple(size // 10 if size % 1280 == 0 else size for size in shape)
    return tuple(size // 8 if size % 64 == 0 else size for size in shape)  # the interposer, the detector of faces


def _values(key: str, shape: tuple[int, ...], stored: str, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Weights of about the size training starts from, so that a picture stays finite through all layers."""
    if stored == "I64":
        return torch.arange(math.prod(shape)).reshape(shape)
    if key.endswith(("bias", "running_mean")) or not shape:
        return torch.zeros(shape, dtype=dtype)
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype)
    return (torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))).to(dtype)


# --- full size ----------------------------------------------------------------------------------------------------


def write_full_size(manifest: str, path: Path, stored: str | None = None) -> int:
    """Write the file block by block, in little memory; returns its bytes. ``stored`` replaces F16: ``F32``."""
    shapes = {
        key: (shape, stored if stored and dtype == "F16" else dtype)
        for key, (shape, dtype) in published_shapes(manifest).items()
    }
    header = _header_bytes(shapes)
    block = np.random.default_rng(1).integers(0, 256, BLOCK_BYTES, dtype=np.uint8)
    block[1::2] &= 0x3B  # the upper byte of a float16: no infinity, nothing beyond 1
    with path.open("wb") as file:
        file.write(header)
        left = sum(_bytes(*entry) for entry in shapes.values())
        while left:
            left -= file.write(memoryview(block)[: min(left, BLOCK_BYTES)])
    return path.stat().st_size


def write_hollow(manifest: str, path: Path) -> int:
    """The file with zeros for values, which take no room on a disk that knows holes; returns its bytes."""
    shapes = published_shapes(manifest)
    header = _header_bytes(shapes)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sum(_bytes(*entry) for entry in shapes.values()))
    return path.stat().st_size


def _header_bytes(shapes: Shapes) -> bytes:
    """What a safetensors file begins with, its own length in front."""
    header = json.dumps(dict(_entries(shapes)), separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def _entries(shapes: Shapes) -> Iterator[tuple[str, dict[str, Any]]]:
    start = 0
    # Wider types first, as writers do: every tensor is then aligned.
    for key, (shape, dtype) in sorted(shapes.items(), key=lambda item: -BYTES[item[1][1]]):
        end = start + _bytes(shape, dtype)
        yield key, {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
        start = end


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    return math.prod(shape) * BYTES[dtype]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a checkpoint of a published layout with random values.")
    parser.add_argument("manifest", choices=sorted(path.stem for path in MANIFESTS.glob("*.json")))
    parser.add_argument("path", type=Path)
    parser.add_argument("--dtype", choices=("F16", "F32"), default="F16")
    asked = parser.parse_args()
    print(write_full_size(asked.manifest, asked.path, asked.dtype), "bytes")  # noqa: T201 - its purpose


if __name__ == "__main__":
    main()
