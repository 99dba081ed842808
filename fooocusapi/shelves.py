"""Where this server's model files are and where missing ones are published, from the settings and ``config.txt``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from fooocus_core.library import Library, ModelKind
from fooocus_core.model_files.catalogue import Catalogue, Shelves
from fooocus_core.presets.config_file import EXPANSION_KEY, Config
from fooocus_core.presets.preset import list_downloads
from fooocus_core.prompts.expansion import FOLDER
from fooocusapi.settings import Settings


def library_of(settings: Settings, config: Config) -> Library:
    """Fooocus's folders below the models' root, and in their place those that ``config.txt`` names."""
    return Library.below(settings.models_root, _model_folders(config))


def shelves_of(settings: Settings, library: Library, config: Config) -> Shelves:
    """The library's folders and that of the prompt expansion."""
    return Shelves(library, (*config.folders(EXPANSION_KEY), settings.models_root / FOLDER)[0])


def catalogue_of(settings: Settings, config: Config) -> Catalogue:
    """The pipeline's own files and those of all presets, the user's included."""
    return Catalogue.of(list_downloads([settings.presets_path], config))


def _model_folders(config: Config) -> dict[ModelKind, Sequence[Path]]:
    """The folders that ``config.txt`` names for each kind of model."""
    by_kind = {kind: config.folders(f"path_{kind}") for kind in get_args(ModelKind)}
    return {kind: folders for kind, folders in by_kind.items() if folders}
