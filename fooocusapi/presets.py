"""The server's own preset, and those that requests may name, read anew when one of their files has changed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fooocus_core.errors import InvalidRequest
from fooocus_core.library import Library
from fooocus_core.presets.config_file import Config
from fooocus_core.presets.preset import (
    INITIAL,
    Preset,
    choose_default_preset,
    first_on_disk,
    load_preset,
    preset_files,
)
from fooocusapi.settings import Settings

logger = logging.getLogger(__name__)

Signature = frozenset[tuple[Path, int, int]]
"""Path, time of the last change and length of every file."""


class NamedPresets:
    """For any thread; looks at the disk on every call."""

    def __init__(self, default: Preset, load: Callable[[str], Preset], folders: Sequence[Path]) -> None:
        """``default``: the server's own. ``load`` raises ``InvalidRequest`` for a name that none of ``folders`` has."""
        self._default = default
        self._load = load
        self._folders = folders
        self._lock = threading.Lock()
        self._signature: Signature = frozenset()
        self._read: dict[str, Preset] = {}

    def chosen(self, name: str | None) -> Preset:
        """The preset of this name in any case; the server's own for none, for ``initial`` and for an unknown one."""
        key = (name or INITIAL).strip().lower()
        if key == INITIAL:
            return self._default
        with self._lock:
            self._forget_changed()
            if key not in self._read:
                try:
                    self._read[key] = self._load(key)
                except InvalidRequest as error:
                    logger.warning("preset of a request ignored: %s", error.reason)
                    return self._default
            return self._read[key]

    def _forget_changed(self) -> None:
        signature = _signature(self._folders)
        if signature != self._signature:
            self._signature = signature
            self._read.clear()


def servers_own(settings: Settings, library: Library, config: Config) -> Preset:
    """The one that was asked for, else the one that suits the checkpoints on disk; the user's own files first.

    Raises ``InvalidRequest`` for an unknown name.
    """
    if settings.preset:
        return _load(settings.preset, settings, library, config)
    return choose_default_preset(library.checkpoint_names(), [settings.presets_path], config)


def named_presets(default: Preset, settings: Settings, library: Library, config: Config) -> NamedPresets:
    """Those that a request may name in place of the server's own, ``default``."""
    return NamedPresets(default, lambda name: _load(name, settings, library, config), folders=[settings.presets_path])


def tell_missing(preset: Preset, library: Library) -> None:
    """The files of the preset that are not on disk, with where they are published; an older checkpoint will do."""
    has_checkpoint = first_on_disk(preset.previous_checkpoints, library.checkpoint_names()) is not None
    for kind, name, url in preset.downloads:
        if first_on_disk([name], library.names(kind)) is None and not (kind == "checkpoints" and has_checkpoint):
            logger.warning(
                "preset %s: %s is not in %s; it is published at %s and fetched by: main.py download %s",
                preset.name,
                name,
                kind,
                url,
                name,
            )


def _load(name: str, settings: Settings, library: Library, config: Config) -> Preset:
    return _with_present_checkpoint(load_preset(name, [settings.presets_path], config), library)


def _with_present_checkpoint(preset: Preset, library: Library) -> Preset:
    """The preset with an older checkpoint where only that is on disk: no newer one is fetched then (01, section 12)."""
    present = first_on_disk((preset.checkpoint, *preset.previous_checkpoints), library.checkpoint_names())
    return preset if present is None else replace(preset, checkpoint=present)


def _signature(folders: Sequence[Path]) -> Signature:
    statuses = ((path, path.stat()) for path in preset_files(folders).values())
    return frozenset((path, status.st_mtime_ns, status.st_size) for path, status in statuses)
