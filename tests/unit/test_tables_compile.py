# SPDX-License-Identifier: Apache-2.0
"""From configuration and network to records: ids that stay, an index in which everything is found."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evener._generated import layout
from evener.datapath.native import _library, maglev
from evener.errors import DatapathError
from evener.model import (
    MAX_BACKENDS,
    MAX_SERVICES,
    Backend,
    Config,
    Datapath,
    Driver,
    Mode,
    Pool,
    Protocol,
    Service,
)
from evener.tables.compile import Compiled, Ids, IdSpace, compile_tables
from evener.tables.effective import Network, NextHop, Route, merge
from evener.tables.hashing import address_bytes, index_hash, port_word
from evener.tables.memory import Sizes
from evener.tables.recover import recover_ids

SEED = bytes(range(32))
HOP = NextHop(b"\1" * 6, b"\2" * 6, 3)
VIP = IPv4Address("10.0.0.10")


def a(number: int) -> IPv4Address:
    return IPv4Address(0x0A000000 + number)


def service(name: str, pool: str, port: int = 80, vip: IPv4Address = VIP, snat=()) -> Service:
    return Service(name, vip, port, Protocol.TCP, pool, Mode.FULL_NAT, tuple(snat) or (vip,))


def pool(name: str, *backends: tuple[int, int]) -> Pool:
    """Backends as pairs of an address' number and a port."""
    members = tuple(Backend(f"{n}:{port}", a(n), port) for n, port in backends)
    return Pool(name, "maglev", members)


def config(*parts: Pool | Service) -> Config:
    pools = tuple(part for part in parts if isinstance(part, Pool))
    services = tuple(part for part in parts if isinstance(part, Service))
    return Config(Datapath(Driver.SIM, (), flows=1024), pools, services)


def compiled(of: Config, network: Network | None = None, ids: Ids | None = None) -> Compiled:
    sizes = Sizes.for_config(of, cpus=1)
    effective = merge(of, network or Network())
    return compile_tables(effective, ids or Ids.empty(sizes), sizes, SEED, maglev)


def find(made: Compiled, address: IPv4Address, port: int, protocol: int, kind: int) -> int:
    """As lb_endpoint_id does it, with the core's own hash."""
    ffi, lib = _library()
    half = ffi.from_buffer(address_bytes(address))
    seed, mask = int(made.header["index_seed"]), int(made.header["index_mask"])
    group = lib.lb_native_index_hash(half, port_word(port), protocol, seed) & mask
    for record in made.endpoints[group]["way"]:
        key = (record["addr"]["half"].tobytes(), record["port"], record["protocol"], record["kind"])
        if key == (address_bytes(address), port_word(port), protocol, kind):
            return int(record["id"])
    return 0


def check_all_found(made: Compiled, network: Network) -> None:
    for space, kind in (
        (made.ids.services, layout.ENDPOINT_SERVICE),
        (made.ids.backends, layout.ENDPOINT_BACKEND),
    ):
        for (address, port, protocol), number in space.ids.items():
            assert find(made, address, port, protocol, kind) == number
    for address, number in {**made.ids.snats.ids, **made.ids.snats.retired}.items():
        assert find(made, address, 0, 0, layout.ENDPOINT_SNAT) == number
    for address, hop in network.neighbours.items():
        record = made.neighbours[find(made, address, 0, 0, layout.ENDPOINT_NEIGHBOUR)]
        assert (record["dst"].tobytes(), record["ifindex"]) == (hop.dst, hop.ifindex)


# ---------------------------------------------------------------- ids


def test_ids_begin_at_one_and_stay():
    space = IdSpace("things", 10).assign("abc")
    assert space.ids == {"a": 1, "b": 2, "c": 3}
    space = space.assign("cda")
    assert space.ids == {"c": 3, "a": 1, "d": 4}
    assert space.retired == {"b": 2}


def test_a_retired_id_is_not_given_out_before_it_is_forgotten():
    space = IdSpace("things", 10).assign("abc").assign("")
    assert space.assign("d").ids == {"d": 4}
    space.forget()
    assert space.assign("d").ids == {"d": 1}


def test_who_comes_back_has_the_old_id():
    space = IdSpace("things", 10).assign("abc").assign("a").assign("ca")
    assert space.ids == {"c": 3, "a": 1}
    assert space.retired == {"b": 2}


def test_no_ids_left():
    full = IdSpace("things", 4).assign("abc")
    with pytest.raises(DatapathError, match="no room for 1 things"):
        full.assign("d")
    full = full.assign("ab")
    full.forget()
    assert full.assign("abd").ids["d"] == 3


@given(st.lists(st.sets(st.integers(0, 20)), max_size=8), st.lists(st.booleans(), min_size=8))
def test_ids_are_never_shared(steps, forget):
    space: IdSpace[int] = IdSpace("things", 100)
    for wanted, swept in zip(steps, forget, strict=False):
        before = {**space.ids, **space.retired}
        space = space.assign(sorted(wanted))
        assert set(space.ids) == wanted
        everybody = [*space.ids.values(), *space.retired.values()]
        assert len(everybody) == len(set(everybody))
        assert all(space.ids.get(key, number) == number for key, number in before.items())
        if swept:
            space.forget()


