"""Golden vectors: data computed with the reference, read from ``$GOLDEN_DIR`` (default: this folder)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

GOLDEN_DIR = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parent))


def golden_json(relative: str) -> Any:
    """One index file of the golden folder."""
    return json.loads((GOLDEN_DIR / relative).read_text(encoding="utf-8"))


def golden_tensors(relative: str) -> dict[str, Any]:
    """One tensor file of the golden folder; stored float16 weights become float32 as its README says."""
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in load_file(GOLDEN_DIR / relative).items()
    }
