# SPDX-License-Identifier: Apache-2.0
"""The shape of the file: its tables and keys, each with a description, its unit and its default.

Values are parsed by `evener.config.values`; what needs more than one value is in
`evener.config.checks`. The schema is strict (no "8080" for 8080) and knows every key: a key that is
not here is a mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from evener.config import values
from evener.config.values import Endpoint, Finding, Listen, RefusedError, show
from evener.model import (
    FLOWS_MAX,
    FLOWS_MIN,
    MAX_BACKENDS,
    MAX_OWN_ADDRESSES,
    MAX_POOLS,
    MAX_SERVICES,
    MAX_SNAT,
    SCHEDULERS,
    TIMEOUT_MAX_S,
    TIMEOUT_MIN_S,
    WEIGHT_MAX,
    Datapath,
    Driver,
    Mode,
    Timeouts,
)

BACKEND = 'ADDRESS:PORT, or { address = "ADDRESS:PORT", weight = 1, name = "NAME" }'
BACKENDS = f"list of backends, each {BACKEND}; an empty list refuses every client"
INTERFACES = "list of at least one interface name"
EAL = "list of arguments that name at least one device: --vdev=... or -a ..."


def _string(**keywords: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **keywords})


Name = Annotated[str, PlainValidator(values.name), _string(pattern=f"^{values.NAME_PATTERN}$")]
Interface = Annotated[str, PlainValidator(values.interface), _string(minLength=1, maxLength=15)]
EalArgument = Annotated[str, PlainValidator(values.eal_argument), _string(minLength=1)]
Address4 = Annotated[IPv4Address, PlainValidator(values.address), _string(format="ipv4")]
EndpointText = Annotated[
    Endpoint, PlainValidator(values.endpoint), _string(examples=["10.0.0.2:8080"])
]
ListenText = Annotated[
    Listen, PlainValidator(values.listen), _string(examples=["10.0.0.10:8080/tcp"])
]
PoolName = Annotated[str, PlainValidator(values.pool_name), _string()]
DriverName = Annotated[
    Driver, PlainValidator(values.driver), _string(enum=list(values.AVAILABLE_DRIVERS))
]
ModeName = Annotated[Mode, PlainValidator(values.mode), _string(enum=list(values.AVAILABLE_MODES))]
SchedulerName = Annotated[str, PlainValidator(values.scheduler), _string(enum=list(SCHEDULERS))]
Weight = Annotated[
    int,
    PlainValidator(values.weight),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": WEIGHT_MAX}),
]
Flows = Annotated[
    int,
    PlainValidator(values.flows),
    WithJsonSchema({"type": "integer", "minimum": FLOWS_MIN, "maximum": FLOWS_MAX}),
]
_SECONDS = {"type": "integer", "minimum": TIMEOUT_MIN_S, "maximum": TIMEOUT_MAX_S}
Duration = Annotated[
    int,
    PlainValidator(values.duration),
    WithJsonSchema(
        {"anyOf": [_SECONDS, {"type": "string", "pattern": f"^{values.DURATION_PATTERN}$"}]}
    ),
]


def _key(
    allowed: str,
    description: str,
    default: Any = ...,
    default_factory: Callable[[], Any] | None = None,
    **schema: Any,
) -> Any:
    """A key of a table; default ... means that it must be given. x-allowed is for people."""
    extra = {"x-allowed": allowed, **schema}
    if default_factory is not None:
        return Field(
            default_factory=default_factory, description=description, json_schema_extra=extra
        )
    return Field(default, description=description, json_schema_extra=extra)


class Table(BaseModel):
    """What all tables share: no conversion between types, no unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


_FLOWS = Datapath(Driver.XDP, ()).flows
_DEFAULTS = Timeouts()


class DatapathTable(Table):
    """Where packets are handled, and by what."""

    driver: DriverName = _key(
        values.DRIVER,
        "What runs the packets: xdp (inside the kernel), dpdk (a process of its own, over DPDK's "
        "devices) or sim (the same core inside the daemon, for replaying captures). Default: xdp.",
        Driver.XDP,
    )
    interfaces: list[Interface] = _key(
        INTERFACES,
        "Network interfaces to attach to, and no others. With dpdk they are TAP devices, one for each "
        "of DPDK's devices and in their order: by them the kernel has the packets that are its own. "
        "One that does not exist is made. Must be given unless the driver is sim.",
        [],
        uniqueItems=True,
    )
    eal: list[EalArgument] = _key(
        EAL,
        'Arguments of DPDK\'s EAL, and behind "--" those of the worker (--netns=PATH, --idle-us=N). '
        "What they leave open is set so that only what they name is touched: -l 0, --no-huge with "
        "enough memory (-m), --no-pci, --no-telemetry, --no-shconf. Must be given if the driver is dpdk, "
        "and only then.",
        [],
    )
    flows: Flows = _key(
        values.FLOWS,
        "Capacity of the flow table, in flows; the daemon prints the memory that it takes. "
        f"Default: {_FLOWS}.",
        _FLOWS,
    )