# ---------------------------------------------------------------- records


def test_services_and_backends():
    made = compiled(
        config(pool("p", (2, 80), (3, 80)), service("s", "p", snat=[a(11), a(12)])),
        Network({a(2): HOP}),
    )
    record = made.services[1]
    assert record["addr"]["half"].tobytes() == address_bytes(VIP)
    assert (record["port"], record["protocol"], record["mode"]) == (port_word(80), 6, 1)
    assert record["snat"][: record["snat_count"]].tolist() == [2, 3]  # the VIP is 1
    known, unknown = made.backends[1], made.backends[2]
    assert known["nexthop"]["dst"].tobytes() == HOP.dst
    assert (known["nexthop"]["ifindex"], unknown["nexthop"]["ifindex"]) == (3, 0)
    assert (known["state"], unknown["state"], made.backends[3]["state"]) == (1, 1, 0)
    assert set(made.slots[record["table"], : layout.SLOTS]) == {1, 2}
    assert not made.slots[record["table"], layout.SLOTS :].any()


def test_a_backend_in_two_pools_is_one():
    made = compiled(
        config(
            pool("p", (2, 80)),
            pool("q", (2, 80), (3, 80)),
            service("s", "p"),
            service("t", "q", 81),
        )
    )
    assert len(made.ids.backends.ids) == 2
    assert len(made.ids.tables.ids) == 2


def test_services_may_share_a_pool():
    made = compiled(config(pool("p", (2, 80)), service("s", "p"), service("t", "p", 81)))
    assert made.services[1]["table"] == made.services[2]["table"]
    assert made.services[1]["salt"] != made.services[2]["salt"]


def test_a_pool_that_nobody_uses_takes_no_room():
    made = compiled(config(pool("p", (2, 80)), pool("q", (3, 80)), service("s", "p")))
    assert list(made.ids.tables.ids) == ["p/6"]
    assert len(made.ids.backends.ids) == 1


def test_removed_backends_are_gone_until_forgotten():
    before = compiled(config(pool("p", (2, 80), (3, 80)), service("s", "p")))
    after = compiled(config(pool("p", (3, 80)), service("s", "p")), ids=before.ids)
    assert after.ids.backends.ids == {(a(3), 80, Protocol.TCP): 2}
    assert after.backends["state"][1:3].tolist() == [layout.BACKEND_GONE, layout.BACKEND_USABLE]
    assert set(after.slots[1, : layout.SLOTS]) == {2}
    assert not find(after, a(2), 80, 6, layout.ENDPOINT_BACKEND)
    after.ids.backends.forget()
    later = compiled(config(pool("p", (3, 80)), service("s", "p")), ids=after.ids)
    assert later.backends["state"][1:3].tolist() == [layout.BACKEND_NONE, layout.BACKEND_USABLE]


def test_removed_snat_addresses_are_still_known():
    before = compiled(config(pool("p", (2, 80)), service("s", "p", snat=[a(11)])))
    after = compiled(config(pool("p", (2, 80)), service("s", "p", snat=[a(12)])), ids=before.ids)
    assert find(after, a(11), 0, 0, layout.ENDPOINT_SNAT) == 2
    assert after.snats[2]["addr"]["half"].tobytes() == address_bytes(a(11))


