"""What a checkpoint's own header says about it: its native area, its tokenizer, its preview colours.

A JSON object under the safetensors metadata key ``fooocusapi.sidecar``::

    {"format": 1, "name": "pocket", "native_area_px": 9216, "sizes": "native_then_upscale",
     "tokenizer": {"vocab": {"a": 0, ...}, "merges": ["a b", ...]},
     "preview_rgb": {"matrix": [[r, g, b] x 4], "bias": [r, g, b]}}

Every key but ``format`` may be left out. Public checkpoints carry none, which means: SDXL's own ways.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fooocus_core.conditioning.tokenizer import ClipTokenizer, tokenizer_from
from fooocus_core.errors import UnreadableModel, UnsupportedModel
from fooocus_core.models.checkpoint import SIDECAR_KEY, Checkpoint

FORMAT = 1
NATIVE_THEN_UPSCALE = "native_then_upscale"


@dataclass(frozen=True)
class PreviewColours:
    """A linear map from scaled latents to colours in ``[0, 1]``: four rows of three, and three to add."""

    matrix: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]


@dataclass(frozen=True)
class Sidecar:
    """``native_area_px``: render at this area and enlarge to the size asked for; ``None``: render the size itself."""

    name: str | None = None
    native_area_px: int | None = None
    tokenizer: ClipTokenizer | None = None
    preview: PreviewColours | None = None


def read_sidecar(checkpoint: Checkpoint) -> Sidecar:
    """The checkpoint's sidecar, empty if it has none.

    Raises ``UnreadableModel`` for a broken one and ``UnsupportedModel`` for a format of the future.
    """
    text = checkpoint.metadata.get(SIDECAR_KEY)
    if text is None:
        return Sidecar()
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise UnsupportedModel(checkpoint.name, f"its sidecar has format {content['format']!r}, known is {FORMAT}")
        return _sidecar(content)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UnreadableModel(checkpoint.name, f"its sidecar is not understood ({error})") from error


def _sidecar(content: Mapping[str, Any]) -> Sidecar:
    sizes = content.get("sizes", NATIVE_THEN_UPSCALE)
    if sizes != NATIVE_THEN_UPSCALE:
        raise ValueError(f"unknown way of meeting sizes: {sizes!r}")
    area = content.get("native_area_px")
    tokenizer, preview = content.get("tokenizer"), content.get("preview_rgb")
    return Sidecar(
        name=content.get("name"),
        native_area_px=None if area is None else _positive(area),
        tokenizer=None if tokenizer is None else tokenizer_from(tokenizer["vocab"], tokenizer["merges"]),
        preview=None if preview is None else _colours(preview),
    )


def _positive(area: Any) -> int:
    number = int(area)
    if number < 1:
        raise ValueError(f"a native area of {number} pixels")
    return number


def _colours(content: Mapping[str, Any]) -> PreviewColours:
    matrix = tuple(tuple(float(value) for value in row) for row in content["matrix"])
    bias = tuple(float(value) for value in content["bias"])
    if [len(row) for row in (*matrix, bias)] != [3] * 5:
        raise ValueError("preview_rgb must be a 4x3 matrix and 3 more numbers")
    return PreviewColours(matrix, bias)
