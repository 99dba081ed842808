"""The names by which this dialect's plans call pictures, and what the engine reads under them.

A job may name an upload whose bytes are still on their way, so its plan holds identifiers and not pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fooocus_core.errors import MissingPicture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PICTURE_PREFIX, MASK_PREFIX = "resource-", "mask-"
Read = Callable[[str], "NDArray[np.uint8]"]

_GREY: Final = (0.299, 0.587, 0.114)


def picture_name(resource_id: str) -> str:
    """A resource as a picture, ``[h, w, 3]``."""
    return f"{PICTURE_PREFIX}{resource_id}"


def mask_name(resource_id: str) -> str:
    """A resource as a mask, ``[h, w]``: one channel of grey."""
    return f"{MASK_PREFIX}{resource_id}"


def reading(kept: Read, resource: Read) -> Read:
    """Reads this dialect's names with ``resource``, by their identifiers, and all others with ``kept``."""

    def read(name: str) -> NDArray[np.uint8]:
        if name.startswith(PICTURE_PREFIX):
            return resource(name.removeprefix(PICTURE_PREFIX))
        if name.startswith(MASK_PREFIX):
            return _grey(resource(name.removeprefix(MASK_PREFIX)))
        return kept(name)

    return read


def first_of(*readers: Read) -> Read:
    """What the first of them has. Raises ``MissingPicture`` where none has it."""

    def read(name: str) -> NDArray[np.uint8]:
        for reader in readers:
            try:
                return reader(name)
            except MissingPicture:
                continue
        raise MissingPicture

    return read


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import numpy as np

    grey: NDArray[np.uint8] = np.rint(pixels @ np.array(_GREY)).astype(np.uint8)
    return grey