def test_the_same_inputs_give_the_same_bytes():
    of = config(pool("p", (2, 80), (3, 80)), service("s", "p"))
    one, other = compiled(of), compiled(of)
    for name in ("endpoints", "services", "backends", "snats", "neighbours", "routes", "slots"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()


def test_routes():
    network = Network(
        {a(1): HOP},
        (Route(IPv4Network("10.1.0.0/16"), None), Route(IPv4Network("0.0.0.0/0"), HOP)),
    )
    made = compiled(config(pool("p", (2, 80)), service("s", "p")), network)
    assert made.header["routes"] == 2
    assert made.routes["mask"]["half"][0].tobytes() == bytes([255] * 12 + [255, 255, 0, 0])
    assert made.routes["mask"]["half"][1].tobytes() == bytes([255] * 12 + [0] * 4)
    assert made.routes["nexthop"]["ifindex"][:2].tolist() == [0, 3]
    assert made.backends["nexthop"]["ifindex"][1] == 3  # the backend is behind the default route


def test_more_routes_than_fit():
    network = Network({}, tuple(Route(IPv4Network((n << 24, 8)), HOP) for n in range(1, 60)))
    made = compiled(config(pool("p", (2, 80)), service("s", "p")), network)
    assert made.header["routes"] == layout.ROUTES


def test_too_many_for_the_sizes():
    small = Sizes.for_config(config(), cpus=1)
    large = config(pool("p", *((n, 80) for n in range(small.backends))), service("s", "p"))
    with pytest.raises(DatapathError, match="no room for 256 backends"):
        compile_tables(merge(large, Network()), Ids.empty(small), small, SEED, maglev)


def test_ids_can_be_recovered_from_the_records():
    before = compiled(
        config(pool("p", (2, 80), (3, 81)), service("s", "p"), service("t", "p", 81, snat=[a(11)]))
    )
    made = compiled(config(pool("p", (3, 81)), service("t", "p", 81, snat=[a(11)])), ids=before.ids)
    sizes = Sizes.for_config(config(), cpus=1)
    found = recover_ids(made.services, made.backends, made.snats, sizes)
    assert found.services.ids == made.ids.services.ids
    assert found.backends.ids == made.ids.backends.ids
    assert found.backends.retired == made.ids.backends.retired
    assert found.snats.ids == {**made.ids.snats.ids, **made.ids.snats.retired}


def test_a_neighbour_that_changes_fills_no_table_again():
    calls = []

    def fill(slots, **columns):
        calls.append(True)
        maglev(slots, **columns)

    of = config(
        pool("p", (2, 80), (3, 81)), pool("q", (4, 80)), service("s", "p"), service("t", "q", 81)
    )
    larger = config(
        pool("p", (2, 80), (3, 81), (5, 80)),
        pool("q", (4, 80)),
        service("s", "p"),
        service("t", "q", 81),
    )
    sizes = Sizes.for_config(of, cpus=1)
    first = compile_tables(merge(of, Network()), Ids.empty(sizes), sizes, SEED, fill)
    assert len(calls) == 2
    network = Network({a(2): HOP})
    again = compile_tables(merge(of, network), first.ids, sizes, SEED, fill, first.filled)
    assert len(calls) == 2
    assert (again.slots == first.slots).all()
    assert again.backends["nexthop"]["ifindex"].any()
    changed = compile_tables(merge(larger, network), again.ids, sizes, SEED, fill, again.filled)
    assert len(calls) == 3
    plain = compile_tables(merge(larger, network), again.ids, sizes, SEED, maglev)
    assert (changed.slots == plain.slots).all()
    other = compile_tables(
        merge(larger, network), again.ids, sizes, bytes(32), fill, changed.filled
    )
    assert len(calls) == 5
    assert (other.slots != changed.slots).any()


# ---------------------------------------------------------------- the endpoint index


def lan(hosts: int) -> Network:
    return Network({a(n + 1): HOP for n in range(hosts)})


@pytest.mark.parametrize(
    ("backends", "hosts"),
    [
        ([], 0),
        ([(n, 80) for n in range(1, 6)], 5),
        ([(n, 80) for n in range(1, 251)], 254),
        ([(2, port) for port in range(1000, 1500)], 254),
        ([(n, 8000 + n) for n in range(1, 1000)], 2047),
        ([(n * 256, 80) for n in range(1, 251)], 2047),
        ([(n * 65_536 + 7, 80) for n in range(1, 251)], 0),
    ],
)
def test_everything_is_found(backends, hosts):
    network = lan(hosts)
    made = compiled(config(pool("p", *backends), service("s", "p"), service("t", "p", 81)), network)
    check_all_found(made, network)


def test_the_largest_configuration_is_found():
    members = [(n + 1, 1 + n % 60_000) for n in range(MAX_BACKENDS)]
    services = [
        service(f"s{n}", "p", n % 500 + 1, a(65_536 + n // 500)) for n in range(MAX_SERVICES)
    ]
    network = lan(2047)
    check_all_found(compiled(config(pool("p", *members), *services), network), network)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4000))
def test_no_index_overflows(seed, count):
    """As many as there may be: the index is sized for it."""
    random = np.random.default_rng(seed)
    keys = {(int(n), int(port)) for n, port in random.integers(1, 60_000, (count, 2))}
    network = Network({IPv4Address(int(n)): HOP for n in random.integers(1, 2**32 - 1, 2047)})
    of = config(pool("p", *sorted(keys)), service("s", "p"))
    made = compiled(replace(of, services=of.services), network)
    assert int(made.endpoints["way"]["kind"].astype(bool).sum()) == len(keys) + 2 + len(
        network.neighbours
    )


def test_more_neighbours_than_fit_are_left_out():
    made = compiled(config(pool("p", (2, 80)), service("s", "p")), lan(5000))
    assert find(made, a(2047), 0, 0, layout.ENDPOINT_NEIGHBOUR) == 2047
    assert not find(made, a(2048), 0, 0, layout.ENDPOINT_NEIGHBOUR)
    assert find(made, a(2), 80, 6, layout.ENDPOINT_BACKEND) == 1


@given(st.ip_addresses(), st.integers(0, 65_535), st.integers(0, 255), st.integers(0, 2**31))
def test_the_index_hash_is_the_cores(address, port, protocol, seed):
    ffi, lib = _library()
    record = np.zeros(1, layout.ENDPOINT)
    record["addr"]["half"] = np.frombuffer(address_bytes(address), "<u8")
    record["port"], record["protocol"] = port_word(port), protocol
    half = ffi.from_buffer(address_bytes(address))
    native = lib.lb_native_index_hash(half, port_word(port), protocol, seed)
    assert int(index_hash(record, seed)[0]) == native
