# SPDX-License-Identifier: Apache-2.0
"""Replay: the simulator's frames, whatever kind of capture they come from."""

import json
import struct
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from evener import config
from evener.cli import main
from evener.cli.replaying import Hosts, Replay, made_up
from evener.errors import EvenerError
from evener.pcap import Reader, Record
from tests.support import packets, segment
from tests.support.pcap import read_pcap, write_pcap

START_NS = 1_700_000_000 * 10**9 + 123_456_789


def replay(tmp_path: Path, *options: str, text: str = segment.TEXT) -> Result:
    """Replay in.pcap of a folder to out.pcap."""
    (tmp_path / "evener.toml").write_text(text)
    files = [str(tmp_path / name) for name in ("evener.toml", "in.pcap", "out.pcap")]
    return CliRunner().invoke(main.cli, ["replay", *options, *files])


def conversation() -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """Frames that arrive, and those that a simulator of the same configuration sends, with times."""
    made, _ = segment.simulator()
    arriving, leaving = [], []
    time_ns = START_NS
    for port in range(2000, 2020):
        backend: list[bytes] = []
        for kind in ("S", "answer", "A", "PA", "lost"):
            time_ns += 1_000_001
            frame = {
                "S": segment.to_vip(port, "S"),
                "answer": segment.answer(backend[0]) if backend else b"",
                "A": segment.to_vip(port, "A"),
                "PA": segment.to_vip(port, "PA", b"hello"),
                "lost": segment.frame("10.0.0.1", port, "10.0.0.99", 80, "S"),
            }[kind]
            outcome = made.send(frame)
            arriving.append((time_ns, frame))
            if kind != "lost":
                leaving.append((time_ns, outcome.frame))
            backend = backend or [outcome.frame]
    return arriving, leaving


def test_the_frames_are_the_simulators_in_order_with_their_times(tmp_path: Path) -> None:
    arriving, leaving = conversation()
    write_pcap(tmp_path / "in.pcap", arriving)
    result = replay(tmp_path)
    assert result.exit_code == 0, result.output
    assert read_pcap(tmp_path / "out.pcap") == leaving
    rows = [line.split()[:3] for line in result.output.splitlines()[:5]]
    assert rows == [
        ["REASON", "VERDICT", "FRAMES"],
        ["FORWARD", "forward", "40"],
        ["FORWARD_NEW", "forward", "20"],
        ["REPLY", "forward", "20"],
        ["NOT_OURS", "pass", "20"],
    ]
    assert f"100 frames in, 80 out: {tmp_path / 'out.pcap'}" in result.output


def test_replay_as_json(tmp_path: Path) -> None:
    write_pcap(tmp_path / "in.pcap", conversation()[0][:1])
    answer = json.loads(replay(tmp_path, "--json").output)
    assert (answer["version"], answer["frames"], answer["sent"]) == (1, 1, 1)
    assert [row["reason"] for row in answer["rows"]] == ["FORWARD_NEW"]
    assert answer["mac_addresses"] == [
        {"address": "10.0.0.10", "mac": segment.mac(10), "made_up": False},
        {"address": "10.0.0.2", "mac": "02:00:0a:00:00:02", "made_up": True},
        {"address": "10.0.0.3", "mac": "02:00:0a:00:00:03", "made_up": True},
    ]


def test_unknown_mac_addresses_are_made_up_and_told(tmp_path: Path) -> None:
    write_pcap(tmp_path / "in.pcap", conversation()[0][:1])
    result = replay(tmp_path)
    made = "made up, as the capture does not show them: 10.0.0.2 at 02:00:0a:00:00:02, 10.0.0.3 at"
    assert made in result.output
    ((_, frame),) = read_pcap(tmp_path / "out.pcap")
    sent = packets.parse(frame)
    assert sent.eth_src == segment.mac(10)
    assert sent.eth_dst == made_up(sent.dst).hex(":")
    assert (sent.ip_ok, sent.l4_ok) == (True, True)


