# SPDX-License-Identifier: Apache-2.0
"""Services, backends, counters and flows as rows, read from a simulator that handled packets."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evener import config
from evener._generated.reasons import Reason
from evener.datapath import native
from evener.errors import EvenerError
from evener.observe import Snapshot, counters, flows, values
from tests.support import segment


def backend_of(row: dict[str, Any]) -> int:
    """The host number of a flow's backend."""
    return int(row["backend"].split(":")[0].rsplit(".", 1)[1])


def two_flows() -> tuple[Any, Snapshot]:
    made, snapshot = segment.simulator()
    segment.handshake(made, 34952)
    made.send(segment.to_vip(34953, "S"))
    return made, snapshot


def test_the_state_of_flags_is_the_cores() -> None:
    assert values.STATE_OF_FLAGS.tolist() == [native.flow_state(flags) for flags in range(256)]


def test_a_row_for_each_flow_with_all_four_ends() -> None:
    made, snapshot = two_flows()
    rows = {row["client"]: row for row in flows.flows(snapshot)}
    assert set(rows) == {"10.0.0.1:34952", "10.0.0.1:34953"}
    row = rows["10.0.0.1:34952"]
    assert backend_of(row) in (2, 3)
    name = "web/h3" if backend_of(row) == 3 else "web/10.0.0.2:8080"
    assert row == {
        "protocol": "tcp",
        "state": "ESTABLISHED",
        "left_s": 900,
        "client": "10.0.0.1:34952",
        "vip": "10.0.0.10:8080",
        "snat": "10.0.0.10:34952",
        "backend": row["backend"],
        "service": "web",
        "pool": "web",
        "backend_name": name,
    }
    assert (rows["10.0.0.1:34953"]["state"], rows["10.0.0.1:34953"]["left_s"]) == ("OPENING", 30)
    made._clock.advance(29)
    assert {row["left_s"] for row in flows.flows(snapshot)} == {1, 871}
    made._clock.advance(1)
    assert flows.count(snapshot) == 1, "an opening flow is over after 30 s"


def test_states_of_a_closing_flow() -> None:
    made, snapshot = segment.simulator()
    syn, _, _ = segment.handshake(made, 1024)
    made.send(segment.to_vip(1024, "FA"))
    assert [row["state"] for row in flows.flows(snapshot)] == ["HALF_CLOSED"]
    made.send(segment.answer(syn.frame, "FA"))
    (row,) = flows.flows(snapshot)
    assert (row["state"], row["left_s"]) == ("CLOSED", 60)


def test_filters_of_flows() -> None:
    made, snapshot = two_flows()
    segment.handshake(made, 34952, client="10.0.0.2")
    everything = flows.flows(snapshot)

    def clients(**filters: str) -> set[str]:
        return {row["client"] for row in flows.flows(snapshot, filters)}

    assert clients(client="10.0.0.1") == {"10.0.0.1:34952", "10.0.0.1:34953"}
    assert clients(client="10.0.0.1:34953") == {"10.0.0.1:34953"}
    assert clients(client="10.0.0.2/31") == {"10.0.0.2:34952"}
    assert clients(state="established") == {"10.0.0.1:34952", "10.0.0.2:34952"}
    assert clients(service="web") == clients(service="10.0.0.10:8080/tcp") == clients()
    for name, number in (("web/h3", 3), ("h3", 3), ("10.0.0.2:8080", 2), ("10.0.0.2", 2)):
        expected = {row["client"] for row in everything if backend_of(row) == number}
        assert clients(backend=name) == expected
    assert len(flows.flows(snapshot, limit=2)) == 2
    assert len(flows.flows(snapshot, limit=0)) == 3


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"service": "wbe"}, 'no service "wbe", did you mean "web"?: one of web'),
        ({"backend": "web/h33"}, 'did you mean "web/h3"?'),
        ({"state": "ESTABLISH"}, 'did you mean "ESTABLISHED"?: one of OPENING, ESTABLISHED'),
        ({"client": "10.0.0"}, '"10.0.0" is not a client: give an IPv4 address'),
        ({"client": "10.0.0.1:0"}, "is not an IPv4 address with a port"),
        ({"cilent": "10.0.0.1"}, 'no filter "cilent", did you mean "client"?'),
    ],
)
def test_a_filter_that_cannot_be_understood(filters: dict[str, str], message: str) -> None:
    _, snapshot = segment.simulator()
    with pytest.raises(EvenerError) as caught:
        flows.flows(snapshot, filters)
    assert message in str(caught.value)


