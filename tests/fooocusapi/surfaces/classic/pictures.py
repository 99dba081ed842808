"""Pictures as clients send them, and what the engine was asked to do with them."""

from __future__ import annotations

import base64
import io
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fooocus_core.plan import Diffuse
from tests.fooocusapi.served import House, wait_until


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def plain(height_px: int, width_px: int, level: int = 255) -> bytes:
    """A grey picture as a file."""
    return png(np.full((height_px, width_px, 3), level, np.uint8))


def half(height_px: int, width_px: int) -> bytes:
    """A mask, white in its right half."""
    mask = np.zeros((height_px, width_px, 3), np.uint8)
    mask[:, width_px // 2 :] = 255
    return png(mask)


def bomb(side_px: int = 30_000) -> bytes:
    """A file of some bytes whose header promises a picture of that many pixels a side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    sides = side_px.to_bytes(4, "big") * 2
    header, data = chunk(b"IHDR", sides + bytes([8, 2, 0, 0, 0])), chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def text(file: bytes) -> str:
    return base64.b64encode(file).decode()


def stage_of(house: House) -> Diffuse:
    """The stage of the last plan that the engine was given."""
    (stage,) = house.engine.plans[-1].stages
    assert isinstance(stage, Diffuse)
    return stage


def nothing_kept(house: House) -> bool:
    """Whether no picture that was sent lies on disk. A job's go just after it was seen to have ended."""
    wait_until(lambda: not list(house.root.glob("inputs/*")))
    return True


def accepted(client: Any, path: str, **sent: Any) -> Any:
    """The answer to what must be taken and painted."""
    answer = client.post(path, **sent)
    assert answer.status_code == 200, answer.text
    assert answer.json()[0]["finish_reason"] == "SUCCESS"
    return answer.json()


def refused_field(client: Any, path: str, **sent: Any) -> list[Any]:
    """The place, below the body, of the first fault of what must be refused."""
    answer = client.post(path, **sent)
    assert answer.status_code == 422, answer.text
    assert set(answer.json()) == {"detail", "body"}
    body, *field = answer.json()["detail"][0]["loc"]
    assert body == "body"
    return field
