"""Staged jobs for the tests of their dialect: bodies, uploads, an engine that paints blanks, and keys to sign with."""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from PIL import Image

from fooocus_core.events import Event, Finished, ImageFinished, Progress, Started
from fooocus_core.metadata.record import ImageRecord
from fooocus_core.plan import Detail, Plan
from tests.fooocusapi.served import UnloadableEngine, wait_until

JOBS = "/v1/jobs"
MODEL = "600423083519508503"
FINAL = ("SUCCESS", "FAILED", "CANCELED")


def diffusion(**values: Any) -> dict[str, Any]:
    """A block that asks for little."""
    return {"width": 512, "height": 512, "prompts": [{"text": "a red ball"}], "sdModel": MODEL, "steps": 20, **values}


def stages(*later: dict[str, Any], start: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The first stage, and those that follow."""
    return [{"type": "INPUT_INITIALIZE", "inputInitialize": start or {"seed": "42"}}, *later]


def painted(**values: Any) -> dict[str, Any]:
    return {"type": "DIFFUSION", "diffusion": diffusion(**values)}


def body(request_id: str = "one", *later: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A job that paints one picture of a text, or one of other stages."""
    start = values.pop("start", None)
    return {"requestId": request_id, "stages": stages(*(later or (painted(),)), start=start), **values}


def picture_file(width_px: int = 512, height_px: int = 512, kind: str = "PNG", value: int = 90) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width_px, height_px), (value, value, value)).save(file, kind)
    return file.getvalue()


def path_of(url: str) -> str:
    """An address without its server."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def reserved(client: httpx.Client, **values: Any) -> Any:
    return client.post("/v1/resource/image", json=values).json()


def uploaded(client: httpx.Client, data: bytes | None = None) -> str:
    """The identifier of a picture that was put where it belongs."""
    slot = reserved(client)
    answer = client.put(path_of(slot["putUrl"]), content=data or picture_file())
    assert answer.status_code == 200, answer.text
    return str(slot["resourceId"])


def shown(client: httpx.Client, job_id: str) -> Any:
    return client.get(f"{JOBS}/{job_id}").json()["job"]


def ended(client: httpx.Client, job_id: str) -> Any:
    """The job once nothing can happen to it any more."""
    wait_until(lambda: shown(client, job_id)["status"] in FINAL)
    return shown(client, job_id)


def fields(answer: Any) -> list[str]:
    """The fields that a refusal names."""
    return [detail["field"] for detail in answer.json()["details"]]


def blank_story(plan: Plan) -> Iterator[Event]:
    """Pictures of the size that the plan's last stage tells."""
    last = plan.stages[-1]
    size = last.base if isinstance(last, Detail) else last
    yield Started(plan.main.image_number)
    for index in range(plan.main.image_number):
        seed = (plan.main.seed + index) % 2**32
        yield Progress((index + 0.5) / plan.main.image_number, "Step 1/2", np.full((8, 8, 3), 90, np.uint8))
        pixels = np.full((size.height_px, size.width_px, 3), seed % 256, np.uint8)
        yield ImageFinished(index, seed, pixels, ImageRecord(seed, size.width_px, size.height_px, "some.safetensors"))
    yield Finished()


def blank_engine() -> UnloadableEngine:
    return UnloadableEngine(blank_story)


class SigningKey:
    """An RSA key made on the spot, for signatures as clients make them."""

    def __init__(self, bits: int = 2048) -> None:
        self._key = rsa.generate_private_key(65537, bits)

    def sign(self, data: bytes) -> str:
        return base64.b64encode(self._key.sign(data, PKCS1v15(), SHA256())).decode()

    def pem(self) -> str:
        """As ``openssl rsa -pubout`` writes it."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()

    def private_pem(self) -> str:
        """As ``openssl genrsa -traditional`` writes it."""
        form = serialization.PrivateFormat.TraditionalOpenSSL
        return self._key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()

    def header(self, app: str, method: str, target: str, timestamp_s: int, data: bytes, nonce: str = "nonce") -> str:
        signed = b"\n".join((method.encode(), target.encode(), str(timestamp_s).encode(), nonce.encode(), data))
        parts = f"app_id={app},nonce_str={nonce},timestamp={timestamp_s},signature={self.sign(signed)}"
        return f"TAMS-SHA256-RSA {parts}"


def with_uploads(request: Any, ids: dict[str, str]) -> Any:
    """The body with the identifiers of uploads in place of those that it was written with."""
    if isinstance(request, dict):
        return {key: with_uploads(value, ids) for key, value in request.items()}
    if isinstance(request, list):
        return [with_uploads(value, ids) for value in request]
    return ids.get(request, request) if isinstance(request, str) else copy.copy(request)
