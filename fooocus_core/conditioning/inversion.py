"""Textual inversion: words that stand for trained vectors (specification 02, section 5)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from fooocus_core.errors import UnsupportedModel
from fooocus_core.models.checkpoint import FileState, file_state, read_content
from fooocus_core.models.recent import Recent

log = logging.getLogger(__name__)

EXTENSIONS = ("", ".safetensors", ".pt", ".bin")
KEPT_FILES = 32
"""Whose vectors are kept, a few of which make a prompt; each holds some hundred kilobytes at most."""


class EmbeddingFiles:
    """The embeddings folders, looked through by name. Nothing outside them can be named.

    The folders are looked through on every call; a file that has not changed is not read again.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = list(roots)
        self._read: Recent[tuple[FileState, str, int], list[Tensor]] = Recent(2 * KEPT_FILES)  # of two encoders

    def vectors(self, name: str, encoder: str, width: int) -> tuple[list[Tensor], str]:
        """The vectors of an embedding (``[width]`` each) and the text left over after its name.

        ``encoder`` is ``clip_l`` or ``clip_g``, ``width`` its own; an embedding made for another encoder alone gives
        vectors of another width. An unknown name gives none and a warning. Commas around the name are no part of it;
        as many characters as they were are left over from the end. Raises ``UnreadableModel`` and
        ``UnsupportedModel`` for a file that cannot be used.
        """
        path = self._find(name)
        if path is not None:
            return self._vectors_of(path, encoder, width), ""
        stripped = name.strip(",")
        rest = name[len(stripped) :]
        path = self._find(stripped) if rest else None
        if path is not None:
            return self._vectors_of(path, encoder, width), rest
        log.warning("no embedding named %.80r: left out", stripped)
        return [], rest

    def names(self) -> list[str]:
        """What the files in the folders are called, without their folders and endings, each name once."""
        paths = [path for root in self.roots for path in _files_below(root)]
        return list(dict.fromkeys(path.stem for path in paths if path.suffix in EXTENSIONS[1:]))

    def _vectors_of(self, path: Path, encoder: str, width: int) -> list[Tensor]:
        key = (file_state(path), encoder, width)
        return self._read.get_or(key, lambda: _read_vectors(path, encoder, width))

    def _find(self, name: str) -> Path | None:
        """The first file of that name in a folder or one of its sub-folders, upper folders first.

        Names are compared with what is listed, so that no path can lead out.
        """
        for root in self.roots:
            listed = {path.relative_to(root).as_posix(): path for path in _files_below(root)}
            folders = dict.fromkeys(parent for file in listed for parent in reversed(PurePosixPath(file).parents))
            for folder in folders:
                wanted = [(folder / (name + extension)).as_posix() for extension in EXTENSIONS if name]
                found = next((listed[file] for file in wanted if file in listed), None)
                if found is not None:
                    return found
        return None


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, below, names in os.walk(folder):
        below.sort()
        yield from (Path(parent, name) for name in sorted(names))


def _read_vectors(path: Path, encoder: str, width: int) -> list[Tensor]:
    """The vectors in a file, rows of one tensor."""
    tensor = _chosen(read_content(path), encoder, width)
    if tensor is None or not tensor.is_floating_point():
        raise UnsupportedModel(path.name, "this is no embedding: it holds no vectors")
    # A copy: a file that is kept open could not be replaced everywhere.
    return list(tensor.detach().to(torch.float32, copy=True).reshape(-1, tensor.shape[-1]))


def _chosen(content: Any, encoder: str, width: int) -> Tensor | None:
    """The tensor meant for one encoder, whatever the training program called it: ``[width]`` or ``[n, width]``."""
    if isinstance(content, dict) and isinstance(content.get("string_to_param"), dict):
        return _first_tensor(content["string_to_param"].values())
    if isinstance(content, list):
        tables = [entry for entry in content if isinstance(entry, dict)]
        tensors = [tensor for table in tables for tensor in table.values() if isinstance(tensor, Tensor)]
        fitting = [tensor.reshape(-1, width) for tensor in tensors if tensor.shape[-1:] == (width,)]
        return torch.cat([*fitting, torch.empty(0, width)]) if tensors else None
    if isinstance(content, dict):
        named = content.get(encoder)
        return named if isinstance(named, Tensor) and named.dim() else _first_tensor(content.values())
    return None


def _first_tensor(values: Any) -> Tensor | None:
    return next((value for value in values if isinstance(value, Tensor) and value.dim()), None)
