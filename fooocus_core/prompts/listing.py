"""Files of a folder in the order that decides between equal names (specification 01, section 6.1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def list_files(folder: Path, suffix: str) -> Iterator[Path]:
    """All files below ``folder`` whose name ends in ``suffix``: sub-folders first, names sorted without case.

    Links to folders are not followed, so no ring of them is walked. A folder that is not there, or may not be read,
    holds no files.
    """
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name.casefold())
    except OSError:
        return
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            yield from list_files(entry, suffix)
    yield from (entry for entry in entries if entry.is_file() and entry.name.lower().endswith(suffix))
