# SPDX-License-Identifier: Apache-2.0
"""How much one balancer holds: the configuration refuses more, the tables have room for this."""

from typing import Final

MAX_SERVICES: Final = 1_000
"""Services in one configuration."""
MAX_POOLS: Final = 256
"""Pools in one configuration: each costs two copies of a compiled table, 256 KiB."""
MAX_BACKENDS: Final = 4_000
"""Backends in all pools together; a backend that stands in two pools counts twice."""
MAX_SNAT: Final = 16
"""Source addresses of one service."""
MAX_OWN_ADDRESSES: Final = 255
"""Distinct VIPs and SNAT addresses in all services (a flow remembers an id of 8 bits)."""
WEIGHT_MAX: Final = 65_535
"""Largest weight of a backend; 0 means no new flows."""
FLOWS_MIN: Final = 1_024
"""Smallest capacity of the flow table, in flows."""
FLOWS_MAX: Final = 100_000_000
"""Largest capacity of the flow table, in flows."""
TIMEOUT_MIN_S: Final = 1
"""Shortest timeout, in seconds."""
TIMEOUT_MAX_S: Final = 8 * 3_600
"""Longest timeout, in seconds."""
