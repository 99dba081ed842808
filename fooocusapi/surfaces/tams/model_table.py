"""Which files the numbers and names of this dialect mean (contract section 13.7): a JSON file that users edit.

It is read again whenever it has changed; one that cannot be read is logged, and what was known before stays.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

logger = logging.getLogger(__name__)

BUNDLED: Final = Path(__file__).parent / "models.json"
CHECKPOINT: Final = "CHECKPOINT"
LORA_TYPES: Final = ("LORA", "LOCON", "LYCORIS")
MODEL_TYPES: Final = (
    "DEFAULT",
    CHECKPOINT,
    "TEXTUAL_INVERSION",
    "HYPERNETWORK",
    "AESTHETIC_GRADIENT",
    "LORA",
    "LOCON",
    "CONTROLNET",
    "POSES",
    "WILDCARDS",
    "OTHER",
    "LYCORIS",
)


@dataclass(frozen=True)
class ModelEntry:
    """One model; its card is made of this. ``file`` empty: the server's own default."""

    id: str
    type: str = CHECKPOINT
    file: str = ""
    name: str = ""
    description: str = ""
    project_name: str = ""
    base_model: str = "SDXL 1.0"
    vae: str = ""
    trigger_words: str = ""
    showcase_image_urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """What the file says. The keys of ``files`` are kinds (``upscalers``, ``vaes`` ...), those within in lower case."""

    default_checkpoint: str = ""
    models: Mapping[str, ModelEntry] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def checkpoint(self, model_id: str) -> ModelEntry | None:
        """The model of this number, else the one for unknown numbers, if there is one."""
        return self.models.get(model_id) or self.models.get(self.default_checkpoint)

    def named(self, kind: str, name: str) -> Any:
        """What a name of this kind means, whatever its case; ``None`` for one that is not in the table."""
        return self.files.get(kind, {}).get(name.strip().lower())


class ModelTable:
    """The table as the user's file stands now, or the bundled one. For any thread; looks at the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._table = read_table(BUNDLED)

    def current(self) -> Table:
        """The table of this moment."""
        with self._lock:
            stamp = _stamp(self._path)
            if stamp is not None and stamp != self._stamp:
                self._read()
                self._stamp = stamp
            return self._table

    def _read(self) -> None:
        try:
            self._table = read_table(self._path)
        except (OSError, ValueError) as error:
            logger.error("the table of models %s cannot be read, the one before stays: %s", self._path.name, error)


def read_table(path: Path) -> Table:
    """The table in a file. Raises ``OSError``, and ``ValueError`` naming what is wrong."""
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError("must be an object")
    models = {str(number): _entry(str(number), entry) for number, entry in _object(values, "models").items()}
    files = {
        kind: {str(name).lower(): _file(kind, name, entry) for name, entry in _object(values, kind).items()}
        for kind in ("upscalers", "vaes", "detectors", "controlnets")
    }
    default = str(values.get("defaultCheckpoint") or "")
    if default and default not in models:
        raise ValueError(f"defaultCheckpoint: there is no model {default!r}")
    return Table(default, models, files)


def file_in(mapped: object) -> str:
    """The file of an entry that ``Table.named`` found: a name, or an object that has one; empty: it has none."""
    if isinstance(mapped, dict):
        return str(mapped.get("file") or "")
    return mapped if isinstance(mapped, str) else ""


def _entry(number: str, values: Any) -> ModelEntry:
    if not isinstance(values, dict):
        raise ValueError(f"models.{number}: must be an object")
    kind = str(values.get("type") or CHECKPOINT)
    if kind not in MODEL_TYPES:
        raise ValueError(f"models.{number}.type: one of {', '.join(MODEL_TYPES)}")
    texts = {name: str(values.get(key) or "") for name, key in _TEXTS.items()}
    if not texts["base_model"]:
        texts["base_model"] = ModelEntry.base_model
    _check_relative(f"models.{number}.file", texts["file"])
    urls = values.get("showcaseImageUrls") or []
    if not isinstance(urls, list):
        raise ValueError(f"models.{number}.showcaseImageUrls: must be a list")
    return ModelEntry(id=number, type=kind, showcase_image_urls=tuple(map(str, urls)), **texts)


_TEXTS: Final = {
    "file": "file",
    "name": "name",
    "description": "description",
    "project_name": "projectName",
    "base_model": "baseModel",
    "vae": "vae",
    "trigger_words": "triggerWords",
}


def _file(kind: str, name: str, entry: Any) -> Any:
    """A file's name, or an object that has one and says more about it."""
    file = entry.get("file", "") if isinstance(entry, dict) else entry
    if not isinstance(file, str):
        raise ValueError(f"{kind}.{name}: must be a file's name, or an object with one")
    _check_relative(f"{kind}.{name}", file)
    return entry


def _check_relative(place: str, file: str) -> None:
    path = PurePosixPath(file.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in file:
        raise ValueError(f"{place}: must be relative to the folder of models, without '..'")


def _object(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = values.get(key) or {}
    if not isinstance(found, dict):
        raise ValueError(f"{key}: must be an object")
    return found


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
