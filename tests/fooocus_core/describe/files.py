"""Small files in the layouts of the published ones: BLIP's checkpoint, and a tagger with its list."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fooocus_core.describe.describer import CAPTION_FILE, TAGGER_FILE, TAGS_FILE
from fooocus_core.describe.photograph import END_ID
from tests.fooocus_core.onnx_files import write_mean_network
from tools.synthetic import published_shapes

CAPTIONER = "model_base_caption_capfilt_large"
SIDE_PX = 32
LAYERS = 2
TAGS = [
    ("rating", "9"),
    ("bluish", "0"),
    ("red_(colour)", "0"),
    ("greenish", "0"),
    ("hero_(story)", "4"),
    ("nobody", "4"),
]


def thin_captioner() -> dict[str, Tensor]:
    """A twelfth of the width, two layers of each kind, and a square of 32 pixels; the whole vocabulary."""
    generator = torch.Generator().manual_seed(1)
    weights = {
        key: _values(key, _thin(key, shape), generator)
        for key, (shape, _) in published_shapes(CAPTIONER).items()
        if not any(part.isdigit() and int(part) >= LAYERS for part in key.split("."))
    }
    head = "text_decoder.cls.predictions."
    weights[f"{head}bias"][END_ID] = 7.0  # likely enough that captions are short
    return {
        **weights,
        f"{head}decoder.weight": weights["text_decoder.bert.embeddings.word_embeddings.weight"],
        f"{head}decoder.bias": weights[f"{head}bias"],
    }


def _thin(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if key == "visual_encoder.pos_embed":
        return (1, (SIDE_PX // 16) ** 2 + 1, shape[2] // 12)
    return tuple(size // 12 if size % 768 == 0 else size for size in shape)


def _values(key: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if key.endswith("position_ids"):
        return torch.arange(math.prod(shape)).reshape(shape)
    noise = torch.randn(shape, generator=generator)
    return 1 + noise / 10 if len(shape) == 1 and key.endswith("weight") else noise / 5


def write_captioner(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": thin_captioner()}, folder / CAPTION_FILE)
    return folder / CAPTION_FILE


def write_tagger(folder: Path, tags: list[tuple[str, str]] = TAGS) -> tuple[Path, Path]:
    """A network that scores what its colours are; see ``TAGS``. One of white scores 1 everywhere."""
    folder.mkdir(parents=True, exist_ok=True)
    blue_green_red = np.array(
        [[1, 1, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0], [1, 0, 1, 0, 0.9, 0.8]], np.float32
    )  # the colours as the network is given them
    write_mean_network(folder / TAGGER_FILE, SIDE_PX, blue_green_red / 255)
    lines = ["tag_id,name,category,count", *(f"{n},{name},{kind},1" for n, (name, kind) in enumerate(tags))]
    (folder / TAGS_FILE).write_text("\n".join([*lines, ""]), encoding="utf-8")
    return folder / TAGGER_FILE, folder / TAGS_FILE
