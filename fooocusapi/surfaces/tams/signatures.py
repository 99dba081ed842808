"""RSA signatures as contract section 2.2 has them: PKCS#1 v1.5 over SHA-256, checked with a public key in PEM.

Checking needs one modular power and a comparison, and no secret; so it is done here rather than with a library.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

MIN_BITS: Final = 2048
MAX_BITS: Final = 16384

_PEM: Final = re.compile(r"-----BEGIN (RSA )?PUBLIC KEY-----(.+?)-----END (?:RSA )?PUBLIC KEY-----", re.DOTALL)
_RSA_ENCRYPTION: Final = bytes.fromhex("06092a864886f70d010101")
"""The object identifier of RSA keys, as DER writes it."""
_SHA256_PREFIX: Final = bytes.fromhex("3031300d060960864801650304020105000420")
"""What PKCS#1 v1.5 puts in front of a SHA-256 digest (RFC 8017, section 9.2)."""

_INTEGER, _BIT_STRING, _SEQUENCE = 0x02, 0x03, 0x30
_LONG_LENGTH = 0x80


@dataclass(frozen=True)
class PublicKey:
    """An RSA key that signatures are checked with."""

    modulus: int
    exponent: int

    @classmethod
    def from_pem(cls, text: str) -> PublicKey:
        """The key of a file, ``PUBLIC KEY`` or ``RSA PUBLIC KEY``. Raises ``ValueError`` for anything else."""
        found = _PEM.search(text)
        if found is None:
            raise ValueError("holds no public key in PEM")
        try:
            der = base64.b64decode("".join(found[2].split()), validate=True)
            modulus, exponent = _numbers(der if found[1] else _wrapped_key(der))
        except (binascii.Error, IndexError) as error:
            raise ValueError("holds a damaged public key") from error
        if not MIN_BITS <= modulus.bit_length() <= MAX_BITS:
            raise ValueError(f"has a key of {modulus.bit_length()} bits; {MIN_BITS} to {MAX_BITS} are needed")
        if exponent < 3 or exponent % 2 == 0 or exponent >= modulus:
            raise ValueError("has a key whose exponent is none")
        return cls(modulus, exponent)

    def has_signed(self, data: bytes, signature: str) -> bool:
        """Whether ``signature``, in base64, is this key's over ``data``."""
        try:
            signed = base64.b64decode(signature, validate=True)
        except (binascii.Error, ValueError):
            return False
        size = (self.modulus.bit_length() + 7) // 8
        number = int.from_bytes(signed, "big")
        if len(signed) != size or number >= self.modulus:
            return False
        shown = pow(number, self.exponent, self.modulus).to_bytes(size, "big")
        digest = _SHA256_PREFIX + hashlib.sha256(data).digest()
        return shown == b"\0\1" + b"\xff" * (size - len(digest) - 3) + b"\0" + digest


def _wrapped_key(der: bytes) -> bytes:
    """The key within a ``SubjectPublicKeyInfo`` (RFC 5280)."""
    kind, bits = _entries(_content(der, _SEQUENCE))
    if not _content(kind, _SEQUENCE).startswith(_RSA_ENCRYPTION):
        raise ValueError("holds a key that is not RSA's")
    content = _content(bits, _BIT_STRING)
    if content[0] != 0:
        raise ValueError("holds a damaged public key")
    return content[1:]


def _numbers(der: bytes) -> tuple[int, int]:
    modulus, exponent = (
        int.from_bytes(_content(entry, _INTEGER), "big") for entry in _entries(_content(der, _SEQUENCE))
    )
    return modulus, exponent


def _content(der: bytes, tag: int) -> bytes:
    start, end = _bounds(der)
    if der[0] != tag or end > len(der):
        raise ValueError("holds a damaged public key")
    return der[start:end]


def _entries(content: bytes) -> list[bytes]:
    entries = []
    while content:
        _, end = _bounds(content)
        entries.append(content[:end])
        content = content[end:]
    return entries


def _bounds(der: bytes) -> tuple[int, int]:
    """Where the content of the first element begins and ends."""
    length = der[1]
    if length < _LONG_LENGTH:
        return 2, 2 + length
    size = length - _LONG_LENGTH
    start = 2 + size
    if not 0 < size <= 4:
        raise ValueError("holds a damaged public key")
    return start, start + int.from_bytes(der[2:start], "big")
