"""Who calls: Bearer keys and signed requests (contract section 2), and how often each may (3.3).

Without a key of either kind this dialect is open, and every caller is the same application.
"""

from __future__ import annotations

import hmac
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fooocusapi.surfaces.tams.failures import Refusal
from fooocusapi.surfaces.tams.signatures import PublicKey

logger = logging.getLogger(__name__)

EVERYBODY: Final = ""
"""The application of all callers where no keys are set, and of a key that stands without a name."""

_BEARER: Final = "bearer"
_SIGNED: Final = "tams-sha256-rsa"
_MAX_DIGITS: Final = 20


@dataclass(frozen=True)
class Call:
    """A request as it came."""

    method: str
    target: str
    """Path and query string, as they were sent."""
    authorization: str
    body: bytes
    """Of signed requests."""


class Authority:
    """Knows the keys of all applications."""

    def __init__(
        self,
        bearer_keys: Mapping[str, str],
        public_keys: Mapping[str, PublicKey],
        clock_skew_s: float,
        now_s: Callable[[], float],
    ) -> None:
        """``bearer_keys``: applications by their keys; ``public_keys``: keys by their applications.

        ``clock_skew_s``: how far the time of a signed request may be off; 0 is as far as it likes.
        """
        self._bearer_keys = dict(bearer_keys)
        self._public_keys = dict(public_keys)
        self._clock_skew_s = clock_skew_s
        self._now_s = now_s

    @property
    def is_on(self) -> bool:
        """Whether calls need a key."""
        return bool(self._bearer_keys or self._public_keys)

    def caller(self, call: Call) -> str:
        """The application that calls. Raises ``Refusal`` (401) for a caller who has no key, or the wrong one."""
        if not self.is_on:
            return EVERYBODY
        scheme, value = _scheme_and_value(call.authorization)
        application = self._application(scheme, value, call)
        if application is None:
            raise Refusal(401, "unauthorized")
        return application

    def _application(self, scheme: str, value: str, call: Call) -> str | None:
        if scheme == _BEARER:
            return self._with_key(value)
        return self._signed(call, value) if scheme == _SIGNED else None

    def _with_key(self, sent: str) -> str | None:
        matches = [
            application
            for key, application in self._bearer_keys.items()
            if hmac.compare_digest(key.encode(), sent.encode("utf-8", "surrogateescape"))
        ]
        return matches[0] if matches else None

    def _signed(self, call: Call, value: str) -> str | None:
        """Nonces may come again: clients make them of the clock's second."""
        parts = dict(_part(piece) for piece in value.split(","))
        application, timestamp = parts.get("app_id", ""), parts.get("timestamp", "")
        key = self._public_keys.get(application)
        if key is None or not self._is_timely(timestamp):
            return None
        text = "\n".join((call.method.upper(), call.target, timestamp, parts.get("nonce_str", ""), ""))
        return application if key.has_signed(text.encode() + call.body, parts.get("signature", "")) else None

    def _is_timely(self, timestamp: str) -> bool:
        if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= _MAX_DIGITS):
            return False
        return self._clock_skew_s == 0 or abs(self._now_s() - int(timestamp)) <= self._clock_skew_s


def is_signed(authorization: str) -> bool:
    """Whether a header brings a signature, which is that of the body as well."""
    return _scheme_and_value(authorization)[0] == _SIGNED


class RateLimit:
    """How many calls each application has within a second. Belongs to one event loop."""

    def __init__(self, calls_per_s: int, now_s: Callable[[], float]) -> None:
        """``calls_per_s`` 0: as many as it likes."""
        self._calls_per_s = calls_per_s
        self._now_s = now_s
        self._calls: dict[str, deque[float]] = {}

    def count(self, application: str) -> None:
        """Counts a call. Raises ``Refusal`` (429) for one too many."""
        if self._calls_per_s <= 0:
            return
        now_s = self._now_s()
        calls = self._calls.setdefault(application, deque())
        while calls and calls[0] <= now_s - 1:
            calls.popleft()
        if len(calls) >= self._calls_per_s:
            reason = f"more than {self._calls_per_s} requests in a second"
            raise Refusal(429, reason, headers={"Retry-After": "1"})
        calls.append(now_s)


def bearer_keys(setting: str) -> dict[str, str]:
    """The keys of a setting such as ``shop=abc, other=def, ghi``: each with its application, or none."""
    keys = {}
    for entry in filter(None, (entry.strip() for entry in setting.split(","))):
        application, equals, key = entry.partition("=")
        keys[key.strip() if equals else entry] = application.strip() if equals else EVERYBODY
    return {key: application for key, application in keys.items() if key}


def public_keys(folder: Path) -> dict[str, PublicKey]:
    """The keys of all ``<application>.pem`` in a folder. A file that holds none is logged and left out."""
    keys = {}
    for path in sorted(folder.glob("*.pem")):
        try:
            keys[path.stem] = PublicKey.from_pem(path.read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            logger.error("public key %s cannot be used: %s", path.name, error)
    return keys


def _scheme_and_value(authorization: str) -> tuple[str, str]:
    scheme, _, value = authorization.strip().partition(" ")
    return scheme.lower(), value.strip()


def _part(piece: str) -> tuple[str, str]:
    """Signatures in base64 have ``=`` in them, so that only the first one divides."""
    name, _, value = piece.partition("=")
    return name.strip(), value.strip()
