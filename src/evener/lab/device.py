# SPDX-License-Identifier: Apache-2.0
"""What joins the lab's balancer to the bridge when DPDK handles the packets. One more is one entry more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Device:
    """A driver of DPDK's, and the interface that it opens; XDP has no need of it.

    host: in whose namespace the interface is, lb or sw. cable: it is the end of a veth whose other end is
    the bridge's port `lb`; otherwise it is a TAP and itself the port. options: DPDK's, beyond the interface.
    """

    name: str
    interface: str
    host: str
    cable: bool
    options: str = ""

    @property
    def argument(self) -> str:
        """DPDK's argument for it."""
        return f"--vdev={self.name}0,iface={self.interface}{self.options}"


DEVICES: Final = {
    device.name: device
    for device in (
        Device("net_tap", "tapdpdk", "sw", cable=False),
        # The cables do not end on lb: its kernel would answer ARP requests for the VIP with the MAC address
        # of wire0, and refuse the connections. It has each frame, too, where a packet socket only copies,
        # and all of them while no worker has opened the interface for AF_XDP.
        Device("net_af_xdp", "wire0", "sw", cable=True),
        # 4,096 frames in its ring, not 512: as many as a busy machine leaves there in some 50 ms.
        Device("net_af_packet", "wire0", "sw", cable=True, options=",framecnt=4096"),
    )
}
DEFAULT: Final = DEVICES["net_tap"]
