"""Fetching what clients name: closed to private networks however they are spelt, bounded in time and size.

Names are resolved and connections played by the tests; the one real connection goes to the loopback address.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import IPv4Address, ip_address

import httpx
import pytest

from fooocusapi.addresses import IPAddress
from fooocusapi.fetch import Fetcher, FetchFailed, FetchLimits, GuardedTransport, TargetRefused, network_transports
from tests.fooocusapi.fakes import PATIENCE_S

LIMITS = FetchLimits(max_bytes=1000, timeout_s=PATIENCE_S, max_redirects=3)
PUBLIC = "93.184.215.14"
SECOND_PUBLIC = "2606:4700:4700::1111"
NAMES = {
    "pictures.test": [PUBLIC],
    "twofold.test": [SECOND_PUBLIC, PUBLIC],
    "localhost": ["::1", "127.0.0.1"],
    "localhost.": ["127.0.0.1"],
    "any.localhost": ["127.0.0.1"],
    "inner.test": ["10.1.2.3"],
    "mixed.test": [PUBLIC, "10.1.2.3"],
    "mapped.test": ["::ffff:169.254.169.254"],
    "nowhere.test": [],
}
PINNED = {ip_address(PUBLIC): "v4", ip_address(SECOND_PUBLIC): "v6"}

Answer = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]

CLOSED_SPELLINGS = [
    # loopback
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "0x7f.1",
    "0x7f.0.0.0x1",
    "0177.0.0.1",
    "0177.1",
    "00000177.0.0.01",
    "017700000001",
    "127.0x0.0.1",
    "127.0.0.1.",
    "127\u30020\u30020\u30021",
    "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
    "\uff11\uff12\uff17.0.0.1",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:7F00:0001]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    # this host
    "0",
    "0.0.0.0",
    "0x0",
    "00",
    "[::]",
    "[::ffff:0.0.0.0]",
    # private
    "10.0.0.1",
    "10.1",
    "012.0.0.1",
    "167772161",
    "0xa000001",
    "172.16.0.1",
    "172.31.255.255",
    "2886729729",
    "192.168.0.1",
    "192.168.1",
    "3232235521",
    "0xc0a80001",
    "0300.0250.0.1",
    "[::ffff:192.168.0.1]",
    "[::ffff:c0a8:1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[64:ff9b:1::a00:1]",
    # link-local and the metadata of clouds
    "169.254.169.254",
    "169.254.43518",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fec0::1]",
    "100.100.100.200",
    "100.64.0.1",
    "192.0.0.192",
    "168.63.129.16",
    # multicast, broadcast, reserved, documentation
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "4294967295",
    "198.18.0.1",
    "192.0.2.1",
    "203.0.113.9",
    "[ff02::1]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[100::1]",
    # names, and hosts that hide behind another
    "localhost",
    "LocalHost",
    "localhost.",
    "any.localhost",
    "inner.test",
    "INNER.test",
    "mixed.test",
    "mapped.test",
    "pictures.test@127.0.0.1",
    "pictures.test:80@localhost",
    "pictures.test%40@10.0.0.1",
    "pictures.test\\@127.0.0.1",
    "127.0.0.1:80",
    "127.0.0.1#@pictures.test",
    "127.0.0.1?@pictures.test",
    "pictures.test:99999",
    "pictures.test:0",
    "127.0.0.1%00.pictures.test",
    "127.0.0.1\t.pictures.test",
    "[::1",
    "",
]


async def resolve(host: str, port: int) -> Sequence[IPAddress]:
    """As a resolver does: numbers in every spelling, else the names above."""
    if host.lower() in NAMES:
        return [ip_address(address) for address in NAMES[host.lower()]]
    if ":" in host:
        return [ip_address(host)]
    return [IPv4Address(socket.inet_aton(host))]


def fetch(
    url: str,
    answer: Answer,
    limits: FetchLimits = LIMITS,
    *,
    allow_private: bool = False,
    own_url: str = "",
) -> bytes:
    def guarded() -> GuardedTransport:
        inner = httpx.MockTransport(answer)
        return GuardedTransport(inner, allow_private=allow_private, own_url=own_url, resolve=resolve)

    return asyncio.run(Fetcher(limits, guarded).fetch(url))


def failure(url: str, answer: Answer, limits: FetchLimits = LIMITS) -> str:
    with pytest.raises(FetchFailed) as caught:
        fetch(url, answer, limits)
    return str(caught.value)


def never(request: httpx.Request) -> httpx.Response:
    raise AssertionError(f"a connection was made to {request.url.host}")


def redirecting(target: str) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/start":
            return httpx.Response(302, headers={"Location": target})
        return reply(b"reached")

    return answer


def reply(body: bytes) -> httpx.Response:
    """A good answer whose body is still to come, as from a network."""
    return httpx.Response(200, stream=httpx.ByteStream(body))


class Endless(httpx.AsyncByteStream):
    """A body without an end, and a count of what was taken of it."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(self.pause_s)
            self.taken += 1
            yield b"x" * 100


