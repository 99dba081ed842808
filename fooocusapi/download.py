"""Fetching model files over HTTP: ``main.py download NAME...`` and ``--auto-download``.

A file grows as ``<name>.part`` beside its place and takes its name when it is whole and right. A download that was cut
goes on where it stopped, in this process or the next, as long as the server still has the same file (RFC 9110, sections
13.1.5 and 14). Beside the part, ``<name>.part.json`` keeps what tells that.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Final

import httpx

from fooocus_core.errors import DownloadFailed
from fooocus_core.model_files.catalogue import ModelFile
from fooocus_core.model_files.supply import Fetched

try:
    import fcntl
except ImportError:  # Windows has none, and lets nobody else replace or delete a file that is open.
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

HUGGING_FACE: Final = "https://huggingface.co"
LINKED_ETAG: Final = "x-linked-etag"
"""Where Hugging Face, before it redirects to its store, tells a large file's SHA-256."""
READ_BYTES: Final = 1 << 20
SPARE_BYTES: Final = 64 << 20
"""What is left free on the disk, for the journal and the pictures."""
WORTH_BYTES: Final = 1 << 20
"""An attempt that gained so much counts as a success, however it ended."""
TRY_AGAIN_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Patience:
    """How long a download is kept at."""

    attempts: int = 5
    """In a row, without a gain worth telling."""
    connect_s: float = 10.0
    silence_s: float = 15.0
    """Between two pieces of an answer."""
    pause_s: float = 1.0
    """Before the second attempt; twice that before the third, and so on, at most ``longest_pause_s``."""
    longest_pause_s: float = 30.0

    @property
    def timeout(self) -> httpx.Timeout:
        return httpx.Timeout(self.silence_s, connect=self.connect_s)


class Downloader:
    """Fetches model files into their folders. For one file at a time; another process may fetch others."""

    def __init__(
        self,
        client: httpx.Client,
        *,
        mirror: str = "",
        patience: Patience | None = None,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        """``mirror`` stands in for Hugging Face's address in every URL."""
        self._client = client
        self._mirror = mirror
        self._patience = patience or Patience()
        self._free_bytes = free_bytes

    def __call__(self, file: ModelFile, folder: Path) -> Generator[Fetched, None, None]:
        """See ``fooocus_core.model_files.supply.Fetch``. A file that is there stays as it is.

        Raises ``DownloadFailed``.
        """
        place = place_of(file, folder)
        if place.is_file():
            return
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with _held(_Part(place), file.name) as part:
                if place.is_file():  # Another process has finished it since.
                    return
                yield from self._filled(file, part)
                yield from _checked(file, part)
                part.finish()
        except OSError as error:
            raise DownloadFailed(file.name, f"it cannot be written: {error.strerror or error}") from error

    def _filled(self, file: ModelFile, part: _Part) -> Iterator[Fetched]:
        """Attempts until the part is whole."""
        url = mirrored(file.url, self._mirror)
        failures = 0
        while True:
            had = part.size_bytes
            try:
                yield from self._attempted(file, url, part)
                return
            except (_Interrupted, httpx.TransportError) as error:
                failures = 0 if part.size_bytes - had >= WORTH_BYTES else failures + 1
                reason = _told(error)
            if failures >= self._patience.attempts:
                raise DownloadFailed(file.name, f"{reason} ({failures} attempts in a row, {url})")
            logger.warning("download of %s interrupted, will be tried again: %s", file.name, reason)
            yield from self._paused(failures, part)

    def _attempted(self, file: ModelFile, url: str, part: _Part) -> Iterator[Fetched]:
        """One request. Raises ``_Interrupted`` or ``httpx.TransportError`` where another may have more success."""
        wanted = {"Accept-Encoding": "identity", **part.continuation(url)}
        timeout = self._patience.timeout
        try:
            with self._client.stream("GET", url, headers=wanted, timeout=timeout, follow_redirects=True) as answer:
                digest = file.digest or _linked_digest(answer)
                start = _start(file, answer, part)
                total = _total(file, answer, start)
                self._require_room(file, part.folder, total, start)
                part.begin(start, Source(url, _validator(answer), total, digest))
                yield Fetched(start, total)
                yield from _received(file, answer, part, total)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.DecodingError) as error:
            raise DownloadFailed(file.name, f"its address leads nowhere: {error}") from error

    def _require_room(self, file: ModelFile, folder: Path, total: int | None, start: int) -> None:
        """The rest must fit on the disk."""
        needed = 0 if total is None else total - start
        free = self._free_bytes(folder)
        if needed + SPARE_BYTES > free:
            raise DownloadFailed(file.name, f"it needs {_megabytes(needed)} and the disk has {_megabytes(free)} left")

    def _paused(self, failures: int, part: _Part) -> Iterator[Fetched]:
        """Waits in small pieces, between which the caller can leave."""
        pause_s = min(self._patience.pause_s * 2 ** max(0, failures - 1), self._patience.longest_pause_s)
        until = time.monotonic() + pause_s
        while (left_s := until - time.monotonic()) > 0:
            yield Fetched(part.size_bytes, part.source.total_bytes)
            time.sleep(min(left_s, 0.25))


