"""Which network addresses this server may reach when somebody else names them.

What counts is the address after name resolution, never how a host is spelt: ``127.1``, ``0x7f000001``, ``2130706433``
and a name of one's own that resolves to the loopback address are all the same place.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

IPAddress = IPv4Address | IPv6Address

Resolve = Callable[[str, int], Awaitable[Sequence[IPAddress]]]
"""Host and port to the addresses to try, in that order. Raises ``OSError`` for a name that has none."""

# The special-purpose registries of IANA in full. ``ipaddress.is_global`` follows them too, but differs between the
# patch releases of one Python version, and takes multicast for global.
_CLOSED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux connects to itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by a carrier's customers; metadata of one cloud
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # public in form, but answered by the host of a virtual machine in one cloud
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays from IPv6, given up
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # measurements
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_OPEN_V6 = IPv6Network("2000::/3")
"""All that is given out for unicast; loopback, link-local, site-local, private and multicast lie outside."""
_CLOSED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo tunnels among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4 tunnels, given up; they hold an IPv4 address
        "3fff::/20",  # documentation
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
_LOW_32_BITS = 2**32 - 1


def is_public(address: IPAddress) -> bool:
    """Whether ``address`` is one of the open network: not private, local, multicast or reserved.

    IPv6 addresses that stand for an IPv4 address (mapped, or translated by NAT64) are judged by that one.
    """
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_V4)
    embedded = address.ipv4_mapped or _behind_nat64(address)
    if embedded is not None:
        return is_public(embedded)
    return address in _OPEN_V6 and not any(address in network for network in _CLOSED_V6)


async def resolve_host(host: str, port: int) -> Sequence[IPAddress]:
    """The addresses of ``host`` by the system's resolver, in the order in which it would try them."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "no name that a resolver takes") from error
    return tuple(dict.fromkeys(ip_address(entry[4][0]) for entry in found))


def _behind_nat64(address: IPv6Address) -> IPv4Address | None:
    return IPv4Address(int(address) & _LOW_32_BITS) if address in _NAT64 else None