# ------------------------------------------------------------------------------------------------------------ the guard


def test_the_table_is_long_enough() -> None:
    assert len(set(CLOSED_SPELLINGS)) >= 60


@pytest.mark.parametrize("host", CLOSED_SPELLINGS)
def test_closed_networks_are_not_connected_to(host: str) -> None:
    assert failure(f"http://{host}/picture.png", never)


@pytest.mark.parametrize("host", [host for host in CLOSED_SPELLINGS if host])
def test_nor_are_they_after_a_redirect(host: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert ip_address(request.url.host) in PINNED
        # Only ASCII goes into a header; the other spellings are those of the table as UTF-8.
        location = f"http://{host}/inside".encode()
        return (
            httpx.Response(302, headers=[(b"Location", location)]) if request.url.path == "/start" else never(request)
        )

    assert failure("http://pictures.test/start", answer)


def test_the_refusal_tells_no_address() -> None:
    reason = failure("http://inner.test/", never)
    assert "does not fetch from" in reason
    assert "10.1" not in reason


def test_the_connection_goes_to_the_judged_address_under_the_asked_name() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return reply(b"bytes")

    assert fetch("https://user:pass@Pictures.test:8443/a%20b.png?x=1#part", answer) == b"bytes"
    (request,) = seen
    assert str(request.url.copy_with(userinfo=b"")) == f"https://{PUBLIC}:8443/a%20b.png?x=1#part"
    assert request.headers["host"] == "pictures.test:8443"
    assert request.extensions["sni_hostname"] == "pictures.test"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["user-agent"].startswith("Mozilla/5.0")


def test_a_name_that_changes_its_mind_is_asked_once_a_hop() -> None:
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[IPAddress]:
        asked.append(host)
        return [ip_address(PUBLIC if len(asked) == 1 else "127.0.0.1")]

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.host == PUBLIC
        return reply(b"public")

    def guarded() -> GuardedTransport:
        return GuardedTransport(httpx.MockTransport(answer), resolve=rebinding)

    assert asyncio.run(Fetcher(LIMITS, guarded).fetch("http://rebinding.test/")) == b"public"
    assert asked == ["rebinding.test"]
    with pytest.raises(FetchFailed, match="does not fetch from"):
        asyncio.run(Fetcher(LIMITS, guarded).fetch("http://rebinding.test/"))


def test_the_next_address_is_tried_where_one_does_not_connect() -> None:
    tried: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        tried.append(request.url.host)
        if request.url.host == SECOND_PUBLIC:
            raise httpx.ConnectError("no route")
        return reply(b"by the second")

    assert fetch("http://twofold.test/", answer) == b"by the second"
    assert tried == [SECOND_PUBLIC, PUBLIC]


def test_private_networks_can_be_allowed() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return reply(request.url.host.encode())

    assert fetch("http://inner.test/", answer, allow_private=True) == b"10.1.2.3"
    assert fetch("http://[::1]/", answer, allow_private=True) == b"::1"


def test_the_server_itself_is_always_allowed_at_its_own_port() -> None:
    own = "http://LOCALHOST:8888/api"
    assert fetch("http://localhost:8888/else", redirecting(""), own_url=own) == b"reached"
    assert fetch("http://pictures.test/start", redirecting("http://localhost:8888/x"), own_url=own) == b"reached"
    for other in ("http://localhost:8889/", "https://localhost:8888/", "http://127.0.0.1:8888/", "http://localhost/"):
        with pytest.raises(FetchFailed, match="does not fetch from"):
            fetch(other, never, own_url=own)


def test_the_transport_guards_any_client_and_method() -> None:
    async def post(url: str) -> int:
        transport = GuardedTransport(httpx.MockTransport(lambda _: httpx.Response(204)), resolve=resolve)
        async with httpx.AsyncClient(transport=transport) as client:
            return (await client.post(url, json={"a": 1})).status_code

    assert asyncio.run(post("http://pictures.test/hook")) == 204
    with pytest.raises(TargetRefused):
        asyncio.run(post("http://inner.test/hook"))


# ----------------------------------------------------------------------------------------------------------- the limits


@pytest.mark.parametrize(
    "target", ["/end", "end", "//pictures.test/end", "https://pictures.test/end", f"http://{PUBLIC}/end"]
)
def test_redirects_are_followed(target: str) -> None:
    assert fetch("http://pictures.test/start", redirecting(target)) == b"reached"


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://pictures.test/", "gopher://x/", "data:,x"])
def test_redirects_to_other_schemes_are_not(target: str) -> None:
    assert failure("http://pictures.test/start", redirecting(target))


def test_redirects_come_to_an_end() -> None:
    hops: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        hops.append(request.url.path)
        return httpx.Response(307, headers={"Location": f"/{len(hops)}"})

    assert "redirects more than 3 times" in failure("http://pictures.test/", answer)
    assert len(hops) == 4


def test_the_body_of_a_redirect_is_not_read() -> None:
    endless = Endless()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/end":
            return reply(b"reached")
        return httpx.Response(302, headers={"Location": "/end"}, stream=endless)

    assert fetch("http://pictures.test/start", answer) == b"reached"
    assert endless.taken == 0


def test_a_long_body_is_left_where_the_limit_is() -> None:
    endless = Endless()
    reason = failure("http://pictures.test/", lambda _: httpx.Response(200, stream=endless))
    assert "more than 1000 bytes" in reason
    assert endless.taken == 11


def test_an_announced_length_is_believed_before_the_body_comes() -> None:
    endless = Endless()
    headers = {"Content-Length": "1001"}
    reason = failure("http://pictures.test/", lambda _: httpx.Response(200, headers=headers, stream=endless))
    assert "more than 1000 bytes" in reason
    assert endless.taken == 0


def test_a_body_of_just_the_limit_is_taken() -> None:
    assert len(fetch("http://pictures.test/", lambda _: reply(b"x" * 1000))) == 1000


def test_compressed_bodies_are_not_unpacked() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"\x1f\x8b..."))

    assert fetch("http://pictures.test/", answer) == b"\x1f\x8b..."


