"""``main.py inspect FILE``: what made a picture, as a request that can be sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from fooocus_core.errors import InvalidRequest
from fooocus_core.metadata.read import FileNames, read_metadata
from fooocus_core.metadata.restore import restore_request
from fooocus_core.prompts.styles import load_styles
from fooocusapi.surfaces.classic.compose import to_body

MAX_FILE_BYTES = 512 * 2**20
"""Larger files are no pictures of ours."""


class InspectionFailed(Exception):
    """The file tells nothing; the text says why."""


class Inspection(NamedTuple):
    """The body of a classic text-to-image call, and the keys of the metadata that it leaves out as not understood."""

    body: dict[str, Any]
    unread: tuple[str, ...]


def inspect_picture(path: Path, styles_path: Path) -> Inspection:
    """What made the picture in ``path``. Weight files are named as in its metadata: by their stems, which suffice.

    Styles of the scheme ``a1111`` are recognised by their texts, ``styles_path`` holds the user's own. Raises
    ``InspectionFailed``.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InspectionFailed(f"{path}: too large for a picture")
        saved = read_metadata(path.read_bytes())
    except OSError as error:
        raise InspectionFailed(f"{path}: {error.strerror or error}") from error
    except InvalidRequest as error:
        raise InspectionFailed(f"{path}: {error.reason}") from error
    if saved is None:
        raise InspectionFailed(f"{path}: holds no metadata")
    request, unread = restore_request(saved, FileNames(), load_styles(styles_path))
    return Inspection(to_body(request), unread)
