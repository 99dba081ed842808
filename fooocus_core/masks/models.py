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
from fooocus_core.model_files.catalogue import Catalogue

if TYPE_CHECKING:
    import torch

    from fooocus_core.masks.background import BackgroundRemover
    from fooocus_core.masks.detector import Detector
    from fooocus_core.masks.segmenter import Segmenter
    from fooocus_core.models.mtcnn import Mtcnn

log = logging.getLogger(__name__)

BUNDLED_MODEL: Final[MaskModel] = "u2netp"
BUNDLED_FILE: Final = POCKET_FOLDER / f"{BUNDLED_MODEL}.onnx"
FACE_FINDER_FILE: Final = POCKET_FOLDER / "mtcnn.safetensors"
DETECTOR_FILE: Final = "groundingdino_swint_ogc.pth"
SEGMENTER_FILES: Final[dict[SamModel, str]] = {
    "vit_b": "sam_vit_b_01ec64.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_h": "sam_vit_h_4b8939.pth",
}

_Network = TypeVar("_Network")


class MaskModels:
    """Keeps one network of each of four sorts. For several threads: what is loaded is used by one at a time."""

    def __init__(self, library: Library, catalogue: Catalogue, choose_device: Callable[[], torch.device]) -> None:
        """``choose_device`` is asked, on the thread that needs it, where a detector or a segmenter shall run.

        Networks that remove backgrounds always run on the CPU.
        """
        self._library = library
        self._catalogue = catalogue
        self._choose_device = choose_device
        self._in_use = threading.RLock()
        self._loaded: dict[str, tuple[object, Any]] = {}

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps the networks from other threads, and from being unloaded."""
        with self._in_use:
            yield

    def unload(self) -> None:
        """Forget every network; waits for the mask that is being made."""
        with self._in_use:
            self._loaded.clear()

    def background_remover(self, name: MaskModel) -> BackgroundRemover:
        """Raises ``UnknownModel`` where its file is not on disk, ``ModelError`` where that cannot be used."""
        path = self._background_file(name)

        def load() -> BackgroundRemover:
            from fooocus_core.masks.background import load_background_remover

            return load_background_remover(name, path)

        return self._kept("background", path, load)

    def detector(self) -> Detector:
        """As above."""
        path = self._file("inpaint", DETECTOR_FILE, "finding what a prompt names")

        def load() -> Detector:
            from fooocus_core.masks.detector import load_detector

            return load_detector(path, self._choose_device())

        return self._kept("detector", path, load)

    def face_finder(self) -> Mtcnn:
        """The one that ships with the project, always on the CPU."""

        def load() -> Mtcnn:
            from fooocus_core.models.checkpoint import open_checkpoint
            from fooocus_core.models.mtcnn import load_mtcnn

            file = open_checkpoint(FACE_FINDER_FILE)
            return load_mtcnn(file.tensors, file.name)

        return self._kept("faces", FACE_FINDER_FILE, load)

    def segmenter(self, name: SamModel) -> Segmenter:
        """As above."""
        path = self.segmenter_file(name)

        def load() -> Segmenter:
            from fooocus_core.masks.segmenter import load_segmenter

            return load_segmenter(name, path, self._choose_device())

        return self._kept("segmenter", path, load)

    def segmenter_file(self, name: SamModel) -> Path:
        """Where a segmenter's file is. Raises ``UnknownModel``."""
        return self._file("sam", SEGMENTER_FILES[name], f"masks by sam with {name}")

    def _background_file(self, name: MaskModel) -> Path:
        """The user's file; of the one model that ships with the project, else the bundled one."""
        try:
            return self._file("inpaint", f"{name}.onnx", f"masks by {name} ({BUNDLED_MODEL} needs no file)")
        except UnknownModel:
            if name != BUNDLED_MODEL:
                raise
            return BUNDLED_FILE

    def _file(self, kind: ModelKind, name: str, needed_for: str) -> Path:
        try:
            return self._library.file(kind, name, needed_for)
        except UnknownModel as missing:
            published = self._catalogue.find(kind, name)
            if published is None:
                raise
            raise missing.published_at(published.name, published.url) from missing

    def _kept(self, sort: str, path: Path, load: Callable[[], _Network]) -> _Network:
        """What is loaded of this file, or the file, in place of what was loaded of its sort."""
        key = _state(path)
        if sort not in self._loaded or self._loaded[sort][0] != key:
            self._loaded.pop(sort, None)  # never two of a sort at once
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