async def _hang(request: httpx.Request) -> httpx.Response:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize(
    "answer", [_hang, lambda _: httpx.Response(200, stream=Endless(pause_s=0.02))], ids=["silent", "dripping"]
)
def test_slow_servers_are_left_in_time(answer: Answer) -> None:
    limits = FetchLimits(max_bytes=10**9, timeout_s=0.1, max_redirects=0)
    assert "within 0.1 s" in failure("http://pictures.test/", answer, limits)


def test_slow_names_are_left_in_time() -> None:
    async def tarpit(host: str, port: int) -> Sequence[IPAddress]:
        await asyncio.Event().wait()
        return []

    limits = FetchLimits(max_bytes=1, timeout_s=0.1, max_redirects=0)
    fetcher = Fetcher(limits, lambda: GuardedTransport(httpx.MockTransport(never), resolve=tarpit))
    with pytest.raises(FetchFailed, match=r"within 0\.1 s"):
        asyncio.run(fetcher.fetch("http://pictures.test/"))


@pytest.mark.parametrize("status", [204, 304, 401, 404, 500])
def test_other_answers_are_told_by_their_number(status: int) -> None:
    assert f"answered {status}" in failure("http://pictures.test/", lambda _: httpx.Response(status, content=b""))


@pytest.mark.parametrize("url", ["http://unknown.test/", "http://nowhere.test/", "http://pictures.test/"])
def test_what_cannot_be_reached_is_told_plainly(url: str) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused by 93.184.215.14")

    assert failure(url, refuse) == "the address cannot be reached"


def test_no_cookie_is_kept_for_the_next() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert "cookie" not in request.headers
        if request.url.path == "/start":
            return httpx.Response(302, headers={"Location": "/end", "Set-Cookie": "who=me; Path=/"})
        return reply(b"x")

    assert fetch("http://pictures.test/start", answer) == b"x"


# ------------------------------------------------------------------------------------------------------- the real thing


class _Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        host = self.headers["Host"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(host)))
        self.end_headers()
        self.wfile.write(host)

    def log_message(self, *arguments: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), _Pictures)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def test_over_a_socket(port: int) -> None:
    connect = network_transports()

    def transport(*, allow_private: bool) -> Fetcher:
        return Fetcher(LIMITS, lambda: GuardedTransport(connect(), allow_private=allow_private, resolve=resolve))

    url = f"http://any.localhost:{port}/"
    assert asyncio.run(transport(allow_private=True).fetch(url)) == f"any.localhost:{port}".encode()
    with pytest.raises(FetchFailed, match="does not fetch from"):
        asyncio.run(transport(allow_private=False).fetch(url))