class BackendTable(Table):
    """A machine and port that serves. The string "ADDRESS:PORT" is short for { address = … }."""

    model_config = ConfigDict(
        json_schema_extra=lambda schema: _or_string(schema, ["10.0.0.2:8080"])
    )

    address: EndpointText = _key(
        values.ENDPOINT, "IPv4 address and port of the backend. Must be given."
    )
    weight: Weight = _key(
        values.WEIGHT,
        "Share of new flows, relative to the other backends of the pool; no unit, "
        "0 means no new flows. Default: 1.",
        1,
    )
    name: Name | None = _key(
        values.NAME,
        "How commands and metrics call the backend; unique in its pool. Default: ADDRESS:PORT.",
        None,
    )

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: object) -> object:
        if isinstance(value, str):
            return {"address": value}
        if isinstance(value, dict):
            return value
        raise RefusedError(Finding(f"{show(value)} is not a backend", BACKEND))


class PoolTable(Table):
    """A named group of backends that services share."""

    scheduler: SchedulerName = _key(
        values.SCHEDULER,
        "How the backend of a new flow is chosen. Default: maglev (consistent hashing of the "
        "5-tuple: a change of the pool moves few flows).",
        SCHEDULERS[0],
    )
    backends: list[BackendTable] = _key(
        BACKENDS,
        "The backends of the pool; an empty list refuses every client. Must be given.",
    )


class ServiceTable(Table):
    """An address, port and protocol that clients use (IPVS: virtual service)."""

    listen: ListenText = _key(
        values.LISTEN, "VIP, port and protocol that clients use. Must be given; unique."
    )
    pool: PoolName = _key(
        "name of a pool of this file", "Name of the pool that serves. Must be given."
    )
    mode: ModeName = _key(
        values.MODE,
        "How packets reach the backend: full-nat translates both addresses, so that replies come "
        "back through the balancer from any network. Default: full-nat.",
        Mode.FULL_NAT,
    )
    snat: list[Address4] | None = _key(
        f"list of 1 to {MAX_SNAT} different addresses, each {values.ADDRESS}",
        f"Source addresses that backends see, at most {MAX_SNAT}; more addresses "
        "have room for more flows at a time. Default: the VIP alone.",
        None,
        minItems=1,
        maxItems=MAX_SNAT,
        uniqueItems=True,
    )


class TimeoutsTable(Table):
    """After how long without a packet a TCP flow is forgotten: seconds, or "30s", "15m", "8h"."""

    syn: Duration = _key(
        values.DURATION,
        f"Not yet answered and acknowledged; seconds. Default: {_DEFAULTS.syn}.",
        _DEFAULTS.syn,
    )
    established: Duration = _key(
        values.DURATION,
        f"Open in both directions; seconds. Default: {_DEFAULTS.established}.",
        _DEFAULTS.established,
    )
    fin: Duration = _key(
        values.DURATION, f"One side has closed; seconds. Default: {_DEFAULTS.fin}.", _DEFAULTS.fin
    )
    closed: Duration = _key(
        values.DURATION,
        "Both sides have closed or a reset was seen, and the SNAT port is not given to others; "
        f"seconds. Default: {_DEFAULTS.closed}.",
        _DEFAULTS.closed,
    )


_NO_OTHERS: dict[str, Any] = {"additionalProperties": False}


class File(Table):
    """A configuration of evener."""

    datapath: DatapathTable = _key(
        "table [datapath]", "Where packets are handled.", default_factory=DatapathTable
    )
    pool: dict[Name, PoolTable] = _key(
        "tables [pool.NAME]",
        f"Pools of backends, by name: at most {MAX_POOLS} pools, {MAX_BACKENDS} backends in all "
        "of them. Default: none.",
        {},
        **_NO_OTHERS,
    )
    service: dict[Name, ServiceTable] = _key(
        "tables [service.NAME]",
        f"Services, by name: at most {MAX_SERVICES}, on at most {MAX_OWN_ADDRESSES} different VIPs "
        "and SNAT addresses. Default: none.",
        {},
        **_NO_OTHERS,
    )
    timeouts: TimeoutsTable = _key(
        "table [timeouts]", "Idle timeouts of TCP flows.", default_factory=TimeoutsTable
    )


def _or_string(schema: dict[str, Any], examples: list[str]) -> None:
    """Let a table also be written as a string, in the published schema."""
    table = {key: schema.pop(key) for key in list(schema) if key not in {"title", "description"}}
    schema["anyOf"] = [{"type": "string", "examples": examples}, table]


def _without_null(node: Any) -> Any:
    """The schema without the null that Python writes for "not given": TOML has no such value."""
    if isinstance(node, list):
        return [_without_null(item) for item in node if item != {"type": "null"}]
    if not isinstance(node, dict):
        return node
    kept = {
        key: _without_null(item) for key, item in node.items() if (key, item) != ("default", None)
    }
    alternatives = kept.get("anyOf")
    if isinstance(alternatives, list) and len(alternatives) == 1:
        return {**alternatives[0], **{key: item for key, item in kept.items() if key != "anyOf"}}
    return kept


def json_schema() -> dict[str, Any]:
    """The file's JSON Schema (2020-12): for editors, and the source of the reference.

    Every key has a description with its unit and default, and x-allowed, the words of the errors.
    """
    schema = _without_null(File.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