@dataclass(frozen=True)
class Source:
    """What a part is a part of."""

    url: str = ""
    validator: str = ""
    """The strong ETag, or the date, by which the server knows the same file again; empty: it cannot be gone on with."""
    total_bytes: int | None = None
    digest: str = ""


class _Part:
    """A growing file beside its place, and where it comes from."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._path = place.with_name(place.name + ".part")
        self._note = place.with_name(place.name + ".part.json")
        self._file: IO[bytes] | None = None
        self.source = Source()

    @property
    def folder(self) -> Path:
        return self._place.parent

    @property
    def size_bytes(self) -> int:
        return self.file.seek(0, os.SEEK_END)

    @property
    def file(self) -> IO[bytes]:
        """Open for reading and appending while the part is held."""
        if self._file is None:
            raise ValueError("the part is not open")
        return self._file

    def open(self) -> None:
        """Take up what an earlier attempt left, if it says what it is."""
        self._file = self._path.open("a+b")
        self.source = _read_note(self._note)

    def close(self) -> None:
        """What is of no use to the next attempt goes."""
        is_of_use = self.size_bytes > 0 and self.source.validator != ""
        self.file.close()
        if not is_of_use:
            self.discard()

    def discard(self) -> None:
        """Forget it all."""
        with suppress(FileNotFoundError):
            self._path.unlink()
        with suppress(FileNotFoundError):
            self._note.unlink()

    def continuation(self, url: str) -> dict[str, str]:
        """The headers that ask for the rest alone, if the server still has the same file at the same address."""
        size = self.size_bytes
        if size == 0 or self.source.url != url or not self.source.validator:
            return {}
        return {"Range": f"bytes={size}-", "If-Range": self.source.validator}

    def begin(self, start: int, source: Source) -> None:
        """Keep the first ``start`` bytes; the rest comes from ``source``."""
        self.file.truncate(start)
        if source != self.source:
            self._note.write_text(json.dumps(source.__dict__), encoding="utf-8")
            self.source = source

    def finish(self) -> None:
        """Give the file its name. From here on, nothing is left of the part."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self._path.replace(self._place)
        with suppress(FileNotFoundError):
            self._note.unlink()


class _Interrupted(Exception):
    """The transfer ended too early, for a reason that may pass."""


def place_of(file: ModelFile, folder: Path) -> Path:
    """Where a file goes: into ``folder`` or below it, whatever its name and the links in the folder say.

    Raises ``DownloadFailed`` for a name that leads elsewhere.
    """
    path, windows = PurePosixPath(file.name.replace("\\", "/")), PureWindowsPath(file.name)
    is_plain = path.parts and not path.is_absolute() and not windows.drive and "\0" not in file.name
    if not is_plain or ".." in path.parts:
        raise DownloadFailed(repr(file.name), "its name leads out of the models' folder")
    place = folder / path
    if not place.resolve().is_relative_to(folder.resolve()):
        raise DownloadFailed(file.name, "a link leads out of the models' folder")
    return place


def mirrored(url: str, mirror: str) -> str:
    """The address at ``mirror``, a host or the beginning of a URL, for what Hugging Face publishes."""
    if not mirror or not url.startswith(HUGGING_FACE + "/"):
        return url
    base = mirror if "://" in mirror else f"https://{mirror}"
    return base.rstrip("/") + url.removeprefix(HUGGING_FACE)


