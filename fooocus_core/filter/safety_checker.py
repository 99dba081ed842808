"""Stable Diffusion's safety checker: a picture is compared with twenty concepts, in CLIP's space.

Specification: 07, section 4. In float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from fooocus_core.adapters.image_prompt import CLIP_PX, clip_pixels
from fooocus_core.errors import UnsupportedModel
from fooocus_core.images.pixels import Picture, as_floats
from fooocus_core.models.checkpoint import Checkpoint, open_checkpoint
from fooocus_core.models.clip_vision import ClipVisionEncoder, load_clip_vision

NEAR_SPECIAL_CARE: Final = np.float32(0.01)
"""By how much a picture that needs special care is taken to be nearer to all that is judged after it."""
DECIMALS: Final = 3
_WRAPPED, _PLAIN = "vision_model.vision_model.", "vision_model."


class Concepts(NamedTuple):
    """``embeddings``: ``[concepts, width]``; ``thresholds``: ``[concepts]``, the cosines from which they are there."""

    embeddings: Tensor
    thresholds: Tensor

    def margins(self, image: Tensor) -> list[np.float32]:
        """By how much the cosine of ``image``, ``[1, width]``, with each is above its threshold."""
        cosines = (normalize(image) @ normalize(self.embeddings).T)[0]
        return list((cosines - self.thresholds).cpu().numpy())


@dataclass(frozen=True)
class SafetyChecker:
    """The loaded network with its concepts; those that need ``special_care`` make it stricter with the others."""

    name: str
    encoder: ClipVisionEncoder
    special_care: Concepts
    concepts: Concepts

    @torch.no_grad()
    def is_unsafe(self, picture: Picture) -> bool:
        """Raises ``UnsupportedModel`` for a network whose output is no number."""
        image = self.encoder.embedding(clip_pixels(torch.from_numpy(as_floats(centre(picture)))))
        if not bool(torch.isfinite(image).all()):
            raise UnsupportedModel(self.name, "the network's output holds values that are not numbers")
        return shows_any(self.special_care.margins(image), self.concepts.margins(image))


def shows_any(special_care: Sequence[np.float32], concepts: Sequence[np.float32]) -> bool:
    """Whether any of ``concepts`` is there, by the margins of all. After a special one that is, all count as nearer."""
    nearer = np.float32(0)
    for margin in special_care:
        if _is_there(margin + nearer):
            nearer = NEAR_SPECIAL_CARE
    return any(_is_there(margin + nearer) for margin in concepts)


def _is_there(margin: np.float32) -> bool:
    return bool(np.round(margin, DECIMALS) > 0)


def centre(picture: Picture) -> Picture:
    """The middle square as CLIP's image encoder sees it: the shorter side 224 pixels long, by bicubic interpolation."""
    height, width = picture.shape[:2]
    shorter = min(height, width)
    width, height = (CLIP_PX * side // shorter for side in (width, height))
    image = Image.fromarray(picture)
    # Two calls: only then is the horizontal pass first in every Pillow.
    wide = image.resize((width, image.height), Image.Resampling.BICUBIC)
    resized = np.array(wide.resize((width, height), Image.Resampling.BICUBIC))
    top, left = (height - CLIP_PX) // 2, (width - CLIP_PX) // 2
    return resized[top : top + CLIP_PX, left : left + CLIP_PX]


def load_safety_checker(path: Path, device: torch.device) -> SafetyChecker:
    """The published file. Raises ``UnreadableModel``, and ``UnsupportedModel`` for any other."""
    file = open_checkpoint(path)
    encoder = load_clip_vision(_unwrapped(file), device=device, dtype=torch.float32, activation="quick_gelu")
    return SafetyChecker(
        file.name,
        encoder,
        _concepts(file, "special_care_embeds", encoder),
        _concepts(file, "concept_embeds", encoder),
    )


def _unwrapped(file: Checkpoint) -> Checkpoint:
    """The image encoder under the names of transformers' own files, which hold it one level higher."""
    tensors = {
        key.replace(_WRAPPED, _PLAIN) if key.startswith(_WRAPPED) else key: tensor
        for key, tensor in file.tensors.items()
    }
    return Checkpoint(file.name, tensors)


def _concepts(file: Checkpoint, name: str, encoder: ClipVisionEncoder) -> Concepts:
    embeddings, thresholds = file.tensors.get(name), file.tensors.get(f"{name}_weights")
    if embeddings is None or thresholds is None:
        raise UnsupportedModel(file.name, f"not a safety checker: {name} or its thresholds are missing")
    if embeddings.shape != (*thresholds.shape, encoder.projected_width):
        raise UnsupportedModel(file.name, f"not a safety checker: {name} has shape {tuple(embeddings.shape)}")
    placed = (tensor.to(encoder.device, torch.float32) for tensor in (embeddings, thresholds))
    return Concepts(*placed)
