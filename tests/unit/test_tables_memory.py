# SPDX-License-Identifier: Apache-2.0
"""Sizes for a configuration, and the views of the memory."""

from ipaddress import IPv4Address

import numpy as np
import pytest

from evener._generated import layout
from evener.model import (
    MAX_BACKENDS,
    MAX_OWN_ADDRESSES,
    MAX_POOLS,
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
from evener.tables.memory import Sizes, Tables, shapes, size_changes, total_bytes


def config(flows=1_000_000, backends=2, services=1, pools=1):
    members = [Backend(f"b{n}", IPv4Address(0x0A010000 + n), 80) for n in range(backends)]
    share = -(-backends // pools)
    made = tuple(
        Pool(f"p{n}", "maglev", tuple(members[n * share : (n + 1) * share])) for n in range(pools)
    )
    vip = IPv4Address("10.0.0.10")
    listening = tuple(
        Service(f"s{n}", vip, n + 1, Protocol.TCP, "p0", Mode.FULL_NAT, (vip,))
        for n in range(services)
    )
    return Config(Datapath(Driver.SIM, (), flows=flows), made, listening)


@pytest.mark.parametrize("flows", [1024, 65_536, 1_000_000, 3_000_000])
def test_flow_table_is_a_bit_more_than_half_full_at_capacity(flows):
    sizes = Sizes.for_config(config(flows), cpus=2)
    assert sizes.flows >= flows / 0.55 - layout.FLOW_WAYS
    assert sizes.flows <= max(64 * layout.FLOW_WAYS, flows / 0.55 + layout.FLOW_WAYS)


@pytest.mark.parametrize("flows", [1024, 65_536, 1_000_000, 3_000_000])
def test_twice_as_many_ports_as_flows_in_a_power_of_two_of_tables(flows):
    tables = Sizes.for_config(config(flows), cpus=2).port_tables
    assert tables & (tables - 1) == 0
    assert tables * 65_536 >= 2 * flows


@pytest.mark.parametrize("backends", [1, 31, 4000])
def test_usual_numbers_of_backends_have_port_tables_of_their_own(backends):
    """And as many whatever the number: a restart with more backends goes on with the port tables."""
    sizes = Sizes.for_config(config(1024, backends=backends), cpus=1)
    assert sizes.port_tables == 32
    assert shapes(sizes)["ports"].nbytes == 8 << 20


def test_what_a_flow_costs():
    """A record of 16 bytes at 55 % and two words of 4 bytes: within the 40 bytes that are the goal."""
    shape = shapes(Sizes.for_config(config(2**20), cpus=1))
    assert (shape["flows"].nbytes + shape["ports"].nbytes) / 2**20 < 40


def test_room_for_twice_the_configuration():
    sizes = Sizes.for_config(config(backends=1000, services=200, pools=100), cpus=1)
    assert sizes.backends > 2000
    assert sizes.services > 400
    assert sizes.tables > 200


def test_the_largest_configuration_has_room():
    largest = config(backends=MAX_BACKENDS, services=MAX_SERVICES, pools=MAX_POOLS)
    sizes = Sizes.for_config(largest, cpus=1)
    assert sizes.backends > MAX_BACKENDS
    assert sizes.services > MAX_SERVICES
    assert sizes.tables > MAX_POOLS
    assert sizes.snats > MAX_OWN_ADDRESSES
    assert sizes.backends <= 1 << 16  # ids have 16 bits in a flow
    assert sizes.snats == layout.SNATS == 1 << 8  # the XDP program relies on it
    assert total_bytes(sizes) < 1 << 30


def test_tables_are_views_of_their_buffers():
    sizes = Sizes.for_config(config(1024), cpus=2)
    buffers = {name: bytearray(table.nbytes) for name, table in shapes(sizes).items()}
    tables = Tables(sizes, buffers)
    tables.service_counters["refused"][1, 3] = 7
    at = (sizes.services + 3) * layout.COUNTER.itemsize + layout.COUNTER.fields["refused"][1]
    assert buffers["service_counters"][at] == 7
    tables.slots[1, 2, 33] = 0x0102
    at = ((sizes.tables + 2) * layout.SLOT_LINES * 32 + 33) * 2
    assert bytes(buffers["slots"][at : at + 2]) == b"\x02\x01"
    tables.ports[3, 17] = 9
    assert buffers["ports"][(3 * 65_536 + 17) * 4] == 9
    tables.flows["client"][35] = 1
    assert buffers["flows"][35 * 16] == 1


def test_longer_buffers_will_do():
    sizes = Sizes.for_config(config(1024), cpus=1)
    buffers = {name: bytearray(table.nbytes + 4096) for name, table in shapes(sizes).items()}
    assert Tables(sizes, buffers).flows.shape == (sizes.flows,)


def test_prepare_keeps_a_seed():
    tables = Tables.allocate(Sizes.for_config(config(1024), cpus=1))
    tables.prepare((1, 2, 3, 4))
    tables.prepare((5, 6, 7, 8))
    assert np.frombuffer(tables.seed, "<u8").tolist() == [1, 2, 3, 4]
    assert tables.settings["flow_groups"][0] == tables.sizes.flow_groups
    assert tables.settings["port_tables"][0] == tables.sizes.port_tables
    assert (tables.generation, tables.active) == (0, 0)


def test_size_changes():
    one, other = (Sizes.for_config(config(flows), cpus=1) for flows in (1_000_000, 2_000_000))
    assert size_changes(one, one) == []
    assert size_changes(one, other) == ["flow_groups", "port_tables"]
