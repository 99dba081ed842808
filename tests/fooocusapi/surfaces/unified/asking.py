"""Requests of the unified dialect, and pictures for them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image

from tests.fooocusapi.served import wait_until

GENERATE = "/v1/engine/generate"
FIRST_TASK = "00000000000040008000000000000001"


def png(pixels: NDArray[np.uint8]) -> str:
    """Base64 of a PNG, as clients send it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def plain(value: int, width_px: int = 64, height_px: int = 48) -> NDArray[np.uint8]:
    """A picture of one grey."""
    return np.full((height_px, width_px, 3), value, np.uint8)


PICTURE = png(plain(90))
OTHER = png(plain(200, 80, 56))
MASK = png(np.pad(plain(255, 16, 12), ((18, 18), (24, 24), (0, 0))))
"""White in the middle, of the size of ``PICTURE``."""


def task(client: TestClient, task_id: str = FIRST_TASK) -> Any:
    return client.get(f"/tasks/{task_id}").json()


def ended(client: TestClient, task_id: str = FIRST_TASK) -> Any:
    """The task's record once it has ended."""
    wait_until(lambda: task(client, task_id)["task_status"] in ("finished", "stop"))
    return task(client, task_id)
