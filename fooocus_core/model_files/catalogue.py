"""Which files are known, what folder each belongs to, and where it is published (specification 08, section 1).

The files of the pipeline itself stand in ``catalogue.json``. Checkpoints, LoRAs, embeddings and autoencoders come with
the presets, which give their addresses (01, section 12). Nothing is fetched here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal, NamedTuple, get_args

from fooocus_core.library import Library, ModelKind
from fooocus_core.presets.preset import Download, first_on_disk

ExpansionFolder = Literal["prompt_expansion/fooocus_expansion"]
EXPANSION_FOLDER: Final[ExpansionFolder] = "prompt_expansion/fooocus_expansion"
FileFolder = ModelKind | ExpansionFolder

_CATALOGUE_FILE: Final = Path(__file__).parent / "catalogue.json"


@dataclass(frozen=True)
class ModelFile:
    """One published file.

    ``folder`` is relative to the models' root, ``name`` to the folder. ``size_bytes`` and ``digest`` (``sha256:…`` or
    ``md5:…``, hexadecimal) are those of the right file, where they are known.
    """

    folder: FileFolder
    name: str
    url: str
    size_bytes: int | None = None
    digest: str = ""


class Catalogue:
    """All known files. The first of several with the same folder and name counts."""

    def __init__(self, files: Iterable[ModelFile]) -> None:
        by_place: dict[tuple[str, str], ModelFile] = {}
        for file in files:
            by_place.setdefault((file.folder, file.name), file)
        self._by_place = by_place

    @classmethod
    def of(cls, downloads: Iterable[Download] = ()) -> Catalogue:
        """The pipeline's own files, then what presets and ``config.txt`` give addresses for."""
        return cls([*_bundled(), *(ModelFile(*download) for download in downloads)])

    def __iter__(self) -> Iterator[ModelFile]:
        return iter(self._by_place.values())

    def in_folder(self, folder: str) -> list[ModelFile]:
        """Every file of a folder, which may be empty."""
        return [file for file in self if file.folder == folder]

    def find(self, kind: str, name: str) -> ModelFile | None:
        """The file of a folder that ``name`` stands for: itself, or its name without the extension."""
        wanted = name.replace("\\", "/")
        stems = (file for file in self.in_folder(kind) if PurePosixPath(file.name).stem == wanted)
        return self._by_place.get((kind, wanted)) or next(stems, None)

    def asked_for(self, name: str) -> list[ModelFile]:
        """What somebody means by ``name``: a file of any folder, else all files of the folder of that name."""
        wanted = name.replace("\\", "/").rstrip("/")
        folders = dict.fromkeys(file.folder for file in self)
        named = [file for folder in folders if (file := self.find(folder, wanted))]
        placed = [file for file in self if f"{file.folder}/{file.name}" == wanted]
        return named or placed or self.in_folder(wanted)


class Shelves(NamedTuple):
    """Where model files are on this machine."""

    library: Library
    expansion: Path
    """The folder of the prompt expansion, which the library does not list."""

    def folders(self, folder: FileFolder) -> tuple[Path, ...]:
        """The folders that are looked at, in order; the first is where new files go."""
        return (self.expansion,) if folder == EXPANSION_FOLDER else self.library.folders(folder)

    def holds(self, file: ModelFile) -> bool:
        """Whether the file is there, under its name or, where the library lists it, in a sub-folder."""
        if any((folder / file.name).is_file() for folder in self.folders(file.folder)):
            return True
        return file.folder != EXPANSION_FOLDER and self._listed(file.folder, file.name) is not None

    def _listed(self, kind: ModelKind, name: str) -> str | None:
        return self.library.find(kind, name) or first_on_disk([name], self.library.names(kind))


class ObtainableNames:
    """The library's names and those of the catalogue, for requests whose files are fetched once they are needed."""

    def __init__(self, library: Library, catalogue: Catalogue) -> None:
        self._library = library
        self._catalogue = catalogue

    def checkpoint_names(self) -> Sequence[str]:
        return self._library.checkpoint_names()

    def find(self, kind: ModelKind, name: str) -> str | None:
        """The listed name, in whatever sub-folder it is; else the name under which the file is published."""
        listed = self._library.find(kind, name) or first_on_disk([name], self._library.names(kind))
        published = None if listed else self._catalogue.find(kind, name)
        return listed or (published.name if published else None)


def _bundled() -> Iterator[ModelFile]:
    for entry in json.loads(_CATALOGUE_FILE.read_text(encoding="utf-8")):
        yield _model_file(entry)


def _model_file(entry: Mapping[str, str | int]) -> ModelFile:
    folder = next(known for known in (*get_args(ModelKind), EXPANSION_FOLDER) if known == entry["folder"])
    size = entry.get("size_bytes")
    return ModelFile(
        folder=folder,
        name=str(entry["name"]),
        url=str(entry["url"]),
        size_bytes=None if size is None else int(size),
        digest=str(entry.get("digest", "")),
    )