def test_mac_addresses_are_learnt_from_senders_receivers_and_arp() -> None:
    def who(*frames: bytes) -> dict[str, str]:
        hosts = Hosts.learn(config.loads(segment.TEXT), frames)
        return {str(address): mac.hex(":") for address, mac in hosts.seen.items()}

    syn = segment.to_vip(1024, "S")
    assert who(syn) == {"10.0.0.10": segment.mac(10)}
    balanced = packets.ethernet(
        segment.mac(2), segment.mac(10), packets.ipv4("10.0.0.10", "10.0.0.2", packets.TCP)
    )
    assert who(balanced) == {"10.0.0.10": segment.mac(10), "10.0.0.2": segment.mac(2)}
    sender = b"\x00\x01\x08\x00\x06\x04\x00\x02" + bytes.fromhex("020000000033")
    arp = sender + IPv4Address("10.0.0.3").packed + bytes(10)
    frame = packets.ethernet("ff:ff:ff:ff:ff:ff", "02:00:00:00:00:33", arp, ethertype=packets.ARP)
    assert who(frame) == {"10.0.0.3": "02:00:00:00:00:33"}
    late = packets.ethernet("02:00:00:00:00:77", segment.mac(3), balanced[14:])
    sent = packets.ethernet(segment.mac(10), segment.mac(2), packets.ipv4("10.0.0.2", "1.1.1.1", 6))
    assert who(late, sent)["10.0.0.2"] == segment.mac(2), "what a host sent counts for more"
    broadcast = packets.ethernet("ff:ff:ff:ff:ff:ff", segment.mac(1), syn[14:])
    assert who(broadcast, b"", b"\x00" * 20) == {}


def test_more_clients_than_a_daemon_has_room_for_neighbours(tmp_path: Path) -> None:
    clients = [f"10.{n >> 8}.{n & 255}.9" for n in range(3000)]
    frames = [
        packets.ethernet(
            segment.mac(10),
            made_up(IPv4Address(client)).hex(":"),
            packets.ipv4(
                client,
                segment.VIP,
                packets.TCP,
                packets.tcp(client, segment.VIP, 5000, segment.PORT, flags="S"),
            ),
        )
        for client in clients
    ]
    read = config.loads(segment.TEXT)
    hosts = Hosts.learn(read, frames)
    assert len(hosts.clients) == 3000
    made = Replay(read, hosts)
    sent: list[Record] = []
    for n, frame in enumerate(frames):
        made.feed(Record(n, frame, len(frame)), sent.append)
    assert len(sent) == 3000
    answers = [segment.answer(record.frame) for record in sent]
    replies: list[Record] = []
    for frame in answers:
        made.feed(Record(3000, frame, len(frame)), replies.append)
    assert len(replies) == 3000
    first = packets.parse(replies[0].frame)
    assert (str(first.dst), first.eth_dst) == (clients[0], "02:00:0a:00:00:09")


@pytest.mark.parametrize("gap_s", [31, 5 * 3600, 40_000, 10**8])
def test_the_captures_time_drives_timeouts(gap_s: int) -> None:
    read = config.loads(segment.TEXT + '[timeouts]\nestablished = "8h"\n')
    syn, ack = segment.to_vip(1024, "S"), segment.to_vip(1024, "A")
    made = Replay(read, Hosts.learn(read, [syn]))
    sent: list[Record] = []
    made.feed(Record(START_NS, syn, len(syn)), sent.append)
    answer = segment.answer(sent[0].frame)
    for frame in (answer, ack):
        made.feed(Record(START_NS, frame, len(frame)), sent.append)
    made.feed(Record(START_NS - 5, ack, len(ack)), sent.append)  # time does not go back
    assert len(sent) == 4
    later = START_NS + gap_s * 10**9
    made.feed(Record(later, ack, len(ack)), sent.append)
    reasons = {reason.name: number for reason, number in made.summary.reasons.items()}
    assert reasons.get("NO_FLOW", 0) == (0 if gap_s < 8 * 3600 else 1)


# --- kinds of files