@contextmanager
def _held(part: _Part, name: str) -> Iterator[_Part]:
    """The part, opened for this process alone; closed whatever happens."""
    part.open()
    try:
        if fcntl is not None:
            fcntl.flock(part.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        part.file.close()
        raise DownloadFailed(name, "another process is fetching it") from None
    try:
        yield part
    finally:
        part.close()


def _start(file: ModelFile, answer: httpx.Response, part: _Part) -> int:
    """The byte that the answer begins with. Raises ``DownloadFailed`` and ``_Interrupted`` for other answers."""
    status = answer.status_code
    if status == 200:
        return _refused_page(file, answer)
    if status == 206:
        start = re.match(r"bytes (\d+)-", answer.headers.get("content-range", ""))
        if start is None or int(start[1]) != part.size_bytes:
            part.begin(0, Source())
            raise _Interrupted(f"{answer.url.host} answered with another piece than was asked for")
        return part.size_bytes
    if status == 416:
        part.begin(0, Source())
        raise _Interrupted(f"{answer.url.host} has no such piece")
    if status in TRY_AGAIN_STATUS:
        raise _Interrupted(f"{answer.url.host} answered {status}")
    raise DownloadFailed(file.name, f"{answer.url.host} answered {status} ({file.url})")


def _refused_page(file: ModelFile, answer: httpx.Response) -> int:
    """The start of a whole file; raises ``DownloadFailed`` for what is a page for people, or packed."""
    if answer.headers.get("content-type", "").startswith("text/html"):
        raise DownloadFailed(file.name, f"{answer.url.host} answered with a web page ({file.url})")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise DownloadFailed(file.name, f"{answer.url.host} answered with packed data that was not asked for")
    return 0


def _total(file: ModelFile, answer: httpx.Response, start: int) -> int | None:
    """The length of the whole file; ``None`` where only the end of a chunked answer will tell.

    Raises ``DownloadFailed`` where it is not the length of the right file, or nobody tells it: a file that is cut
    could not be told from a whole one.
    """
    length = answer.headers.get("content-length", "")
    piece = re.fullmatch(r"bytes \d+-\d+/(\d+)", answer.headers.get("content-range", ""))
    total = int(piece[1]) if piece else start + int(length) if length.isdecimal() else file.size_bytes
    if file.size_bytes is not None and total != file.size_bytes:
        raise DownloadFailed(
            file.name, f"{answer.url.host} has {total} bytes under this name, the right file {file.size_bytes}"
        )
    if total is None and answer.headers.get("transfer-encoding", "") != "chunked":
        raise DownloadFailed(file.name, f"{answer.url.host} does not say how long it is")
    return total


def _received(file: ModelFile, answer: httpx.Response, part: _Part, total: int | None) -> Iterator[Fetched]:
    """Writes the answer's body behind the part. Raises ``_Interrupted`` if it ends too early."""
    done = part.size_bytes
    for piece in answer.iter_raw():  # As it comes: pieces of a size of ours would be lost with the connection.
        done += len(piece)
        if total is not None and done > total:
            part.begin(0, Source())
            raise DownloadFailed(file.name, f"{answer.url.host} sends more than the {total} bytes of the file")
        part.file.write(piece)
        yield Fetched(done, total)
    if total is not None and done < total:
        raise _Interrupted(f"the connection to {answer.url.host} ended after {done} of {total} bytes")


def _checked(file: ModelFile, part: _Part) -> Iterator[Fetched]:
    """Compares the part with the digest, if one is known. Raises ``DownloadFailed``; nothing is kept then."""
    algorithm, _, expected = part.source.digest.partition(":")
    if not algorithm:
        return
    digest = hashlib.new(algorithm, usedforsecurity=False)
    size = part.size_bytes
    part.file.seek(0)
    while block := part.file.read(READ_BYTES):
        digest.update(block)
        yield Fetched(size, size)
    if digest.hexdigest() != expected.lower():
        part.begin(0, Source())
        raise DownloadFailed(
            file.name, f"what came is not the right file (its {algorithm.upper()} differs); thrown away"
        )


def _linked_digest(answer: httpx.Response) -> str:
    """The digest that a redirect on the way to ``answer`` told of."""
    for step in answer.history:
        etag = step.headers.get(LINKED_ETAG, "").strip('"')
        if re.fullmatch(r"[0-9a-fA-F]{64}", etag):
            return f"sha256:{etag}"
    return ""


def _validator(answer: httpx.Response) -> str:
    """What ``If-Range`` may be given: a strong ETag, else the date of the last change (RFC 9110, section 13.1.5)."""
    etag: str = answer.headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return etag
    modified: str = answer.headers.get("last-modified", "")
    return modified


def _read_note(path: Path) -> Source:
    """What is known of a part; nothing where the note is missing or not understood."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        total = note["total_bytes"]
        return Source(
            str(note["url"]), str(note["validator"]), None if total is None else int(total), str(note["digest"])
        )
    except (OSError, ValueError, TypeError, KeyError):
        return Source()


def _told(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "the server does not answer in time"
    return str(error) or type(error).__name__


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
