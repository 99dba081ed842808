"""Where finished pictures lie: the one place that knows folders, names and addresses.

``<root>/files/<YYYY-MM-DD>/<name>-<index>.<ext>`` on disk is ``<base URL>/files/<YYYY-MM-DD>/<name>-<index>.<ext>`` on
the network. A *relative path* below is the part after ``files/``, always with forward slashes.
"""

from __future__ import annotations

import base64
import os
import random
import re
import secrets
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import quote, unquote, urlsplit

from fooocus_core.plan import PNG_LEVEL, Output
from fooocusapi.images.formats import KIND_OF_SUFFIX, Kind, converted, without_metadata
from fooocusapi.images.names import check_save_name, fooocus_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fooocus_core.events import ImageFinished
    from fooocus_core.metadata.record import AnyRecord
    from fooocus_core.plan import ImageFormat, MetadataScheme
    from fooocusapi.jobs.job import Job


Folder = Literal["files", "outputs"]
"""What the dialects call the folder of finished pictures in addresses; on the disk it is one."""


_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.part")


class Encoder(Protocol):
    """``fooocus_core.metadata.files.encode_image``: pixels and their record as the bytes of a file."""

    def __call__(
        self,
        pixels: NDArray[np.uint8],
        image_format: ImageFormat,
        record: AnyRecord | None,
        scheme: MetadataScheme,
    ) -> bytes: ...


def encode_with_core(
    pixels: NDArray[np.uint8],
    image_format: ImageFormat,
    record: AnyRecord | None,
    scheme: MetadataScheme,
    png_level: int = PNG_LEVEL,
) -> bytes:
    """The core's encoder, loaded with the first picture and not with the server."""
    from fooocus_core.metadata.files import encode_image

    return encode_image(pixels, image_format, record, scheme, png_level)


class OutputStore:
    """Writes, finds, reads and deletes finished pictures. Every method may touch the disk: call it from a thread."""

    def __init__(
        self,
        root: Path,
        base_url: str,
        *,
        base64_prefix: bool = True,
        encode: Encoder = encode_with_core,
        now: Callable[[], datetime] = datetime.now,
        rng: random.Random | None = None,
    ) -> None:
        """``root``: the outputs folder. ``base_url``: without a final slash. ``now``: the server's local time.

        ``rng`` draws the numbers of dated names.

        ``base64_prefix``: whether base64 results carry ``data:image/<ext>;base64,`` (they did not before release 0.5).
        """
        self._files = Path(root).absolute() / "files"
        self._base_url = base_url.rstrip("/")
        self._own_path = re.compile(f"(?:{re.escape(urlsplit(base_url).path.rstrip('/'))})?/(?:files|outputs)/(.+)")
        self._base64_prefix = base64_prefix
        self._encode = encode
        self._now = now
        self._rng = rng or random.Random()

    def save(self, job: Job, event: ImageFinished, note: Callable[[str], object] = lambda relative: None) -> str:
        """Writes one picture of a job and returns its relative path.

        The file appears under its name complete or not at all, and after ``note`` was told its relative path. Raises
        ``InvalidRequest`` for a name that would leave the date folder, ``OSError`` when the disk refuses, and what
        ``note`` raises.
        """
        output = job.plan.output if job.plan else Output()
        relative = self._relative_path(job.id, output, event.index)
        record = event.record if output.save_metadata else None
        data = self._encode(event.pixels, output.image_format, record, output.metadata_scheme)
        write_whole(self._inside(relative), data, lambda: note(relative))
        return relative

    def url(self, relative: str, folder: Folder = "files") -> str:
        """The absolute address of a picture, from the configured base URL, under a dialect's own ``folder``."""
        return f"{self._base_url}/{folder}/{quote(relative)}"

    def find(self, relative: str) -> Path | None:
        """The existing picture file at ``relative``, or ``None`` for anything else.

        Links, dots, NUL and absolute names cannot lead out: what counts is where the path ends up.
        """
        if _kind_of(relative) is None or "\\" in relative or relative.startswith("/"):
            return None
        if any(part.startswith(".") for part in relative.split("/")):
            return None
        try:
            path = (self._files / relative).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            return None
        return path if path.is_file() and path.is_relative_to(self._files.resolve()) else None

    def find_by_url(self, url: str) -> Path | None:
        """The existing picture file that an address names, or ``None``.

        The host does not count: one server goes by many names (localhost, its address, that of a proxy).
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            return None
        relative = self._own_path.fullmatch(parts.path)
        return self.find(unquote(relative[1])) if relative else None

    def as_base64(self, relative: str) -> str | None:
        """The picture as text, without its metadata; ``None`` when the file is gone."""
        path = self.find(relative)
        if path is None:
            return None
        suffix = path.suffix[1:].lower()
        text = base64.b64encode(without_metadata(path.read_bytes(), KIND_OF_SUFFIX[suffix])).decode("ascii")
        return f"data:image/{suffix};base64,{text}" if self._base64_prefix else text

    def as_kind(self, relative: str, kind: Kind) -> bytes | None:
        """The picture as this kind of file, without metadata, whatever it is stored as; ``None`` when it is gone."""
        path = self.find(relative)
        if path is None:
            return None
        data = path.read_bytes()
        return without_metadata(data, kind) if _kind_of(path.name) == kind else converted(data, kind)

    def delete(self, relatives: Iterable[str]) -> None:
        """Removes these pictures; files that are already gone, or cannot be removed, are left alone."""
        for relative in relatives:
            path = self.find(relative)
            if path is not None:
                path.unlink(missing_ok=True)

    def _relative_path(self, job_id: str, output: Output, index: int) -> str:
        stem = check_save_name(output.save_name)
        if output.dated_names and not stem:
            return self._free_dated_path(output.image_format)
        return f"{self._now():%Y-%m-%d}/{stem or job_id}-{index}.{output.image_format}"

    def _free_dated_path(self, image_format: ImageFormat) -> str:
        """One that no file has; the names of a second are many more than the pictures made in one."""
        while (self._files / (relative := fooocus_path(self._now(), image_format, self._rng))).exists():
            continue
        return relative

    def _inside(self, relative: str) -> Path:
        """The place of a new file, its folder made; the last look before the disk is touched."""
        path = self._files / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.resolve().is_relative_to(self._files.resolve()):
            raise PermissionError(f"the folder of {relative!r} lies outside the outputs folder")
        return path


def _kind_of(name: str) -> Kind | None:
    return KIND_OF_SUFFIX.get(name.rpartition(".")[2].lower()) if "." in name else None


def write_whole(path: Path, data: bytes, before_rename: Callable[[], object] = lambda: None) -> None:
    """Temporary name in the same folder, flushed to the disk, then renamed; nothing is left behind on failure."""
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        before_rename()
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_unfinished(root: Path) -> None:
    """Deletes what ``write_whole`` was at below ``root`` when its process was lost. Nobody may be writing there."""
    for folder, _, names in os.walk(root):
        for name in filter(_TEMPORARY.fullmatch, names):
            (Path(folder) / name).unlink(missing_ok=True)
