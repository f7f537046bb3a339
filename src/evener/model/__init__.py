# SPDX-License-Identifier: Apache-2.0
"""What is balanced, as plain frozen values: no validation, no I/O, no knowledge of the file."""

from evener.model.limits import (
    FLOWS_MAX,
    FLOWS_MIN,
    MAX_BACKENDS,
    MAX_OWN_ADDRESSES,
    MAX_POOLS,
    MAX_SERVICES,
    MAX_SNAT,
    TIMEOUT_MAX_S,
    TIMEOUT_MIN_S,
    WEIGHT_MAX,
)
from evener.model.types import (
    SCHEDULERS,
    Address,
    Backend,
    Config,
    Datapath,
    Driver,
    Mode,
    Pool,
    Protocol,
    Service,
    Timeouts,
    endpoint,
)

__all__ = [
    "FLOWS_MAX",
    "FLOWS_MIN",
    "MAX_BACKENDS",
    "MAX_OWN_ADDRESSES",
    "MAX_POOLS",
    "MAX_SERVICES",
    "MAX_SNAT",
    "SCHEDULERS",
    "TIMEOUT_MAX_S",
    "TIMEOUT_MIN_S",
    "WEIGHT_MAX",
    "Address",
    "Backend",
    "Config",
    "Datapath",
    "Driver",
    "Mode",
    "Pool",
    "Protocol",
    "Service",
    "Timeouts",
    "endpoint",
]