def test_services_and_backends() -> None:
    _, snapshot = two_flows()
    (service,) = counters.services(snapshot)
    told = {k: service[k] for k in ("service", "protocol", "vip", "pool", "scheduler", "mode")}
    assert told == {
        "service": "web",
        "protocol": "tcp",
        "vip": "10.0.0.10:8080",
        "pool": "web",
        "scheduler": "maglev",
        "mode": "full-nat",
    }
    assert (service["flows_now"], service["flows_established"], service["flows_new"]) == (2, 1, 2)
    assert (service["forward_packets"], service["reply_packets"]) == (3, 1)
    assert (service["forward_bytes"], service["reply_bytes"]) == (3 * 54, 54)
    rows = counters.backends(snapshot)
    assert [row["backend"] for row in rows] == ["10.0.0.2:8080", "h3"]
    assert [row["weight"] for row in rows] == [1, 2]
    assert [row["mac"] for row in rows] == [segment.mac(2), segment.mac(3)]
    assert [row["state"] for row in rows] == ["usable", "usable"]
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert rows[1]["share"] == pytest.approx(2 / 3, abs=0.01)
    for name in ("flows_now", "flows_established", "flows_new", "forward_packets", "reply_packets"):
        assert sum(row[name] for row in rows) == service[name]
        if name in service["backends"][0]:
            assert [row[name] for row in rows] == [row[name] for row in service["backends"]]


def test_counters_and_reasons() -> None:
    made, snapshot = two_flows()
    made.send(b"\xff" * 60)
    rows = counters.counters(snapshot)
    assert [row["kind"] for row in rows] == ["service", "backend", "backend"]
    assert [row.get("backend") for row in rows] == [None, "web/10.0.0.2:8080", "web/h3"]
    assert rows[0]["forward_packets"] == 3
    reasons = {row["reason"]: row for row in counters.reasons(snapshot)}
    assert set(reasons) == {reason.name for reason in Reason}
    counted = {name: row["packets"] for name, row in reasons.items() if row["packets"]}
    assert counted == {"FORWARD_NEW": 2, "REPLY": 1, "FORWARD": 1, "NOT_IPV4": 1}
    assert (reasons["NOT_IPV4"]["verdict"], reasons["REPLY"]["verdict"]) == ("pass", "forward")


def test_counters_are_summed_over_cpus() -> None:
    made, snapshot = segment.simulator()
    sizes = replace(made.tables.sizes, cpus=3)
    tables = type(made.tables).allocate(sizes)
    tables.service_counters[:, 1]["forward_packets"] = [1, 2, 2**40]
    tables.reason_counters[:, Reason.LOCAL] = [5, 6, 7]
    made.tables = tables
    assert counters.services(snapshot)[0]["forward_packets"] == 2**40 + 3
    reasons = {row["reason"]: row["packets"] for row in counters.reasons(snapshot)}
    assert reasons["LOCAL"] == 18


def test_a_removed_backend_is_shown_while_it_has_flows() -> None:
    made, snapshot = two_flows()
    (row,) = flows.flows(snapshot, {"client": "10.0.0.1:34952"})
    gone = backend_of(row)
    lines = segment.TEXT.splitlines(keepends=True)
    text = "".join(line for line in lines if f"10.0.0.{gone}:8080" not in line)
    later = config.loads(text)
    made.configure(later, segment.NETWORK)
    snapshot = Snapshot(later, made.ids, made)
    rows = {row["address"]: row for row in counters.backends(snapshot)}
    assert rows[row["backend"]]["state"] == "gone"
    assert rows[row["backend"]]["pool"] is None
    assert rows[row["backend"]]["flows_established"] == 1
    (row,) = flows.flows(snapshot, {"client": "10.0.0.1:34952"})
    assert (row["backend_name"], row["pool"], row["service"]) == (row["backend"], None, "web")


def test_one_backend_in_two_pools_is_named_by_the_service() -> None:
    text = segment.TEXT + (
        '[pool.other]\nbackends = ["10.0.0.2:8080"]\n'
        '[service.other]\nlisten = "10.0.0.10:81/tcp"\npool = "other"\n'
    )
    made, snapshot = segment.simulator(text)
    made.send(segment.frame("10.0.0.1", 5000, segment.VIP, 81, "S"))
    (row,) = flows.flows(snapshot)
    assert (row["service"], row["pool"]) == ("other", "other")
    assert row["backend_name"] == "other/10.0.0.2:8080"
    services = {row["service"]: row for row in counters.services(snapshot)}
    assert [row["flows_now"] for row in services["web"]["backends"]] == [0, 0]
    assert [row["flows_now"] for row in services["other"]["backends"]] == [1]


def test_records_that_nobody_may_use_are_left_out() -> None:
    made, snapshot = two_flows()
    records = made.tables.flows
    free = np.flatnonzero(records["binding"] == 0)[:2]
    stamp = np.uint64(1000 << 48)
    records["binding"][free[0]] = np.uint64(1 << 40 | 1) | stamp  # claimed
    records["binding"][free[1]] = np.uint64(0x20 << 40) | stamp  # freed
    assert flows.count(snapshot) == 2


def test_a_port_in_quarantine_without_a_client() -> None:
    made, snapshot = two_flows()
    records = made.tables.flows
    used = np.flatnonzero(records["binding"])
    records["client"][used] &= np.uint64((1 << 48) - 1)
    rows = flows.flows(snapshot)
    assert [row["client"] for row in rows] == [None, None]
    assert {row["snat"] for row in rows} == {"10.0.0.10:34952", "10.0.0.10:34953"}
    assert counters.services(snapshot)[0]["flows_now"] == 0
    assert sum(row["flows_now"] for row in counters.backends(snapshot)) == 2
