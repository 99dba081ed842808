"""The networks that find masks: where their files are, and which of them stay loaded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fooocus_core.errors import UnknownModel, UnreadableModel
from fooocus_core.library import POCKET_FOLDER, Library, ModelKind
from fooocus_core.masks.options import MaskModel, SamModel

if TYPE_CHECKING:
    import torch

    from fooocus_core.masks.background import BackgroundRemover
    from fooocus_core.masks.detector import Detector
    from fooocus_core.masks.segmenter import Segmenter

log = logging.getLogger(__name__)

BUNDLED_MODEL: Final[MaskModel] = "u2netp"
BUNDLED_FILE: Final = POCKET_FOLDER / f"{BUNDLED_MODEL}.onnx"
DETECTOR_FILE: Final = "groundingdino_swint_ogc.pth"
SEGMENTER_FILES: Final[dict[SamModel, str]] = {
    "vit_b": "sam_vit_b_01ec64.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_h": "sam_vit_h_4b8939.pth",
}

_Network = TypeVar("_Network")


class MaskModels:
    """Keeps one network of each of the three sorts. For several threads: what is loaded is used by one at a time."""

    def __init__(self, library: Library, choose_device: Callable[[], torch.device], threads: int) -> None:
        """``choose_device`` is asked when a detector is first loaded, on the thread that loads it.

        ``threads`` run a network that removes backgrounds, always on the CPU.
        """
        self._library = library
        self._choose_device = choose_device
        self._threads = threads
        self._in_use = threading.RLock()
        self._loaded: dict[str, tuple[object, Any]] = {}

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps the networks from other threads, and from being unloaded."""
        with self._in_use:
            yield

    def unload(self) -> None:
        """Forget every network and give the memory back; waits for the mask that is being made."""
        with self._in_use:
            self._loaded.clear()
            _release_memory()

    def background_remover(self, name: MaskModel) -> BackgroundRemover:
        """Raises ``UnknownModel`` where its file is not on disk, ``ModelError`` where that cannot be used."""
        from fooocus_core.masks.background import load_background_remover

        path = self._background_file(name)
        return self._kept("background", path, lambda: load_background_remover(name, path, self._threads))

    def detector(self) -> Detector:
        """As above."""
        from fooocus_core.masks.detector import load_detector

        path = self._library.file("inpaint", DETECTOR_FILE, "finding what a prompt names")
        return self._kept("detector", path, lambda: load_detector(path, self._choose_device()))

    def segmenter(self, name: SamModel) -> Segmenter:
        """As above."""
        from fooocus_core.masks.segmenter import load_segmenter

        path = self.segmenter_file(name)
        return self._kept("segmenter", path, lambda: load_segmenter(name, path, self._choose_device()))

    def segmenter_file(self, name: SamModel) -> Path:
        """Where a segmenter's file is. Raises ``UnknownModel``."""
        return self._library.file("sam", SEGMENTER_FILES[name], f"masks by sam with {name}")

    def _background_file(self, name: MaskModel) -> Path:
        """The user's file; of the one model that ships with the project, else the bundled one."""
        kind: ModelKind = "inpaint"
        try:
            return self._library.file(kind, f"{name}.onnx", f"masks by {name} ({BUNDLED_MODEL} needs no file)")
        except UnknownModel:
            if name != BUNDLED_MODEL:
                raise
            return BUNDLED_FILE

    def _kept(self, sort: str, path: Path, load: Callable[[], _Network]) -> _Network:
        """What is loaded of this file, or the file, in place of what was loaded of its sort."""
        key = _state(path)
        if sort not in self._loaded or self._loaded[sort][0] != key:
            self._loaded.pop(sort, None)  # never two of a sort at once
            _release_memory()
            log.info("loading %s", path.name)
            self._loaded[sort] = (key, load())
        network: _Network = self._loaded[sort][1]
        return network


def _state(path: Path) -> tuple[str, int, int]:
    """What tells one version of a file from another."""
    try:
        stat = path.stat()
    except OSError as error:
        raise UnreadableModel(path.name, "the file is gone") from error
    return str(path), stat.st_size, stat.st_mtime_ns


def _release_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
