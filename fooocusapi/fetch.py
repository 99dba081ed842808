"""Requests to addresses that others name: a transport that is closed to private networks, and downloads under limits.

``GuardedTransport`` suits any ``httpx.AsyncClient`` that must not be led into the network that the server stands in.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from fooocusapi.addresses import IPAddress, Resolve, is_public, resolve_host

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_PORT = 65535
AT_ONCE = 8
"""Downloads at a time. The others wait, and their time runs."""
LONG_AT_ONCE = 2
"""Of those that go on beyond ``LONG_BYTES``: each may hold ``max_bytes`` of memory."""
LONG_BYTES = 8 * 2**20
HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; fooocusapi)",
    "Accept": "image/*,*/*;q=0.5",
    # A compressed answer could be a thousand times larger than the bytes that were counted.
    "Accept-Encoding": "identity",
}


TRUSTED = "trusted"
"""Extension of a request whose address the operator named, and not a caller: closed networks are open to it."""


class TargetRefused(Exception):
    """An address, or what its name resolves to, that this server must not connect to."""


class FetchFailed(Exception):
    """What kept an address from being fetched, in words fit for the client: no resolved address is told."""


@dataclass(frozen=True)
class FetchLimits:
    """How much of the server one download may use."""

    max_bytes: int
    timeout_s: float
    """From the first look-up of a name to the last byte, redirects included."""
    max_redirects: int


class GuardedTransport(httpx.AsyncBaseTransport):
    """Connects to public addresses only, and to exactly those that it has looked at.

    Each request resolves its host once and goes to the address that was judged, under the name that was asked for: a
    name that changes its mind between the check and the connection gains nothing. Clients that follow redirects come
    back here for every hop. Raises ``TargetRefused`` and the exceptions of ``httpx``.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        *,
        allow_private: bool = False,
        own_url: str = "",
        resolve: Resolve = resolve_host,
    ) -> None:
        """``inner`` must keep no connection alive: it sees addresses, and one address may serve several names.

        ``own_url``: scheme, host and port at which this server itself is reached, which are always allowed.
        """
        self._inner = inner
        self._allow_private = allow_private
        self._own = _origin(httpx.URL(own_url)) if own_url else None
        self._resolve = resolve

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        *others, last = await self._allowed_addresses(request)
        for address in others:
            try:
                return await self._inner.handle_async_request(_pinned(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._inner.handle_async_request(_pinned(request, last))

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _allowed_addresses(self, request: httpx.Request) -> Sequence[IPAddress]:
        """All addresses of the host, at least one. A host with one address that is closed is closed as a whole."""
        url = request.url
        scheme, host, port = _origin(url)
        if scheme not in DEFAULT_PORTS or not host or not 0 < port <= MAX_PORT:
            raise httpx.UnsupportedProtocol("only http:// and https:// addresses of a host and its ports are fetched")
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            raise httpx.ConnectError("the name of the host cannot be resolved") from error
        if not addresses:
            raise httpx.ConnectError("the name of the host has no address")
        may_be_private = self._allow_private or request.extensions.get(TRUSTED) or _origin(url) == self._own
        if not may_be_private and not all(map(is_public, addresses)):
            raise TargetRefused
        return addresses


class Fetcher:
    """Downloads under limits. Every download is a stranger to the others: no cookies, no connections are kept."""

    def __init__(self, limits: FetchLimits, make_transport: Callable[[], httpx.AsyncBaseTransport]) -> None:
        """``make_transport`` is called for each download."""
        self._limits = limits
        self._make_transport = make_transport
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._long_slots = asyncio.Semaphore(LONG_AT_ONCE)

    async def fetch(self, url: str) -> bytes:
        """The body at ``url`` after redirects. Raises ``FetchFailed``."""
        try:
            async with asyncio.timeout(self._limits.timeout_s), self._slots, self._client() as client:
                return await self._follow(client, client.build_request("GET", url))
        except (TimeoutError, httpx.TimeoutException) as error:
            raise FetchFailed(f"the address did not answer in full within {self._limits.timeout_s:g} s") from error
        except TargetRefused as error:
            raise FetchFailed("the address leads into a network that this server does not fetch from") from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise FetchFailed(
                "the address, or one that it redirects to, is no proper http:// or https:// address"
            ) from error
        except httpx.HTTPError as error:
            raise FetchFailed("the address cannot be reached") from error

    def _client(self) -> httpx.AsyncClient:
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        # Half of the time to connect: the second address of a host gets its turn.
        timeout = httpx.Timeout(self._limits.timeout_s, connect=self._limits.timeout_s / 2)
        return httpx.AsyncClient(
            transport=self._make_transport(),
            headers=HEADERS,
            cookies=no_cookies,
            timeout=timeout,
            trust_env=False,
        )

    async def _follow(self, client: httpx.AsyncClient, request: httpx.Request) -> bytes:
        """Hop by hop: the client's own way of following reads the bodies of redirects, whatever their length."""
        for _ in range(self._limits.max_redirects + 1):
            response = await client.send(request, stream=True)
            try:
                if response.next_request is None:
                    return await self._body(response)
                request = response.next_request
            finally:
                await response.aclose()
        raise FetchFailed(f"the address redirects more than {self._limits.max_redirects} times")

    async def _body(self, response: httpx.Response) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise FetchFailed(f"the address answered {response.status_code}")
        announced = response.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._limits.max_bytes:
            raise self._too_long()
        body = io.BytesIO()
        chunks = response.aiter_raw()
        if await self._ends(chunks, body, within=LONG_BYTES):
            return body.getvalue()
        async with self._long_slots:
            await self._ends(chunks, body, within=self._limits.max_bytes + 1)
            return body.getvalue()

    async def _ends(self, chunks: AsyncIterator[bytes], body: io.BytesIO, *, within: int) -> bool:
        """Reads on until the end, or until ``body`` has so many bytes."""
        while body.tell() < within:
            chunk = await anext(chunks, b"")
            if not chunk:
                return True
            body.write(chunk)
            if body.tell() > self._limits.max_bytes:
                raise self._too_long()
        return False

    def _too_long(self) -> FetchFailed:
        return FetchFailed(f"the address holds more than {self._limits.max_bytes} bytes")


def network_transports() -> Callable[[], httpx.AsyncHTTPTransport]:
    """Makes transports to the real network as ``GuardedTransport`` wants them: no kept connections, no proxies.

    Reads the certificates that are trusted once, for all of them.
    """
    certificates = httpx.create_ssl_context()
    no_keeping = httpx.Limits(max_keepalive_connections=0)
    return lambda: httpx.AsyncHTTPTransport(verify=certificates, limits=no_keeping, trust_env=False)


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    """Scheme, host as it is resolved, and port."""
    port = DEFAULT_PORTS.get(url.scheme, 0) if url.port is None else url.port
    return url.scheme, url.raw_host.decode("ascii"), port


def _pinned(request: httpx.Request, address: IPAddress) -> httpx.Request:
    """The same request to one address; ``Host`` and the name that the certificate must carry stay as they were."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.raw_host.decode("ascii")},
    )
