"""Unsafe pictures become black ones, by the judge that is at hand.

That is Stable Diffusion's own checker where its file is on disk, else Open NSFW, which is part of the installation.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from fooocus_core.errors import UnknownModel

if TYPE_CHECKING:
    import torch

    from fooocus_core.images.pixels import Picture
    from fooocus_core.library import Library

log = logging.getLogger(__name__)

CHECKER_FILE: Final = "stable-diffusion-safety-checker.bin"


class Judge(Protocol):
    """A network that knows what is unsafe to show."""

    @property
    def name(self) -> str:
        """For the log."""
        ...

    def is_unsafe(self, picture: Picture) -> bool:
        """Raises ``CoreError`` where it cannot say."""
        ...


class ContentFilter:
    """Keeps one judge loaded. For one thread. A judge that fails fails the job: what nobody judged is not shown."""

    def __init__(self, library: Library, device: torch.device) -> None:
        """The checker runs on ``device``, Open NSFW on the CPU."""
        self._library = library
        self._device = device
        self._judge: tuple[Path | None, Judge] | None = None

    def blacked_out(self, picture: Picture) -> Picture:
        """``picture`` itself, or black of its size where it is unsafe. Raises ``ModelError`` for a broken checker."""
        judge = self.judge()
        if not judge.is_unsafe(picture):
            return picture
        log.warning("a picture is painted black, by the word of %s", judge.name)
        return np.zeros_like(picture)

    def judge(self) -> Judge:
        """The one whose word counts; looks at the disk, so that a file may come and go while the server runs."""
        path = self._checker_path()
        if self._judge is None or self._judge[0] != path:
            self._judge = (path, self._loaded(path))
        return self._judge[1]

    def unload(self) -> None:
        """Forgets the judge; the next picture loads it again."""
        self._judge = None

    def _checker_path(self) -> Path | None:
        try:
            return self._library.file("safety_checker", CHECKER_FILE)
        except UnknownModel:
            return None

    def _loaded(self, checker: Path | None) -> Judge:
        if checker is None:
            from fooocus_core.filter.open_nsfw import OpenNsfw

            return OpenNsfw()
        from fooocus_core.filter.safety_checker import load_safety_checker

        return load_safety_checker(checker, self._device)
