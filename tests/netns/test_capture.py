# SPDX-License-Identifier: Apache-2.0
"""A capture on the lab's bridge: every frame, once, whoever sent it and however.

h1 sends numbered frames of an ethertype of our own (0x88B5, for local experiments) that nobody
answers; in one test the balancer's place is taken by an XDP program that sends such frames back.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from evener.errors import EvenerError
from evener.lab import namespaces, topology
from evener.lab.capture import Capture
from evener.lab.topology import Lab
from tests.support.packets import ethernet, parse
from tests.support.pcap import read_pcap

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

EXPERIMENT = 0x88B5
SO_RCVBUFFORCE = 33

REFLECTOR = """
struct xdp_md { unsigned int data, data_end; };
__attribute__((section("xdp"), used)) int reflect(struct xdp_md *ctx)
{
    unsigned short *w = (void *)(long)ctx->data;
    if ((void *)(w + 7) > (void *)(long)ctx->data_end || w[6] != 0xb588)
        return 2; /* XDP_PASS */
    for (int i = 0; i < 3; i++) {
        unsigned short t = w[i];
        w[i] = w[i + 3];
        w[i + 3] = t;
    }
    return 3; /* XDP_TX */
}
__attribute__((section("license"), used)) char _license[] = "GPL";
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    name = topology.unique_name("c")
    lab = topology.up(name)
    for host in lab.hosts:  # the bridge learns where everybody is
        lab.run(host.name, ["ping", "-c1", "-W2", "10.0.0.10"])
    yield lab
    topology.down(name)


@pytest.fixture
def h1(lab: Lab) -> Iterator[socket.socket]:
    """A raw socket on h1's eth0 that receives only frames of the experiment."""

    def raw() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EXPERIMENT))
        made.bind(("eth0", EXPERIMENT))
        made.settimeout(5)
        # on Linux 6.1 a frame that XDP sent counts as 4 KiB, and 49 of them fill the usual buffer
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20)
        return made

    with namespaces.in_namespace(lab.host("h1").namespace, raw) as made:
        yield made


def numbered(lab: Lab, number: int, size: int = 60, target: str = "h2") -> bytes:
    payload = struct.pack("!I", number).ljust(size - 14, b"e")
    return ethernet(lab.host(target).mac, lab.host("h1").mac, payload, ethertype=EXPERIMENT)


def experiment(path: Path) -> list[bytes]:
    return [frame for _, frame in read_pcap(path) if parse(frame).ethertype == EXPERIMENT]


@pytest.mark.parametrize("nanoseconds", [True, False])
def test_all_that_was_sent_is_in_the_file(
    lab: Lab, h1: socket.socket, tmp_path: Path, nanoseconds: bool
) -> None:
    path = tmp_path / "a.pcap"
    frames = [numbered(lab, i, 60 + i % 1400) for i in range(3000)]
    capture = Capture(lab.switch, topology.BRIDGE, path, nanoseconds=nanoseconds).start()
    for frame in frames:
        h1.send(frame)
    summary = capture.stop()
    assert experiment(path) == frames
    assert (summary.drops, summary.frames) == (0, len(read_pcap(path)))
    assert summary.size_bytes == sum(len(frame) for _, frame in read_pcap(path))
    times = [time for time, frame in read_pcap(path) if frame in set(frames)]
    assert times == sorted(times)


def test_lost_frames_are_counted(lab: Lab, h1: socket.socket, tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with Capture(lab.switch, topology.BRIDGE, path, buffer_bytes=4096) as capture:
        for i in range(2000):
            h1.send(numbered(lab, i))
        summary = capture.stop()
    assert len(experiment(path)) + summary.drops >= 2000


def test_tags_are_in_the_file(lab: Lab, h1: socket.socket, tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    mac = lab.host("h1").mac
    frame = ethernet(lab.host("h2").mac, mac, b"v" * 50, ethertype=EXPERIMENT, vlans=[0x2064])
    with Capture(lab.switch, topology.BRIDGE, path):
        h1.send(frame)
    assert experiment(path) == [frame]


def test_a_connection_is_complete_and_has_right_checksums(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    h3 = lab.host("h3")
    server = namespaces.in_namespace(
        h3.namespace, lambda: socket.create_server((str(h3.address), 8080))
    )
    message = os.urandom(300_000)
    with server, Capture(lab.switch, topology.BRIDGE, path):
        sender = lab.popen("h1", ["nc", "-N", str(h3.address), "8080"], stdin=subprocess.PIPE)
        accepted, _ = server.accept()
        with accepted:
            assert sender.stdin is not None
            sender.stdin.write(message)
            sender.stdin.close()
            received = b"".join(iter(lambda: accepted.recv(1 << 16), b""))
        sender.wait(5)
    assert received == message
    segments = [p for _, frame in read_pcap(path) if (p := parse(frame)).protocol == 6]
    assert all(segment.ip_ok and segment.l4_ok for segment in segments)
    assert all(segment.total <= 1500 for segment in segments)
    start = next(segment.seq for segment in segments if segment.flags == "S") + 1
    stream = bytearray(len(message))
    for segment in segments:
        if segment.dport == 8080 and segment.payload:
            at = (segment.seq - start) % 2**32
            stream[at : at + len(segment.payload)] = segment.payload
    assert bytes(stream) == message


def test_frames_sent_with_xdp_tx_arrive_and_are_captured(
    lab: Lab, h1: socket.socket, tmp_path: Path
) -> None:
    source, built, path = (tmp_path / name for name in ("r.bpf.c", "r.bpf.o", "a.pcap"))
    source.write_text(REFLECTOR)
    subprocess.run(["clang", "-O2", "-g", "-target", "bpf", "-c", source, "-o", built], check=True)
    attach = ["ip", "link", "set", "dev", "eth0", "xdp"]
    lab.run("lb", [*attach, "obj", str(built), "sec", "xdp"])
    try:
        with Capture(lab.switch, topology.BRIDGE, path):
            for i in range(100):
                h1.send(numbered(lab, i, target="lb"))
            received = [h1.recv(100) for _ in range(100)]
    finally:
        lab.run("lb", [*attach, "off"])
    there = [numbered(lab, i, target="lb") for i in range(100)]
    back = [frame[6:12] + frame[:6] + frame[12:] for frame in there]
    assert received == back
    captured = experiment(path)
    assert [frame for frame in captured if frame in set(there)] == there
    assert [frame for frame in captured if frame in set(back)] == back
    assert len(captured) == 200


def test_a_missing_interface_is_named(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(EvenerError, match="no interface 'br7'"):
        Capture(lab.switch, "br7", tmp_path / "a.pcap").start()
