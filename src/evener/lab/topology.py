# SPDX-License-Identifier: Apache-2.0
"""One Ethernet segment of namespaces: clients, backends and the balancer on a bridge.

                         evener-NAME-sw
                 +----------- br0 ------------+
                 | h1       h2       h3    lb |      every port carries an XDP program (XDP_PASS)
                 +-|--------|--------|------|-+
    eth0:          |        |        |      |
    evener-NAME-  h1       h2       h3     lb
    10.0.0.        1        2        3     10
    role        client  backend  backend  balancer

That is for XDP. For DPDK the balancer is joined to the bridge by a device that the worker of the daemon
opens, and its eth0 is a TAP that leads to the worker, too: the way to and from the kernel (`lab/device.py`).

More clients and backends are h4, h5, ... with addresses of their own ranges, see `plan_hosts`. Labs
of different names use the same addresses and do not know of each other. Nothing is made outside the
lab's own namespaces.

What is known about a lab is in /run/evener/lab-NAME.json from before the first namespace until
after the last, so a lab of which the building was killed half way can still be found and taken
down.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import evener
from evener.errors import EvenerError, MachineError
from evener.lab import leftovers, namespaces, state, tap
from evener.lab.device import DEFAULT, DEVICES, Device
from evener.lab.namespaces import Offload
from evener.model import Driver

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

BRIDGE = "br0"
INTERFACE = "eth0"
SEGMENT = IPv4Network("10.0.0.0/24")
CONGESTION_CONTROL = "cubic"

MAX_CLIENTS = 50
MAX_BACKENDS = 106

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


class Role(StrEnum):
    """What a host of the lab is for."""

    CLIENT = "client"
    BACKEND = "backend"
    BALANCER = "balancer"


@dataclass(frozen=True, slots=True)
class Host:
    """One host: a namespace with `lo` and `eth0`; `mac` is written as de:ad:be:ef:00:01."""

    name: str
    address: IPv4Address
    mac: str
    role: Role
    namespace: str


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab as it stands. `ready` is False for one of which the building did not finish.

    `driver` is for whom lb was wired, `device` how, if that is DPDK.
    """

    name: str
    hosts: tuple[Host, ...]
    ready: bool = True
    driver: Driver = Driver.XDP
    device: Device = DEFAULT

    @property
    def switch(self) -> str:
        """The namespace that holds the bridge `br0`, whose ports are named after the hosts.

        Where DPDK's device is a TAP, the balancer's port is that one.
        """
        return f"evener-{self.name}-sw"

    @property
    def device_namespace(self) -> str:
        """The namespace of the interface that DPDK opens."""
        return f"evener-{self.name}-{self.device.host}"

    @property
    def balancer(self) -> Host:
        """The host named lb."""
        return self.host("lb")

    @property
    def clients(self) -> tuple[Host, ...]:
        """The clients, h1 first."""
        return tuple(host for host in self.hosts if host.role is Role.CLIENT)

    @property
    def backends(self) -> tuple[Host, ...]:
        """The backends, h2 first."""
        return tuple(host for host in self.hosts if host.role is Role.BACKEND)

    def host(self, name: str) -> Host:
        """The host of this name; EvenerError lists the names when there is none."""
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.hosts)
        raise EvenerError(f"lab '{self.name}' has no host '{name}'", "", f"take one of {known}")

    def popen(
        self, host: str, command: Sequence[str | Path], **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start a command on a host, to be killed by `down`; options as in `namespaces.popen`."""
        process = namespaces.popen(self.host(host).namespace, command, **options)
        try:
            self.record(process.pid)
        except BaseException:
            process.kill()
            raise
        return process

    def run(
        self, host: str, command: Sequence[str | Path], **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host to its end; options as in `namespaces.run`."""
        return namespaces.run(self.host(host).namespace, command, **options)

    def record(self, pid: int) -> None:
        """Have `down` kill this process, which was started for the lab."""
        state.add_process(self.name, pid)


def plan_hosts(name: str, clients: int = 1, backends: int = 2) -> tuple[Host, ...]:
    """The hosts of a lab, nothing made yet: clients, backends, then the balancer.

    h1 is the first client, h2 and h3 are the first backends. Further hosts are h4, h5, ...: first
    the clients (10.0.0.101 and up, at most 50 in all), then the backends (10.0.0.151 and up, at
    most 106 in all). A MAC ends in the four decimal digits of the last number of the address:
    10.0.0.10 has de:ad:be:ef:00:10, 10.0.0.151 ...:01:51.
    """
    if not 1 <= clients <= MAX_CLIENTS:
        raise EvenerError(f"a lab has 1 to {MAX_CLIENTS} clients, not {clients}", name)
    if not 1 <= backends <= MAX_BACKENDS:
        raise EvenerError(f"a lab has 1 to {MAX_BACKENDS} backends, not {backends}", name)
    further = 3  # the number of the last host that has a fixed place

    def host(label: str, last: int, role: Role) -> Host:
        address = IPv4Address(f"10.0.0.{last}")
        return Host(label, address, mac_of(address), role, f"evener-{name}-{label}")

    hosts = [host("h1", 1, Role.CLIENT)]
    hosts += [host(f"h{further + i}", 100 + i, Role.CLIENT) for i in range(1, clients)]
    hosts += [host(f"h{1 + i}", 1 + i, Role.BACKEND) for i in range(1, min(backends, 2) + 1)]
    further += clients - 1
    hosts += [host(f"h{further + i}", 150 + i, Role.BACKEND) for i in range(1, backends - 1)]
    hosts.append(host("lb", 10, Role.BALANCER))
    return tuple(hosts)


def mac_of(address: IPv4Address) -> str:
    """The MAC address of a host, as `plan_hosts` explains."""
    last = address.packed[-1]
    return f"de:ad:be:ef:{last // 100:02d}:{last % 100:02d}"


def unique_name(prefix: str = "t") -> str:
    """A lab name that nobody else uses, for tests, which may run in several processes."""
    return f"{prefix}{os.getpid():x}-{secrets.token_hex(3)}"


def up(
    name: str,
    clients: int = 1,
    backends: int = 2,
    driver: Driver = Driver.XDP,
    device: Device = DEFAULT,
) -> Lab:
    """Build a lab, whole or not at all.

    Raises EvenerError when the name is bad, in use, or left over from a building that was killed;
    MachineError without root, without the compiled XDP program, or for a driver that has no use for it.
    """
    _check_name(name)
    if driver is Driver.SIM:
        raise MachineError(f"a lab with the driver {driver} has nobody to handle packets")
    check_device(driver, device)
    hosts = plan_hosts(name, clients, backends)
    if os.geteuid() != 0:
        raise MachineError("a lab needs network namespaces", name, "run it as root")
    if left := _namespaces_of(name):
        raise EvenerError(
            f"lab '{name}' is there already", ", ".join(left), f"evener lab down --name {name}"
        )
    state.begin(name, [_host_to_json(host) for host in hosts], str(driver), device.name)
    lab = Lab(name, hosts, driver=driver, device=device)
    try:
        _build(lab)
        state.finish(name)
    except BaseException:
        down(name)
        raise
    return lab


def check_device(driver: Driver, device: Device) -> None:
    """EvenerError when a device is chosen for a driver that has none."""
    if driver is not Driver.DPDK and device != DEFAULT:
        raise EvenerError(
            f"the device {device.name} is for the driver dpdk, not {driver}", "", "--driver dpdk"
        )


def down(name: str) -> bool:
    """Take a lab down, complete or not; says whether there was one.

    Ends its recorded processes and all that live in its namespaces (EvenerError if one will not end) and
    removes its namespaces, what balancers in them have left, and its state.
    """
    _check_name(name)
    found = state.read(name) is not None
    state.kill_processes(name)
    left = _namespaces_of(name)
    state.must_end(name, leftovers.inhabitants(left))
    for namespace in left:
        found = True
        leftovers.forget(namespace)
        namespaces.delete(namespace)
    state.remove(name)
    return found


def get(name: str) -> Lab:
    """The lab of this name; EvenerError when there is none."""
    _check_name(name)
    for lab in list_labs():
        if lab.name == name:
            return lab
    raise EvenerError(f"no lab '{name}'", "", f"evener lab up --name {name}")


def list_labs() -> list[Lab]:
    """All labs of this machine by name, also unfinished ones and bare leftovers."""
    known = {name: state.read(name) for name in state.names()}
    labs = {name: _lab_from_json(content) for name, content in known.items() if content is not None}
    for namespace in namespaces.names():
        if match := re.fullmatch(r"evener-(.+)-(?:sw|lb|h\d+)", namespace):
            labs.setdefault(match[1], Lab(match[1], (), ready=False))
    return [labs[name] for name in sorted(labs)]


def _build(lab: Lab) -> None:
    for namespace in [lab.switch, *(host.namespace for host in lab.hosts)]:
        namespaces.create(namespace)
        # The number that names a balancer's pins and socket may have belonged to a namespace that
        # died uncleanly.
        leftovers.forget(namespace)
        namespaces.in_namespace(namespace, quieten)
    namespaces.in_namespace(lab.switch, partial(_build_switch, lab))
    for host in lab.hosts:
        if lab.driver is Driver.DPDK and host == lab.balancer:
            namespaces.in_namespace(host.namespace, partial(_build_exception_path, lab))
            if lab.device.cable:
                wire = partial(_build_wire, lab.device.interface)
                namespaces.in_namespace(lab.device_namespace, wire)
        namespaces.in_namespace(host.namespace, partial(_build_host, host))


def quieten() -> None:
    """Settings of a fresh namespace: no IPv6 chatter, and cubic, so that speeds compare."""
    for which in ("all", "default"):
        if Path(f"/proc/sys/net/ipv6/conf/{which}").exists():
            namespaces.sysctl(f"net/ipv6/conf/{which}/disable_ipv6", "1")
    with suppress(PermissionError):
        # Refused where the machine's own default is another one and its list of allowed ones lacks
        # this: then the route to the segment, which names it too, is what counts.
        namespaces.sysctl("net/ipv4/tcp_congestion_control", CONGESTION_CONTROL)


def _build_switch(lab: Lab) -> None:
    """In the switch's namespace: the bridge, and for each host a port whose far end is its eth0."""
    from pyroute2 import IPRoute

    with IPRoute(ext_ack=True) as ip:
        # No forward delay: ports pass frames at once. No snooping: every multicast goes everywhere,
        # as on a dumb switch.
        ip.link(
            "add",
            ifname=BRIDGE,
            kind="bridge",
            br_stp_state=0,
            br_forward_delay=0,
            br_mcast_snooping=0,
        )
        bridge = socket.if_nametoindex(BRIDGE)
        ip.link("set", index=bridge, state="up")
        ports = {}
        for host in lab.hosts:
            port, place, peer = _cable(lab, host)
            if not peer:
                ports[port] = tap.make(port)
                continue
            with (namespaces.DIRECTORY / place).open("rb") as file:
                there = {"net_ns_fd": file.fileno(), **peer}
                ip.link("add", ifname=port, kind="veth", peer=there)
            ports[port] = socket.if_nametoindex(port)
        if lab.driver is Driver.XDP:
            _attach_pass(list(ports.values()))
        for port, index in ports.items():
            namespaces.set_offload(port, Offload.TX_CHECKSUM, False)
            # An XDP program switches GRO on, which would glue segments together before they are
            # captured.
            namespaces.set_offload(port, Offload.GRO, False)
            ip.link("set", index=index, master=bridge, state="up")


def _cable(lab: Lab, host: Host) -> tuple[str, str, dict[str, str]]:
    """The name of a host's port; of its other end the namespace and what it is. Of a port that is a TAP,
    the latter is empty.
    """
    if lab.driver is Driver.XDP or host != lab.balancer:
        return host.name, host.namespace, {"ifname": INTERFACE, "address": host.mac}
    if not lab.device.cable:
        return lab.device.interface, lab.switch, {}
    # Its MAC address is any: frames are for that of eth0, and the worker takes all of them.
    return host.name, lab.device_namespace, {"ifname": lab.device.interface}


def _build_exception_path(lab: Lab) -> None:
    """In lb's namespace, for DPDK: eth0, whose other end the daemon holds."""
    from pyroute2 import IPRoute

    with IPRoute(ext_ack=True) as ip:
        ip.link("set", index=tap.make(INTERFACE), address=lab.balancer.mac)


def _build_wire(interface: str) -> None:
    """In the namespace of the interface that DPDK opens, if that is the end of a cable."""
    from pyroute2 import IPRoute

    namespaces.set_offload(interface, Offload.TX_CHECKSUM, False)
    with IPRoute(ext_ack=True) as ip:
        ip.link("set", index=socket.if_nametoindex(interface), state="up")


def _build_host(host: Host) -> None:
    """In a host's namespace, once eth0 is there: addresses and routes."""
    from pyroute2 import IPRoute

    # XDP cannot see that a frame still waits for its checksum, so hosts compute them.
    namespaces.set_offload(INTERFACE, Offload.TX_CHECKSUM, False)
    with IPRoute(ext_ack=True) as ip:
        for interface in ("lo", INTERFACE):
            index = socket.if_nametoindex(interface)
            ip.link("set", index=index, state="up")
        ip.addr("add", index=index, address=str(host.address), prefixlen=SEGMENT.prefixlen)
        ip.route(
            "replace",
            dst=str(SEGMENT),
            oif=index,
            prefsrc=str(host.address),
            scope="link",
            proto="kernel",
            metrics={"cc_algo": CONGESTION_CONTROL},
        )


def _attach_pass(ports: list[int]) -> None:
    """Give interfaces of the current namespace an XDP program that stays until they go."""
    from evener.datapath import bpf

    path = Path(evener.__file__).parent / "_native" / "lab_pass.bpf.o"
    if not path.exists():
        raise MachineError(
            "the lab's XDP program is not built", str(path), "python -m evener._build"
        )
    with bpf.Object.open(path) as obj, obj.load().program("lab_pass") as program:
        for index in ports:
            bpf.attach_netlink(program, index, bpf.XdpFlags.NATIVE)


def _namespaces_of(name: str) -> list[str]:
    """The namespaces that are there of a lab. (`a` does not own those of `a-b`.)"""
    pattern = re.compile(rf"evener-{re.escape(name)}-(sw|lb|h\d+)")
    return [namespace for namespace in namespaces.names() if pattern.fullmatch(namespace)]


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise EvenerError(
            f"'{name}' cannot name a lab", "", "use up to 32 small letters, digits and dashes"
        )


def _lab_from_json(content: state.Content) -> Lab:
    hosts = tuple(map(_host_from_json, content["hosts"]))
    driver = Driver(content.get("driver", Driver.XDP))
    device = DEVICES[content.get("device", DEFAULT.name)]
    return Lab(content["name"], hosts, content["ready"], driver, device)


def _host_to_json(host: Host) -> dict[str, str]:
    return {
        "name": host.name,
        "address": str(host.address),
        "mac": host.mac,
        "role": str(host.role),
        "namespace": host.namespace,
    }


def _host_from_json(content: dict[str, str]) -> Host:
    return Host(
        content["name"],
        IPv4Address(content["address"]),
        content["mac"],
        Role(content["role"]),
        content["namespace"],
    )
