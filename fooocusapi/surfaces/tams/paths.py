"""Which paths are this dialect's own (contract section 4). Nothing heavy: the middleware asks for every request."""

from __future__ import annotations

from typing import Final

ROOTS: Final = ("/v1/jobs", "/v1/resource", "/v1/models", "/v1/workflows")
"""No other dialect has a path below any of these."""


def is_own(path: str) -> bool:
    """Whether ``path`` belongs to this dialect, known there or not."""
    return path.startswith(ROOTS) and any(path == root or path.startswith(f"{root}/") for root in ROOTS)
