"""Textual inversion: words that stand for trained vectors (specification 02, section 5)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fooocus_core.errors import UnreadableModel
from fooocus_core.models.checkpoint import read_content

log = logging.getLogger(__name__)

EXTENSIONS = ("", ".safetensors", ".pt", ".bin")


class EmbeddingFiles:
    """The embeddings folders, looked through by name. Nothing outside them can be named."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = list(roots)

    def vectors(self, name: str, encoder: str, width: int) -> tuple[list[Tensor], str]:
        """The vectors of an embedding (``[width]`` each) and the text left over after its name.

        An unknown or unreadable one gives no vectors and a warning. Commas around the name are no part of it; as many
        characters as they were are left over from the end.
        """
        found = self._load(name, encoder, width)
        if found is not None:
            return found, ""
        stripped = name.strip(",")
        if len(stripped) == len(name):
            return self._unknown(name), ""
        found = self._load(stripped, encoder, width)
        return (self._unknown(stripped) if found is None else found), name[len(stripped) :]

    @staticmethod
    def _unknown(name: str) -> list[Tensor]:
        log.warning("no embedding named %.80r: left out", name)
        return []

    def _load(self, name: str, encoder: str, width: int) -> list[Tensor] | None:
        path = self._find(name)
        if path is None:
            return None
        try:
            tensor = _chosen(read_content(path), encoder, width)
        except UnreadableModel as error:
            log.warning("%s", error)
            return None
        if tensor is None:
            return None
        return list(tensor.float().reshape(-1, tensor.shape[-1]))

    def _find(self, name: str) -> Path | None:
        """The first file of that name; names are compared with the folders' listing, so no path can lead out."""
        listed = self._listed()
        return next((listed[name + extension] for extension in EXTENSIONS if name + extension in listed), None)

    def _listed(self) -> dict[str, Path]:
        """Every file by its name relative to the folder or to any of its sub-folders, upper folders first."""
        listed: dict[str, Path] = {}
        for root in self._roots:
            relative = [(path, path.relative_to(root).parts) for path in _files_below(root)]
            deepest = max((len(parts) for _, parts in relative), default=0)
            for skipped in range(deepest):
                for path, parts in relative:
                    if len(parts) > skipped:
                        listed.setdefault("/".join(parts[skipped:]), path)
        return listed


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, below, names in os.walk(folder):
        below.sort()
        yield from (Path(parent, name) for name in sorted(names))


def _chosen(content: Any, encoder: str, width: int) -> Tensor | None:
    """The tensor meant for one encoder, whatever the training program called it: ``[width]`` or ``[n, width]``."""
    if isinstance(content, dict) and isinstance(content.get("string_to_param"), dict):
        return _first_tensor(content["string_to_param"].values())
    if isinstance(content, list):
        tables = [entry for entry in content if isinstance(entry, dict)]
        fitting = [t for table in tables for t in table.values() if isinstance(t, Tensor) and t.shape[-1:] == (width,)]
        return torch.cat([tensor.reshape(-1, width) for tensor in fitting]) if fitting else None
    if isinstance(content, dict):
        named = content.get(encoder)
        return named if isinstance(named, Tensor) and named.dim() else _first_tensor(content.values())
    return None


def _first_tensor(values: Any) -> Tensor | None:
    return next((value for value in values if isinstance(value, Tensor) and value.dim()), None)
