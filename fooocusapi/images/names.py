"""Which names a client may give to its pictures, and the one that Fooocus gives.

The rules for clients are those of the strictest file system in use, so that an outputs folder can be copied anywhere,
and so that no name reaches a place outside its date folder on any of them.
"""

from __future__ import annotations

import random
import unicodedata
from datetime import datetime

from fooocus_core.errors import InvalidRequest
from fooocus_core.plan import ImageFormat

MAX_SAVE_NAME_CHARS = 200
"""The whole name, sub-folders included."""

MAX_SEGMENT_BYTES = 240
"""One folder or file stem in UTF-8: file systems hold 255, less ``-31.jpeg``."""

_FORBIDDEN_CHARACTERS = frozenset('\\:*?"<>|')
_FORBIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_DEVICES = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$"}) | {
    f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"
}


def check_save_name(name: str) -> str:
    """``name`` without blanks around it, fit to be joined to the date folder; ``""`` for no name.

    Sub-folders separated by ``/`` are allowed. Raises ``InvalidRequest`` for everything that could leave the folder
    or that some file system refuses.
    """
    name = name.strip(" ")
    if not name:
        return ""
    if len(name) > MAX_SAVE_NAME_CHARS:
        raise _refused(f"has {len(name)} characters, at most {MAX_SAVE_NAME_CHARS} are allowed")
    if name.startswith("/"):
        raise _refused("must be relative, without a leading '/'")
    for character in name:
        _check_character(character)
    for segment in name.split("/"):
        _check_segment(segment)
    return name


def fooocus_path(now: datetime, image_format: ImageFormat, rng: random.Random) -> str:
    """A path below the outputs folder as Fooocus makes it (specification 08, section 6); not unique, nor a secret."""
    return f"{now:%Y-%m-%d}/{now:%Y-%m-%d_%H-%M-%S}_{rng.randint(1000, 9999)}.{image_format}"


def _check_character(character: str) -> None:
    if character in _FORBIDDEN_CHARACTERS:
        raise _refused(f"must not contain {character!r}")
    if unicodedata.category(character) in _FORBIDDEN_CATEGORIES:
        raise _refused("must not contain control characters")


def _check_segment(segment: str) -> None:
    if not segment:
        raise _refused("must not contain an empty folder name")
    if segment.startswith("."):
        raise _refused("must not contain '..' or a part that starts with a dot")
    if segment != segment.strip(" ") or segment.endswith("."):
        raise _refused("must not contain a part that begins with a blank or ends with a blank or a dot")
    if segment.split(".")[0].strip(" ").lower() in _DEVICES:
        raise _refused(f"must not contain the device name {segment!r}")
    if len(segment.encode()) > MAX_SEGMENT_BYTES:
        raise _refused(f"has a part longer than {MAX_SEGMENT_BYTES} bytes")


def _refused(reason: str) -> InvalidRequest:
    return InvalidRequest("save_name", reason)
