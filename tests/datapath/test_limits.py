# SPDX-License-Identifier: Apache-2.0
"""Ends that packets alone do not bring about quickly: full tables, no ports left, a lock that is held."""

from evener._generated.reasons import Reason
from evener.config import loads
from evener.datapath.sim import Outcome
from evener.tables.effective import Network, NextHop
from tests.support import packet_text
from tests.support.machine import IFINDEX, Machine, flow_rows

CONFIG = """
[datapath]
driver = "sim"
[pool.web]
backends = ["10.0.0.2:8080"]
[service.web]
listen = "10.0.0.10:8080/tcp"
pool = "web"
"""
MAC, OWN = "de:ad:be:ef:00:02", "de:ad:be:ef:00:10"
HOP = NextHop(bytes.fromhex(MAC.replace(":", "")), bytes.fromhex(OWN.replace(":", "")), IFINDEX)
VIP, BACKEND = "10.0.0.10:8080", "10.0.0.2:8080"


def prepared(machine: Machine) -> Machine:
    config = loads(CONFIG)
    network = Network(dict.fromkeys((config.pools[0].backends[0].address,), HOP))
    machine.configure(config, network)
    return machine


def send(machine: Machine, text: str) -> Outcome:
    return machine.send(packet_text.frame(text, MAC, OWN))


def reason(machine: Machine, text: str) -> Reason:
    return Reason(int(send(machine, text).plan["reason"]))


def connect(machine: Machine, client: str) -> None:
    out = send(machine, f"{client} > {VIP} S").frame
    snat = packet_text.tcp_line(out).split()[0]
    assert reason(machine, f"{BACKEND} > {snat} S.") is Reason.REPLY
    assert reason(machine, f"{client} > {VIP} .") is Reason.FORWARD


def test_flow_table_full(machine: Machine) -> None:
    prepared(machine).tables.settings["flow_groups"] = 1
    for port in range(2000, 2016):
        connect(machine, f"10.0.0.1:{port}")
    assert reason(machine, f"10.0.0.1:3000 > {VIP} S") is Reason.FLOW_TABLE_FULL
    # who is there already is served
    assert reason(machine, f"10.0.0.1:2000 > {VIP} .") is Reason.FORWARD
    # one that is over makes room, and its port is free again
    assert reason(machine, f"10.0.0.1:2003 > {VIP} R") is Reason.FORWARD
    assert reason(machine, f"10.0.0.1:3000 > {VIP} S") is Reason.FORWARD_NEW
    assert reason(machine, f"{BACKEND} > 10.0.0.10:2003 .") is Reason.NO_REPLY_FLOW
    # a handshake that does not come about makes room after 3 s, established flows never do
    machine.age(3)
    assert reason(machine, f"10.0.0.1:3001 > {VIP} S") is Reason.FORWARD_NEW
    clients = {row.client for row in flow_rows(machine.tables, machine.ids)}
    assert clients == {f"10.0.0.1:{p}" for p in range(2000, 2016) if p != 2003} | {"10.0.0.1:3001"}


def test_ports_run_out(machine: Machine) -> None:
    prepared(machine).tables.settings["local_first"] = 1024 + 8
    for port in range(1024, 1032):
        assert reason(machine, f"10.0.1.1:{port} > {VIP} S") is Reason.FORWARD_NEW
    ports = {row.snat for row in flow_rows(machine.tables, machine.ids)}
    assert ports == {f"10.0.0.10:{port}" for port in range(1024, 1032)}
    assert reason(machine, f"10.0.1.9:1024 > {VIP} S") is Reason.SNAT_EXHAUSTED
    assert len(flow_rows(machine.tables, machine.ids)) == 8
    # all of them die, and their ports can be had again
    machine.age(32)
    for port in range(1024, 1032):
        assert reason(machine, f"10.0.1.2:{port} > {VIP} S") is Reason.FORWARD_NEW
    assert len(flow_rows(machine.tables, machine.ids)) == 8


def test_a_lock_that_is_held(machine: Machine) -> None:
    prepared(machine).tables.locks[:] = 1
    assert reason(machine, f"10.0.0.1:2000 > {VIP} S") is Reason.FLOW_BUSY
    assert flow_rows(machine.tables, machine.ids) == []
    machine.tables.locks[:] = 0
    connect(machine, "10.0.0.1:2000")
    machine.tables.locks[:] = 1
    assert reason(machine, f"10.0.0.1:2000 > {VIP} .") is Reason.FORWARD  # known flows need no lock
