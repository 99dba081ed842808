"""Pictures that came with requests, kept for as long as a job needs them, so that a restart finds them.

A picture lies in a file named by the hash of what it shows; two jobs with the same picture share it.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fooocus_core.errors import MissingPicture
from fooocusapi.images.outputs import write_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fooocus_core.plan import Plan

_NAME = re.compile(r"[0-9a-f]{64}")
_QUICK = 1
"""How hard PNG packs; these files do not live long."""


class KeptPictures:
    """One folder of pictures, each kept until it was let go as often as it was kept. For any thread; uses the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._holds: Counter[str] = Counter()
        self._lock = threading.Lock()

    def keep(self, pixels: NDArray[np.uint8]) -> str:
        """Keeps ``[h, w, 3]``, ``[h, w, 4]`` or a mask ``[h, w]``, and returns its name. Raises ``OSError``."""
        name = hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        with self._lock:
            if not self._path(name).is_file():
                self._folder.mkdir(parents=True, exist_ok=True)
                write_whole(self._path(name), packed(pixels))
            self._holds[name] += 1
        return name

    def read(self, name: str) -> NDArray[np.uint8]:
        """The pixels. Raises ``MissingPicture`` for one that is not kept or cannot be read."""
        import numpy as np
        from PIL import Image

        if _NAME.fullmatch(name) is None:
            raise MissingPicture
        try:
            with Image.open(self._path(name), formats=["PNG"]) as picture:
                return np.array(picture)
        except (OSError, SyntaxError, ValueError) as error:
            raise MissingPicture from error

    def let_go(self, names: Iterable[str]) -> None:
        """Takes back one ``keep`` of each; what nobody keeps any more is deleted."""
        with self._lock:
            for name in names:
                self._holds[name] -= 1
                if self._holds[name] <= 0:
                    del self._holds[name]
                    self._path(name).unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Iterator[HeldPictures]:
        """Pictures for a job that is to be queued; what no job has taken over at the end is let go, whatever happens.

        Enter and leave it on one thread, without waiting for others: whoever goes away in between would part the
        pictures from their job.
        """
        held = HeldPictures(self)
        try:
            yield held
        finally:
            self.let_go(held.left)

    def keep_only(self, names: Iterable[str]) -> None:
        """What the jobs of an earlier run need, one entry for each; deletes all else. Once, before any other call."""
        self._holds.update(names)
        for path in self._folder.glob("*.png"):
            if path.stem not in self._holds:
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.png"


class HeldPictures:
    """The pictures of one request, until a job has them."""

    def __init__(self, kept: KeptPictures) -> None:
        self._kept = kept
        self._names: Counter[str] = Counter()

    def keep(self, pixels: NDArray[np.uint8]) -> str:
        """``KeptPictures.keep``."""
        name = self._kept.keep(pixels)
        self._names[name] += 1
        return name

    def hand_over(self, names: Iterable[str]) -> None:
        """From now on a job holds these, each as often as it is named; their end is that of the job."""
        self._names.subtract(names)

    @property
    def left(self) -> tuple[str, ...]:
        """What no job has taken over."""
        return tuple(self._names.elements())


def pictures_of(plan: Plan | None) -> tuple[str, ...]:
    """The names of the pictures that a plan needs."""
    return () if plan is None else plan.pictures


def packed(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG that is made quickly rather than small."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=_QUICK)
    return file.getvalue()
