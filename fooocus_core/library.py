"""The model files on disk: folders, names, hashes. No torch here: listing must be possible before anything heavy loads.

Specification: 08, sections 1, 2 and 7; 01, section 6.1 (order of a listing).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal, get_args

from fooocus_core.errors import UnknownModel

log = logging.getLogger(__name__)

ModelKind = Literal[
    "checkpoints",
    "loras",
    "embeddings",
    "vae",
    "vae_approx",
    "upscale_models",
    "inpaint",
    "controlnet",
    "clip_vision",
    "safety_checker",
    "sam",
]

LISTED_EXTENSIONS: Final = frozenset({".pth", ".ckpt", ".bin", ".safetensors"})
POCKET_NAME: Final = "pocket.safetensors"
POCKET_FOLDER: Final = Path(__file__).parent / "pocket"
BUNDLED_UPSCALER: Final = POCKET_FOLDER / "upscaler_x4.safetensors"
SHORT_HASH: Final = 10
_READ_BYTES = 1 << 20


class Library:
    """The model folders. Names are relative to a folder and use ``/``; the disk is looked at on every call.

    A kind may have several folders: they are listed in order, and the first file of a name wins.
    """

    def __init__(self, folders: Mapping[ModelKind, Sequence[Path]], pocket: Path = POCKET_FOLDER / POCKET_NAME) -> None:
        self._folders = {kind: tuple(folders.get(kind, ())) for kind in get_args(ModelKind)}
        self._pocket = pocket

    @classmethod
    def below(cls, root: Path, overrides: Mapping[ModelKind, Sequence[Path]] | None = None) -> Library:
        """Fooocus's own folder names below ``root``, any of them replaced by ``overrides``."""
        usual: dict[ModelKind, Sequence[Path]] = {kind: (root / kind,) for kind in get_args(ModelKind)}
        return cls({**usual, **(overrides or {})})

    def folders(self, kind: ModelKind) -> tuple[Path, ...]:
        return self._folders[kind]

    def names(self, kind: ModelKind) -> list[str]:
        """All files of a kind. The model that ships with the project is always the last checkpoint."""
        return list(self._listed(kind))

    def checkpoint_names(self) -> list[str]:
        return self.names("checkpoints")

    def lora_names(self) -> list[str]:
        return self.names("loras")

    def find(self, kind: ModelKind, name: str) -> str | None:
        """The listed name that ``name`` stands for: the name itself with either separator, or a file's stem."""
        return _among(self._listed(kind), name)

    def path(self, kind: ModelKind, name: str) -> Path:
        """Where a file is. Only what is listed is found: no name leads out of the folders. Raises ``UnknownModel``."""
        listed = self._listed(kind)
        found = _among(listed, name)
        if found is None:
            raise UnknownModel(kind, name)
        return listed[found]

    def file(self, kind: ModelKind, name: str, needed_for: str = "") -> Path:
        """Where a file of exactly this name is, listed or not. Not for names that come with requests.

        Raises ``UnknownModel``, which then says what the file is ``needed_for``.
        """
        for folder in self._folders[kind]:
            if (folder / name).is_file():
                return folder / name
        raise UnknownModel(kind, name, needed_for)

    def _listed(self, kind: ModelKind) -> dict[str, Path]:
        listed: dict[str, Path] = {}
        for folder in self._folders[kind]:
            for path in _model_files(folder):
                listed.setdefault(path.relative_to(folder).as_posix(), path)
        if kind == "checkpoints" and self._pocket.is_file():
            listed.setdefault(POCKET_NAME, self._pocket)
        return listed


def _among(listed: Mapping[str, Path], name: str) -> str | None:
    wanted = name.replace("\\", "/")
    if wanted in listed:
        return wanted
    return next((known for known in listed if PurePosixPath(known).stem == wanted), None)


def _model_files(folder: Path) -> Iterator[Path]:
    """Sub-folders before files, both without regard to case; links to folders are not followed."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: (entry.name.casefold(), entry.name))
    except OSError:  # a folder that is missing or closed to us holds nothing
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _model_files(Path(entry.path))
    for entry in entries:
        if Path(entry.name).suffix.lower() in LISTED_EXTENSIONS and entry.is_file():
            yield Path(entry.path)


@dataclass(frozen=True)
class _Hashed:
    """A file's hash and what the file was when it was taken."""

    sha256: str
    size: int
    modified_ns: int


class FileHashes:
    """SHA-256 of model files, kept in a text file of one JSON object a line, ``{path: hash, "size": …}``.

    A file of another size or time than remembered is read again. Lines that are not understood are dropped. Not for
    several threads at once.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._known = dict(_read_cache(cache))

    def sha256(self, path: Path) -> str:
        """The whole file's hash, 64 hex digits. Reads the file unless it is known; raises ``OSError``."""
        key, stat = os.fspath(path.absolute()), path.stat()
        known = self._known.get(key)
        if known is None or (known.size, known.modified_ns) != (stat.st_size, stat.st_mtime_ns):
            known = _Hashed(_sha256_of(path), stat.st_size, stat.st_mtime_ns)
            self._known[key] = known
            self._save()
        return known.sha256

    def short(self, path: Path) -> str:
        """The first 10 hex digits, as metadata shows them."""
        return self.sha256(path)[:SHORT_HASH]

    def _save(self) -> None:
        """Rewrites the cache whole, sorted, without files that are gone. A cache that cannot be written is no error."""
        lines = [
            json.dumps({path: known.sha256, "size": known.size, "modified_ns": known.modified_ns})
            for path, known in sorted(self._known.items())
            if Path(path).is_file()
        ]
        temporary = self._cache.with_name(self._cache.name + ".part")
        try:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text("\n".join([*lines, ""]), encoding="utf-8")
            temporary.replace(self._cache)
        except OSError as error:
            log.warning("hashes cannot be kept: %s", error.strerror)


def _read_cache(cache: Path) -> Iterator[tuple[str, _Hashed]]:
    try:
        lines = cache.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        try:
            entry = json.loads(line)
            size, modified_ns = entry.pop("size"), entry.pop("modified_ns")
            ((path, sha256),) = entry.items()
            yield str(path), _Hashed(str(sha256), int(size), int(modified_ns))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
