# SPDX-License-Identifier: Apache-2.0
"""A capture through the simulator: which frames would leave, and what became of the others.

The capture's time stamps are the simulator's clock. MAC addresses are learnt from the capture: a
client's from its own frames; a backend's and the balancer's from frames or ARP messages that they
sent, or frames that were sent to them. What the capture does not show is made up: 02:00 and the four
bytes of the IPv4 address, locally administered (IEEE 802, second bit), so that no frame is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Final

from evener._generated.reasons import VERDICTS, Reason, Verdict
from evener.clock import ManualClock
from evener.datapath.native import FRAME_MAX
from evener.datapath.sim import Simulator
from evener.model import Config
from evener.pcap import Record
from evener.tables.effective import Network, NextHop
from evener.tables.memory import Sizes

_IPV4, _ARP = b"\x08\x00", b"\x08\x06"
_IFINDEX: Final = 1
# A flow's 16-bit stamp looks new again after 9 h; the longest timeout is 8 h. So flows that are over
# have to be swept away in between, as the daemon does.
_SWEEP_S: Final = 1_800
_FOREVER_S: Final = 36_000


def made_up(address: IPv4Address) -> bytes:
    """The MAC address of a host that the capture does not show."""
    return b"\x02\x00" + address.packed


@dataclass(slots=True)
class Hosts:
    """Who has which MAC address. seen: by the capture; the rest is made up."""

    config: Config
    clients: dict[IPv4Address, bytes] = field(default_factory=dict)
    seen: dict[IPv4Address, bytes] = field(default_factory=dict)

    @classmethod
    def learn(cls, config: Config, frames: Iterable[bytes]) -> Hosts:
        """From a whole capture: the first word on each address counts, senders before receivers."""
        hosts = cls(config)
        vips = {s.address for s in config.services}
        known = hosts.own() | hosts.backends()
        targets: dict[IPv4Address, bytes] = {}
        for frame in frames:
            target, source, kind = frame[:6], frame[6:12], frame[12:14]
            if kind == _ARP and len(frame) >= 42:
                _note(hosts.seen, known, IPv4Address(frame[28:32]), frame[22:28])
            if kind != _IPV4 or len(frame) < 34:
                continue
            sender, receiver = IPv4Address(frame[26:30]), IPv4Address(frame[30:34])
            _note(hosts.seen, known, sender, source)
            _note(targets, known, receiver, target)
            if receiver in vips and sender not in known:
                hosts.clients.setdefault(sender, source)
        hosts.seen = {**targets, **hosts.seen}
        return hosts

    def own(self) -> set[IPv4Address]:
        """The balancer's addresses: VIPs and SNAT addresses."""
        services = self.config.services
        both = {a for s in services for a in (s.address, *s.snat)}
        return {address for address in both if isinstance(address, IPv4Address)}

    def backends(self) -> set[IPv4Address]:
        """The backends' addresses."""
        pools = self.config.pools
        every = {b.address for pool in pools for b in pool.backends}
        return {address for address in every if isinstance(address, IPv4Address)}

    def balancer(self) -> tuple[IPv4Address, bytes]:
        """The balancer's MAC address, with the IP address that it was found by."""
        own = sorted(self.own()) or [IPv4Address(0)]
        by = next((address for address in own if address in self.seen), own[0])
        return by, self.seen.get(by) or made_up(by)

    def network(self) -> Network:
        """Everyone's next hop: clients, then backends."""
        source = self.balancer()[1]
        macs = dict(self.clients)
        macs |= {a: self.seen.get(a) or made_up(a) for a in sorted(self.backends())}
        return Network({a: NextHop(mac, source, _IFINDEX) for a, mac in macs.items()})


def _note(
    book: dict[IPv4Address, bytes], known: set[IPv4Address], address: IPv4Address, mac: bytes
) -> None:
    """Only unicast addresses say where somebody is."""
    if address in known and not mac[0] & 1 and any(mac):
        book.setdefault(address, mac)


@dataclass(slots=True)
class Summary:
    """What became of the frames. reasons: how many had each; the other numbers count frames too."""

    frames: int = 0
    sent: int = 0
    cut_short: int = 0
    too_large: int = 0
    unfinished: int = 0
    reasons: Counter[Reason] = field(default_factory=Counter)


class Replay:
    """The simulator with a configuration, fed with records in the order of the capture."""

    def __init__(self, config: Config, hosts: Hosts) -> None:
        network = hosts.network()
        sizes = Sizes.for_config(config, cpus=1)
        endpoints = len(network.neighbours) + sizes.services + sizes.backends + sizes.snats
        sizes = replace(
            sizes,
            neighbours=len(network.neighbours) + 1,
            index_groups=max(sizes.index_groups, 1 << endpoints.bit_length()),
        )
        self._clock = ManualClock()
        self._simulator = Simulator(sizes, self._clock, ifindex=_IFINDEX)
        self._simulator.configure(config, network)
        self._began_ns: int | None = None
        self._swept = 0.0
        self.summary = Summary()

    def feed(self, record: Record, leave: Callable[[Record], None]) -> None:
        """One frame in; `leave` is called with what goes out, stamped with the same time."""
        summary = self.summary
        summary.frames += 1
        summary.cut_short += len(record.frame) < record.wire_bytes
        if len(record.frame) > FRAME_MAX:
            summary.too_large += 1
            return
        self._move(record.time_ns)
        outcome = self._simulator.send(record.frame)
        reason = Reason(int(outcome.plan["reason"]))
        summary.reasons[reason] += 1
        summary.unfinished += bool(outcome.view["checksum_partial"])
        if VERDICTS[reason] is Verdict.FORWARD:
            summary.sent += 1
            leave(replace(record, frame=outcome.frame))

    def _move(self, time_ns: int) -> None:
        """Set the clock; captures of several CPUs may step back a little, the clock does not."""
        self._began_ns = time_ns if self._began_ns is None else self._began_ns
        ahead = max(0.0, (time_ns - self._began_ns) / 1e9 - self._clock.now())
        rest = min(ahead, _FOREVER_S)
        while rest > 0:
            step = min(rest, _SWEEP_S)
            self._clock.advance(step)
            rest -= step
            if self._clock.now() - self._swept >= _SWEEP_S:
                groups = self._simulator.tables.sizes.flow_groups
                self._simulator.core.sweep(0, groups, self._simulator.now())
                self._swept = self._clock.now()
        self._clock.advance(max(0.0, ahead - _FOREVER_S))  # no flow is left
