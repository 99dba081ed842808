"""Pictures that clients upload in two steps (contract section 10): a slot is reserved, then its bytes are put there.

A slot is a small JSON file named by its identifier, with the picture's bytes beside it. Addresses to upload to, and
those of finished pictures, carry their own end and a signature, so that neither needs a key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from fooocus_core.errors import MissingPicture
from fooocusapi.images.decode import ImageLimits, UnusableImage, decode_image
from fooocusapi.images.outputs import write_whole
from fooocusapi.surfaces.tams.failures import Refusal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

MAX_SIDE_PX: Final = 8192
SHORT_TERM, LONG_TERM = 1, 2
SHORT_TERM_MS: Final = 7 * 24 * 3600 * 1000
SHORTEST_SLOT_S, USUAL_SLOT_S, LONGEST_SLOT_S = 60, 3600, 86_400
SWEPT_EVERY_MS: Final = 3600 * 1000
AWAITED_S: Final = 10.0
"""How long a job waits at its start for bytes that are still on their way (10.3)."""
LOOKED_AGAIN_S: Final = 0.05


@dataclass(frozen=True)
class Slot:
    """One reserved identifier. Times are milliseconds since the epoch."""

    id: str
    application: str
    reserved_ms: int
    closes_ms: int
    """Until then bytes may be put there."""
    term: int = SHORT_TERM
    put_ms: int = 0
    """When the bytes came; 0: not yet."""
    width_px: int = 0
    height_px: int = 0
    is_used: bool = False
    """Whether a job has read the bytes, which then stay as they are."""

    def is_alive(self, now_ms: int) -> bool:
        """Whether the identifier still means anything."""
        return self.term == LONG_TERM or now_ms < (self.put_ms or self.reserved_ms) + SHORT_TERM_MS


class Signer:
    """Signs addresses of one server with a secret that lies in its own folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "secret"
        self._lock = threading.Lock()
        self._secret = b""

    def query(self, method: str, resource_id: str, ends_ms: int) -> str:
        """The query string that lets ``method`` at this resource pass until ``ends_ms``."""
        return urlencode(
            {"expires": ends_ms // 1000, "signature": self._signature(method, resource_id, ends_ms // 1000)}
        )

    def check(self, method: str, resource_id: str, expires: str, signature: str, now_ms: int) -> None:
        """Raises ``Refusal`` (403) for an address that has ended or was not signed here."""
        if not (expires.isascii() and expires.isdecimal() and len(expires) < 16):
            raise Refusal(403, "the address is not signed")
        expected = self._signature(method, resource_id, int(expires))
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogateescape")):
            raise Refusal(403, "the signature of the address is wrong")
        if now_ms >= int(expires) * 1000:
            raise Refusal(403, "the address has expired")

    def _signature(self, method: str, resource_id: str, expires_s: int) -> str:
        text = f"{method}\n{resource_id}\n{expires_s}"
        return hmac.new(self._key(), text.encode(), hashlib.sha256).hexdigest()

    def _key(self) -> bytes:
        with self._lock:
            if not self._secret:
                self._secret = self._read() or self._made()
            return self._secret

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""

    def _made(self) -> bytes:
        made = secrets.token_bytes(32)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._path, made)
        return made


