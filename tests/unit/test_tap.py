# SPDX-License-Identifier: Apache-2.0
"""TAP devices, in a network namespace that is gone with the test's thread."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from collections.abc import Callable
from typing import TypeAlias

import pytest

from evener import netns
from evener.datapath.tap import Tap
from evener.errors import InterfaceError
from tests.support.bpf import needs_namespaces

pytestmark = [pytest.mark.netns, needs_namespaces]

FRAME = b"\xff" * 6 + b"\x02" + bytes(5) + b"\x88\xb5" + bytes(50)  # an EtherType for experiments
Inside: TypeAlias = Callable[[Callable[[], None]], None]


@pytest.fixture
def inside() -> Inside:
    def run(test: Callable[[], None]) -> None:
        def work() -> None:
            if netns.libc.unshare(netns.CLONE_NEWNET) != 0:
                raise netns.os_error("unshare")
            test()

        netns.in_thread(work)

    return run


def test_made_up_and_gone_with_its_last_queue(inside: Inside) -> None:
    def test() -> None:
        first = Tap.open("tap0")
        assert first.is_current()
        assert first.ifindex == socket.if_nametoindex("tap0")
        told = subprocess.run(["ip", "link", "show", "tap0"], capture_output=True, text=True).stdout
        assert "UP" in told
        second = Tap.open("tap0")
        second.detach()
        first.close()
        assert second.is_current()
        second.close()
        assert not second.is_current()

    inside(test)


def test_a_name_that_is_too_long(inside: Inside) -> None:
    def test() -> None:
        with pytest.raises(InterfaceError, match=r"at most 15 characters \(sixteen_letters_\)"):
            Tap.open("sixteen_letters_")
        assert socket.if_nameindex() == [(1, "lo")]

    inside(test)


def test_by_its_number(inside: Inside) -> None:
    def test() -> None:
        first = Tap.open("tap0")
        second = Tap.numbered(first.ifindex)
        assert second is not None
        assert (second.name, second.ifindex) == ("tap0", first.ifindex)
        for tap in (first, second):
            tap.close()
        assert Tap.numbered(first.ifindex) is None
        assert Tap.numbered(socket.if_nametoindex("lo")) is None  # it is no TAP

    inside(test)


def test_a_detached_queue_gets_no_frames_until_it_is_attached(
    inside: Inside,
) -> None:
    def test() -> None:
        first, second = Tap.open("tap0"), Tap.open("tap0")
        second.detach()
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("tap0", 0))

            def send() -> list[int]:
                for n in range(16):
                    wire.send(FRAME[:-1] + bytes([n]))
                return [count(tap) for tap in (first, second)]

            assert send() == [16, 0]
            second.attach()
            second.attach()  # of one that is attached: nothing
            first.detach()
            assert send() == [0, 16]

    def count(tap: Tap) -> int:
        found = 0
        while select.select([tap], [], [], 0.05)[0]:
            found += os.read(tap.fileno(), 2048)[12:14] == b"\x88\xb5"
        return found

    inside(test)


def test_a_device_that_is_made_anew_is_another(
    inside: Inside,
) -> None:
    def test() -> None:
        tap = Tap.open("tap0")
        subprocess.run(["ip", "link", "del", "tap0"], check=True)
        assert not tap.is_current()
        again = Tap.open("tap0")
        assert again.is_current()
        assert not tap.is_current()

    inside(test)


@pytest.mark.parametrize(
    "made",
    [
        "link add x0 type veth peer name x1",
        "tuntap add dev x0 mode tap",
        "tuntap add dev x0 mode tun",
    ],
)
def test_other_devices_are_refused(inside: Inside, made: str) -> None:
    def test() -> None:
        subprocess.run(["ip", *made.split()], check=True)
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        with pytest.raises(InterfaceError, match=r"x0.*ip tuntap add dev x0 mode tap multi_queue"):
            Tap.open("x0")
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    inside(test)
