# SPDX-License-Identifier: Apache-2.0
"""The model is plain: frozen values, lookups by name, one way to write an address with a port."""

import dataclasses
from ipaddress import IPv4Address, IPv6Address

import pytest

from evener import model

VIP = IPv4Address("10.0.0.10")
BACKEND = model.Backend("h2", IPv4Address("10.0.0.2"), 8080)
POOL = model.Pool("web", "maglev", (BACKEND,))
SERVICE = model.Service("web", VIP, 8080, model.Protocol.TCP, "web", model.Mode.FULL_NAT, (VIP,))
CONFIG = model.Config(
    model.Datapath(model.Driver.XDP, ("eth1",)), pools=(POOL,), services=(SERVICE,)
)


def test_values_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BACKEND.weight = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    "value", [BACKEND, POOL, SERVICE, CONFIG, CONFIG.timeouts, CONFIG.datapath]
)
def test_values_are_slotted_and_hashable(value: object) -> None:
    assert not hasattr(value, "__dict__")
    assert value == dataclasses.replace(value)  # type: ignore[type-var]
    assert hash(value) == hash(dataclasses.replace(value))  # type: ignore[type-var]


def test_lookups_by_name() -> None:
    assert CONFIG.pool("web") is POOL
    assert CONFIG.service("web") is SERVICE
    with pytest.raises(KeyError, match="api"):
        CONFIG.pool("api")
    with pytest.raises(KeyError, match="api"):
        CONFIG.service("api")


def test_endpoints_are_written_as_the_configuration_writes_them() -> None:
    assert model.endpoint(VIP, 80) == "10.0.0.10:80"
    assert model.endpoint(IPv6Address("2001:db8::1"), 80) == "[2001:db8::1]:80"
    assert SERVICE.listen == "10.0.0.10:8080/tcp"


def test_defaults() -> None:
    assert CONFIG.timeouts == model.Timeouts(syn=30, established=900, fin=300, closed=60)
    assert (CONFIG.datapath.flows, CONFIG.datapath.eal) == (1_000_000, ())
    assert (BACKEND.weight, POOL.table_size) == (1, 65_537)
    assert model.SCHEDULERS[0] == "maglev"


def test_protocols_have_the_numbers_of_the_ip_header() -> None:
    assert (int(model.Protocol.TCP), int(model.Protocol.UDP)) == (6, 17)