def pcap(order: str, magic: int, link: int = 1, frames: list[bytes] | None = None) -> bytes:
    head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    records = b"".join(
        struct.pack(f"{order}IIII", 1, 500, len(frame), len(frame)) + frame
        for frame in frames or []
    )
    return head + records


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit_ns"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_all_kinds_of_classic_pcap(tmp_path: Path, order: str, magic: int, unit_ns: int) -> None:
    (tmp_path / "in.pcap").write_bytes(pcap(order, magic, frames=[segment.to_vip(1024, "S")]))
    assert replay(tmp_path).exit_code == 0
    ((time_ns, _),) = read_pcap(tmp_path / "out.pcap")
    assert time_ns == 10**9 + 500 * unit_ns
    assert Reader(tmp_path / "out.pcap").nanoseconds == (unit_ns == 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x0a\x0d\x0d\x0a" + bytes(40), "a pcapng file ({}): convert it: editcap -F pcap IN OUT"),
        (b"\x1f\x8b" + bytes(40), "a compressed file ({}): unpack it with gunzip"),
        (b"hello, this is no capture", "not a pcap file ({}): make one with tcpdump -w FILE"),
        (b"", "not a pcap file ({})"),
        (
            pcap("<", 0xA1B2C3D4, 113),
            "a capture of link type 113 (Linux cooked, from `-i any`) ({})",
        ),
        (pcap(">", 0xA1B23C4D, 147), "a capture of link type 147 (not Ethernet) ({}): capture"),
        (pcap("<", 0xA1B2C3D4) + b"\xff" * 16, "a frame of 4294967295 bytes: the file is damaged"),
    ],
)
def test_other_files_are_told_by_name(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "in.pcap").write_bytes(data)
    result = replay(tmp_path)
    assert result.exit_code == 1
    assert message.format(tmp_path / "in.pcap") in result.stderr


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    result = replay(tmp_path)
    assert (result.exit_code, "cannot be read: No such file" in result.stderr) == (1, True)
    write_pcap(tmp_path / "in.pcap", [])
    (tmp_path / "out.pcap").hardlink_to(tmp_path / "in.pcap")
    result = replay(tmp_path)
    assert (result.exit_code, "OUT.pcap is IN.pcap" in result.stderr) == (1, True)
    (tmp_path / "out.pcap").unlink()
    (tmp_path / "out.pcap").mkdir()
    result = replay(tmp_path)
    assert (result.exit_code, "cannot be written" in result.stderr) == (1, True)
    assert replay(tmp_path, text="[").exit_code == 3


def test_a_file_that_ends_in_the_middle(tmp_path: Path) -> None:
    frames = [segment.to_vip(1024, "S"), segment.to_vip(1025, "S")]
    (tmp_path / "in.pcap").write_bytes(pcap("<", 0xA1B2C3D4, frames=frames)[:-3])
    result = replay(tmp_path)
    assert result.exit_code == 0
    assert "note: the capture ends in the middle of a frame" in result.output
    assert len(read_pcap(tmp_path / "out.pcap")) == 1


def test_notes_on_frames_that_cannot_be_right() -> None:
    read = config.loads(segment.TEXT)
    syn = segment.to_vip(1024, "S")
    made = Replay(read, Hosts.learn(read, [syn]))
    sent: list[Record] = []
    made.feed(Record(0, syn[:40], len(syn)), sent.append)
    made.feed(Record(0, bytes(70_000), 70_000), sent.append)
    made.feed(Record(0, segment.frame("10.0.0.2", 8080, segment.VIP, 5, "SA"), 54), sent.append)
    made.feed(Record(0, b"", 0), sent.append)
    from evener.cli.replay import notes

    told = "\n".join(notes(made.summary, cut=False))
    assert sent == []
    assert "of 1 frame the capture has only the beginning" in told
    assert "1 frame of more than 65,535 bytes left out" in told
    assert "1 frame of backends answer what the simulator sent elsewhere" in told


def test_a_reader_that_fails_is_an_evener_error(tmp_path: Path) -> None:
    with pytest.raises(EvenerError, match="cannot be read: Is a directory"):
        Reader(tmp_path)
