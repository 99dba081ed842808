"""RSA signatures as contract section 2.2 has them: PKCS#1 v1.5 over SHA-256, checked with a public key in PEM."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

MIN_BITS: Final = 2048
MAX_BITS: Final = 16384


@dataclass(frozen=True)
class PublicKey:
    """An RSA key that signatures are checked with."""

    key: RSAPublicKey

    @classmethod
    def from_pem(cls, text: str) -> PublicKey:
        """The key of a file, ``PUBLIC KEY`` or ``RSA PUBLIC KEY``. Raises ``ValueError`` for anything else."""
        try:
            key = load_pem_public_key(text.encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError("holds no public key in PEM, or a damaged one") from error
        if not isinstance(key, RSAPublicKey):
            raise ValueError("holds a key that is not RSA's")
        if not MIN_BITS <= key.key_size <= MAX_BITS:
            raise ValueError(f"has a key of {key.key_size} bits; {MIN_BITS} to {MAX_BITS} are needed")
        return cls(key)

    def has_signed(self, data: bytes, signature: str) -> bool:
        """Whether ``signature``, in base64, is this key's over ``data``."""
        try:
            self.key.verify(base64.b64decode(signature, validate=True), data, PKCS1v15(), SHA256())
        except (binascii.Error, ValueError, InvalidSignature):
            return False
        return True
