# SPDX-License-Identifier: Apache-2.0
"""A balancer in memory to show real answers of: one connection through it, the same every time."""

from __future__ import annotations

import logging
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from evener import config
from evener.clock import ManualClock
from evener.control.daemon import Daemon
from evener.datapath.sim import Simulator
from evener.instance import Instance
from evener.lab import frames
from evener.lab.frames import Flag, Segment
from evener.model import Config
from evener.tables.diff import diff
from evener.tables.effective import Network, NextHop

CONFIG = """\
[datapath]
driver = "sim"
flows = 10_000

[pool.web]
backends = ["10.0.0.2:8080", { address = "10.0.0.3:8080", name = "h3" }]

[service.web]
listen = "10.0.0.10:8080/tcp"
pool = "web"
"""
CHANGED = CONFIG.replace('name = "h3"', 'name = "h3", weight = 2')
CLIENT, VIP, PORT = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.10"), 8080
CLIENT_PORT = 34952


def mac(number: int) -> str:
    """The MAC address of host 10.0.0.number."""
    return f"de:ad:be:ef:00:{number:02d}"


def _nexthop(number: int) -> NextHop:
    there, here = (bytes.fromhex(mac(n).replace(":", "")) for n in (number, 10))
    return NextHop(there, here, 1)


class Sample(Daemon):
    """A daemon that was never started: what it answers is made by the code that always makes it."""

    def __init__(self) -> None:
        logging.getLogger("evener").setLevel(logging.ERROR)
        super().__init__(config.loads(CONFIG), Path("/etc/evener.toml"), Instance("net-4026532008"))
        self.network = Network({IPv4Address(f"10.0.0.{n}"): _nexthop(n) for n in (1, 2, 3)})
        simulator = Simulator.of(self.config, self.network, ManualClock(1000))
        self.datapath, self.ids, self.simulator = simulator, simulator.ids, simulator
        simulator.tables.settings["trace"] = 1

    def connect(self) -> None:
        """A client's SYN, the answer, the acknowledgement."""
        syn = self.simulator.send(_frame(1, CLIENT, CLIENT_PORT, VIP, PORT, Flag.SYN))
        sent = frames.parse(syn.frame)
        assert sent is not None
        host = int(str(sent.dst).rpartition(".")[2])
        answer = Flag.SYN | Flag.ACK
        self.simulator.send(_frame(host, sent.dst, sent.dport, sent.src, sent.sport, answer))
        self.simulator.send(_frame(1, CLIENT, CLIENT_PORT, VIP, PORT, Flag.ACK))

    def status(self) -> dict[str, Any]:
        """As of a daemon, with one process and one time for all."""
        return {**super().status(), "pid": 4711, "uptime_s": 42.0, "warnings": []}

    async def _change(self, new: Config) -> tuple[int, list[str]]:
        changes = diff(self.config, new)
        generation = self.simulator.configure(new, self.network)
        self.config = new
        return generation, changes

    async def reload(self) -> tuple[int, list[str]]:
        """There is no file; as it is in force."""
        return await self._change(self.config)


def _frame(
    host: int, src: IPv4Address, sport: int, dst: IPv4Address, dport: int, flags: Flag
) -> bytes:
    rest = bytes.fromhex("00 1234 4000 faf0 0000")
    ends = (mac(host), mac(10), src, dst, 64, sport, dport)
    return frames.build(Segment(0, *ends, 1, 1, flags, b"", b"", rest))
