# SPDX-License-Identifier: Apache-2.0
"""Configuration and network become one model: next hops by neighbour, else by the longest prefix."""

import random
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from evener.config import loads
from evener.tables.effective import Network, NextHop, Prefixes, Route, merge

NEAR, GATEWAY = (NextHop(bytes([n]) * 6, b"\2" * 6, n) for n in (3, 4))
NETWORK = Network(
    {IPv4Address("10.0.0.2"): NEAR},
    (
        Route(IPv4Network("10.0.0.0/24"), None),
        Route(IPv4Network("10.0.0.0/8"), GATEWAY),
    ),
)
TEXT = """
[datapath]
driver = "sim"
[pool.p]
backends = ["10.0.0.2:80", { address = "10.0.0.3:80", weight = 7 }, "10.1.0.4:80", "192.0.2.5:80"]
[pool.unused]
backends = ["10.0.0.9:80"]
[service.s]
listen = "10.0.0.10:80/tcp"
pool = "p"
[service.t]
listen = "10.0.0.10:81/tcp"
pool = "p"
"""


def test_next_hops():
    hops = {
        "10.0.0.2": NEAR,
        "10.0.0.3": None,  # on the link, and nobody has been asked yet: not by the gateway
        "10.1.0.4": GATEWAY,
        "192.0.2.5": None,
    }
    assert {text: NETWORK.nexthop(IPv4Address(text)) for text in hops} == hops
    assert NETWORK.nexthop(IPv6Address("::1")) is None


def test_the_longest_prefix():
    """Against one after the other."""
    chance = random.Random(8)
    for count in (0, 1, 5, 200):
        lengths = chance.choices(range(33), k=count)
        pairs = [
            (IPv4Network((chance.getrandbits(32), length), strict=False), number)
            for number, length in enumerate(lengths)
        ]
        pairs += [(prefix, number + 1000) for prefix, number in pairs[::3]]
        found = Prefixes(pairs)
        some = [int(p[chance.randrange(p.num_addresses)]) for p, _ in pairs]
        for number in [0, 2**32 - 1, *some, *(chance.getrandbits(32) for _ in range(200))]:
            address = IPv4Address(number)
            there = [pair for pair in pairs if address in pair[0]]
            slow = max(there, key=lambda pair: pair[0].prefixlen)[1] if there else None
            assert found.find(address) == slow


def test_merge():
    effective = merge(loads(TEXT), NETWORK)
    assert [s.key for s in effective.services] == [
        (IPv4Address("10.0.0.10"), n, 6) for n in (80, 81)
    ]
    assert {name: [b.weight for b in pool] for name, pool in effective.pools().items()} == {
        "p/6": [1, 7, 1, 1]
    }
    assert [b.nexthop for b in effective.services[0].backends] == [NEAR, None, GATEWAY, None]


def test_services_of_one_pool_share_its_backends():
    one, other = merge(loads(TEXT), NETWORK).services
    assert one.backends is other.backends


def test_what_some_interfaces_can_reach():
    near, far = (NextHop(bytes(6), bytes(6), ifindex) for ifindex in (3, 7))
    here, there = IPv4Address("10.0.0.2"), IPv4Address("10.0.1.2")
    network = Network(
        {here: near, there: far},
        (
            Route(IPv4Network("10.2.0.0/16"), near),
            Route(IPv4Network("10.3.0.0/16"), None),
            Route(IPv4Network("0.0.0.0/0"), far),
        ),
    )
    seen = network.by({3})
    assert seen.neighbours == {here: near}
    assert [route.nexthop for route in seen.routes] == [near, None, None]
    assert seen.nexthop(there) is None
    assert network.by({3, 7}) == network