class Resources:
    """All slots of one server. For any thread; uses the disk."""

    def __init__(self, folder: Path, limits: ImageLimits, clock: Callable[[], int]) -> None:
        self._folder = folder
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._swept_ms = 0
        self.signer = Signer(folder)

    @property
    def max_bytes(self) -> int:
        return self._limits.max_bytes

    def reserve(self, application: str, open_for_s: int, term: int) -> Slot:
        """A new slot, whose bytes may come for so long. Now and then, dead ones are deleted."""
        self._sweep()
        now_ms = self._clock()
        slot = Slot(str(uuid.uuid4()), application, now_ms, now_ms + open_for_s * 1000, term)
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write(slot)
        return slot

    def put(self, resource_id: str, data: bytes) -> None:
        """Takes a slot's bytes, which must be a picture. Raises ``Refusal``: 400, 404, 409 or 413."""
        width_px, height_px = self._checked(data)
        with self._lock:
            slot = self._read(resource_id)
            if slot is None:
                raise Refusal(404, "there is no such resource")
            if slot.is_used:
                raise Refusal(409, "a job has used this resource already")
            write_whole(self._bytes_of(slot.id), data)
            self._write(replace(slot, put_ms=self._clock(), width_px=width_px, height_px=height_px))

    def find(self, resource_id: str, application: str) -> Slot | None:
        """The application's slot of this identifier, filled or not, as long as it lives."""
        with self._lock:
            slot = self._read(resource_id)
        is_own = slot is not None and slot.application == application and slot.is_alive(self._clock())
        return slot if is_own else None

    def pixels(self, resource_id: str) -> NDArray[np.uint8]:
        """The picture for a job, which closes its slot; waits a little for bytes that are on their way.

        RGB ``[height, width, 3]``: transparency is drawn over white. Raises ``MissingPicture``.
        """
        deadline_s = time.monotonic() + AWAITED_S
        while (data := self._taken(resource_id)) is None:
            if time.monotonic() > deadline_s:
                raise MissingPicture
            time.sleep(LOOKED_AGAIN_S)
        return over_white(decode_image(data, self._limits))

    def _taken(self, resource_id: str) -> bytes | None:
        with self._lock:
            slot = self._read(resource_id)
            if slot is None:
                raise MissingPicture
            if not slot.put_ms:
                return None
            if not slot.is_used:
                self._write(replace(slot, is_used=True))
            try:
                return self._bytes_of(slot.id).read_bytes()
            except OSError as error:
                raise MissingPicture from error

    def _checked(self, data: bytes) -> tuple[int, int]:
        """Width and height of a picture that is fit to be worked with."""
        if len(data) > self._limits.max_bytes:
            raise Refusal(413, f"the picture has more than {self._limits.max_bytes} bytes")
        try:
            height_px, width_px = decode_image(data, self._limits).shape[:2]
        except UnusableImage as error:
            raise Refusal(400, str(error)) from None
        if max(width_px, height_px) > MAX_SIDE_PX:
            raise Refusal(400, f"the picture has a side of more than {MAX_SIDE_PX} pixels")
        return width_px, height_px

    def _sweep(self) -> None:
        now_ms = self._clock()
        with self._lock:
            if now_ms - self._swept_ms < SWEPT_EVERY_MS:
                return
            self._swept_ms = now_ms
            for path in self._folder.glob("*.json"):
                slot = self._read(path.stem)
                if slot is not None and not slot.is_alive(now_ms):
                    self._bytes_of(slot.id).unlink(missing_ok=True)
                    path.unlink(missing_ok=True)

    def _read(self, resource_id: str) -> Slot | None:
        if canonical(resource_id) is None:
            return None
        try:
            return Slot(**json.loads(self._record_of(resource_id).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError):
            logger.warning("the record of an uploaded picture cannot be read: %s", resource_id)
            return None

    def _write(self, slot: Slot) -> None:
        write_whole(self._record_of(slot.id), json.dumps(asdict(slot)).encode())

    def _record_of(self, resource_id: str) -> Path:
        return self._folder / f"{resource_id}.json"

    def _bytes_of(self, resource_id: str) -> Path:
        return self._folder / f"{resource_id}.bin"


def canonical(resource_id: str) -> str | None:
    """The identifier if it is written as all are: a UUID in lower case with dashes."""
    try:
        return resource_id if str(uuid.UUID(resource_id)) == resource_id else None
    except ValueError:
        return None


def over_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``[h, w, 3]`` or ``[h, w, 4]`` as a picture without transparency (13.1)."""
    import numpy as np

    if pixels.shape[2] == 3:
        return pixels
    share = pixels[..., 3:].astype(np.float32) / 255
    drawn: NDArray[np.uint8] = np.rint(pixels[..., :3] * share + 255 * (1 - share)).astype(np.uint8)
    return drawn
