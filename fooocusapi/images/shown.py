"""Pictures that came with requests and that records of the history show, for as long as the history is.

A picture lies in a file named by a hash, and is reached as ``<base URL>/inputs/<hash>.png``. What a job works on while
it waits is kept elsewhere (``kept``): these files are for people and clients, who may send their addresses again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fooocusapi.images.kept import packed
from fooocusapi.images.outputs import write_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NAME = re.compile(r"[0-9a-f]{64}\.png")
_ADDRESS = re.compile(r"/inputs/([0-9a-f]{64}\.png)")


class ShownPictures:
    """One folder of them. For any thread; uses the disk."""

    def __init__(self, folder: Path, base_url: str) -> None:
        """``base_url``: without a final slash."""
        self._folder = folder
        self._recording = threading.RLock()
        self._base_url = base_url.rstrip("/")
        self._own_path = re.compile(f"(?:{re.escape(urlsplit(base_url).path.rstrip('/'))})?/inputs/(.+)")

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Until its end nothing is let go: what is shown in between gets its record first."""
        with self._recording:
            yield

    def let_go(self, record: Mapping[str, Any], is_mentioned: Callable[[str], bool]) -> None:
        """Deletes what a record shows that is no more, unless ``is_mentioned`` says that another one does."""
        with self._recording:
            for name in set(_ADDRESS.findall(json.dumps(record))):
                if not is_mentioned(name):
                    (self._folder / name).unlink(missing_ok=True)

    def show(self, pixels: NDArray[np.uint8]) -> str:
        """Keeps uint8 ``[h, w, 3]`` or ``[h, w, 4]`` and returns its address. Raises ``OSError``."""
        data = packed(pixels)
        name = f"{hashlib.sha256(base64.b64encode(data)).hexdigest()}.png"
        if self.find(name) is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._folder / name, data)
        return f"{self._base_url}/inputs/{name}"

    def find(self, name: str) -> Path | None:
        """The existing file of this name, or ``None`` for anything else."""
        path = self._folder / name
        return path if _NAME.fullmatch(name) is not None and path.is_file() else None

    def find_by_url(self, url: str) -> Path | None:
        """The existing file that an address names, whatever its host, or ``None``."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return None
        name = self._own_path.fullmatch(parts.path)
        return self.find(name[1]) if name else None
