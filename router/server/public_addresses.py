"""Which IP addresses are those of the public internet, and of nobody's inside."""

from __future__ import annotations

import ipaddress

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All that IANA has given out in IPv6. Mapped IPv4, NAT64 and the local kinds lie outside."""
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # of protocols
        "192.88.99.0/24",  # relays of 6to4
        "2001::/23",  # of protocols; Teredo, which holds an IPv4 address
        "2002::/16",  # 6to4, which holds an IPv4 address
        "3fff::/20",  # for documents
    )
)
"""What some of Python's versions count as global, beside what none of them does."""


def is_public(text: str) -> bool:
    """Whether the address is one that everybody on the internet reaches alike. False for what is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.version == 6 and address not in _GLOBAL_UNICAST:
        return False
    inside = any(address in network for network in _NOT_PUBLIC)
    return address.is_global and not address.is_multicast and not inside
