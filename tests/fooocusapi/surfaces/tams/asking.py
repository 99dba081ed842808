"""Staged jobs for the tests of their dialect: bodies, uploads, an engine that paints blanks, and keys to sign with."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
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
    return url.removeprefix("http://testserver")


def reserved(client: TestClient, **values: Any) -> Any:
    return client.post("/v1/resource/image", json=values).json()


def uploaded(client: TestClient, data: bytes | None = None) -> str:
    """The identifier of a picture that was put where it belongs."""
    slot = reserved(client)
    answer = client.put(path_of(slot["putUrl"]), content=data or picture_file())
    assert answer.status_code == 200, answer.text
    return str(slot["resourceId"])


def shown(client: TestClient, job_id: str) -> Any:
    return client.get(f"{JOBS}/{job_id}").json()["job"]


def ended(client: TestClient, job_id: str) -> Any:
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
        yield Progress((index + 0.5) / plan.main.image_number, "Step 1/2")
        pixels = np.full((size.height_px, size.width_px, 3), seed % 256, np.uint8)
        yield ImageFinished(index, seed, pixels, ImageRecord(seed, size.width_px, size.height_px, "some.safetensors"))
    yield Finished()


def blank_engine() -> UnloadableEngine:
    return UnloadableEngine(blank_story)


class SigningKey:
    """An RSA key made on the spot, for signatures as clients make them."""

    def __init__(self, bits: int = 2048, rng_seed: int = 1) -> None:
        rng = random.Random(rng_seed)
        half = bits // 2
        p, q = _prime(half, rng), _prime(half, rng)
        self.modulus, self.exponent = p * q, 65537
        self._primes = (p, q)
        self._private = pow(self.exponent, -1, (p - 1) * (q - 1))

    def sign(self, data: bytes) -> str:
        size = (self.modulus.bit_length() + 7) // 8
        digest = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(data).digest()
        padded = b"\0\1" + b"\xff" * (size - len(digest) - 3) + b"\0" + digest
        signed = pow(int.from_bytes(padded, "big"), self._private, self.modulus)
        return base64.b64encode(signed.to_bytes(size, "big")).decode()

    def pem(self) -> str:
        """As ``openssl rsa -pubout`` writes it."""
        key = _der(0x30, _der_number(self.modulus) + _der_number(self.exponent))
        kind = _der(0x30, bytes.fromhex("06092a864886f70d0101010500"))
        text = base64.encodebytes(_der(0x30, kind + _der(0x03, b"\0" + key))).decode()
        return f"-----BEGIN PUBLIC KEY-----\n{text}-----END PUBLIC KEY-----\n"

    def private_pem(self) -> str:
        """As ``openssl genrsa -traditional`` writes it."""
        p, q = self._primes
        numbers = (
            0,
            self.modulus,
            self.exponent,
            self._private,
            p,
            q,
            self._private % (p - 1),
            self._private % (q - 1),
        )
        content = b"".join(map(_der_number, (*numbers, pow(q, -1, p))))
        text = base64.encodebytes(_der(0x30, content)).decode()
        return f"-----BEGIN RSA PRIVATE KEY-----\n{text}-----END RSA PRIVATE KEY-----\n"

    def header(self, app: str, method: str, target: str, timestamp_s: int, data: bytes, nonce: str = "nonce") -> str:
        signed = b"\n".join((method.encode(), target.encode(), str(timestamp_s).encode(), nonce.encode(), data))
        parts = f"app_id={app},nonce_str={nonce},timestamp={timestamp_s},signature={self.sign(signed)}"
        return f"TAMS-SHA256-RSA {parts}"


_SMALL_PRIMES = [n for n in range(3, 2000, 2) if all(n % d for d in range(3, int(n**0.5) + 1, 2))]


def _prime(bits: int, rng: random.Random) -> int:
    while True:
        candidate = rng.getrandbits(bits) | (3 << (bits - 2)) | 1
        if all(candidate % small for small in _SMALL_PRIMES) and _is_probably_prime(candidate, rng):
            return candidate


def _is_probably_prime(number: int, rng: random.Random) -> bool:
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(4):
        power = pow(rng.randrange(2, number - 1), odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = (
        bytes([size])
        if size < 128
        else bytes([0x80 + (size.bit_length() + 7) // 8]) + size.to_bytes((size.bit_length() + 7) // 8, "big")
    )
    return bytes([tag]) + length + content


def _der_number(number: int) -> bytes:
    return _der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def with_uploads(request: Any, ids: dict[str, str]) -> Any:
    """The body with the identifiers of uploads in place of those that it was written with."""
    if isinstance(request, dict):
        return {key: with_uploads(value, ids) for key, value in request.items()}
    if isinstance(request, list):
        return [with_uploads(value, ids) for value in request]
    return ids.get(request, request) if isinstance(request, str) else copy.copy(request)
