"""Signatures of webhooks as the Standard Webhooks specification (1.0) has them, symmetric kind (``v1``)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

SECRET_PREFIX = "whsec_"
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64


def secret_bytes(text: str) -> bytes:
    """The key that ``whsec_...`` holds. Raises ``ValueError`` for what is none; the text is not told."""
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"must be base64, with or without {SECRET_PREFIX} in front") from None
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError(f"must hold {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes")
    return key


def signed_headers(message_id: str, sent_s: int, body: bytes, key: bytes) -> dict[str, str]:
    """The identifier and the time of a message; with a ``key`` also the signature over both and the body."""
    headers = {"webhook-id": message_id, "webhook-timestamp": str(sent_s)}
    if key:
        digest = hmac.new(key, f"{message_id}.{sent_s}.".encode() + body, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers
