"""A safety checker in the published layout, a sixteenth as wide, with one layer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fooocus_core.filter.content_filter import CHECKER_FILE
from tools.synthetic import published_shapes

CHECKER = "stable-diffusion-safety-checker"
ALWAYS, NEVER = -2.0, 2.0
"""Thresholds: every cosine is above the first, and none above the second."""


def thin_checker(threshold: float = NEVER) -> dict[str, Tensor]:
    """``threshold``: of every concept."""
    generator = torch.Generator().manual_seed(1)
    return {
        key: _values(
            key, tuple(size // 16 if size % 768 == 0 or size % 1024 == 0 else size for size in shape), generator
        )
        if not key.endswith("embeds_weights")
        else torch.full(shape, threshold)
        for key, (shape, _) in published_shapes(CHECKER).items()
        if ".layers." not in key or ".layers.0." in key
    }


def _values(key: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if key.endswith("position_ids"):
        return torch.arange(shape[-1])[None]
    noise = torch.randn(shape, generator=generator)
    return 1 + noise / 10 if len(shape) == 1 and key.endswith("norm.weight") else noise / 5


def write_checker(root: Path, threshold: float = NEVER) -> Path:
    """Into the folder below the models' root; returns the file."""
    path = root / "safety_checker" / CHECKER_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(thin_checker(threshold), path)
    return path
