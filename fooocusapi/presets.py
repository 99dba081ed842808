"""The presets that requests may name, read anew when one of their files has changed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from fooocus_core.errors import InvalidRequest
from fooocus_core.presets.preset import INITIAL, Preset, preset_files

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


def _signature(folders: Sequence[Path]) -> Signature:
    statuses = ((path, path.stat()) for path in preset_files(folders).values())
    return frozenset((path, status.st_mtime_ns, status.st_size) for path, status in statuses)
