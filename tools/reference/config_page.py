# SPDX-License-Identifier: Apache-2.0
"""config.md: every table and key of the configuration file, from its schema."""

from __future__ import annotations

import re
from typing import Any

from evener import config
from reference import text

EXAMPLE = """\
[datapath]
driver = "xdp"
interfaces = ["eth0"]
flows = 1_000_000

[pool.web]
scheduler = "maglev"
backends = [
  "10.0.0.2:8080",
  { address = "10.0.0.3:8080", weight = 2, name = "h3" },
]

[service.web]
listen = "10.0.0.10:8080/tcp"
pool = "web"
mode = "full-nat"
snat = ["10.0.0.10", "10.0.0.11"]

[timeouts]
syn = 30
established = "15m"
fin = "5m"
closed = 60
"""
"""A file that says everything there is to say but what is below; every key has to be in one of them."""

DPDK_EXAMPLE = """\
[datapath]
driver = "dpdk"
interfaces = ["tap0"]
eal = ["-l", "1", "--vdev=net_af_packet0,iface=eth1", "--", "--idle-us=50"]
"""

INTRODUCTION = """
The configuration is a TOML file. `evener check FILE` reads one and reports everything that is wrong with it, each
mistake with its line, the path of the key, and what is allowed. A key that is not on this page is a mistake. A file is
put in force whole or not at all.

A file in which every key of the driver `xdp` occurs:
"""

DPDK = """
With the driver `dpdk` the first table says which devices packets come from (`eal`), and by which TAP devices the kernel
has those that are its own (`interfaces`): put the balancer's addresses and routes on these. One that is to keep its
addresses while evener does not run is made beforehand, with `ip tuntap add dev tap0 mode tap multi_queue`:
"""

LIVE = """
`evener apply FILE`, or SIGHUP to the daemon, which then reads its own file again, changes everything while packets pass,
but for `datapath.driver`, `datapath.eal`, `datapath.flows`, and with DPDK `datapath.interfaces`: those need a restart of
the daemon, and with another `flows` the flows of before are lost.
"""

TABLES = (
    ("`[datapath]`", "DatapathTable", "datapath."),
    ("`[pool.NAME]`", "PoolTable", "pool.NAME."),
    ("Backends of a pool", "BackendTable", "pool.NAME.backends[]."),
    ("`[service.NAME]`", "ServiceTable", "service.NAME."),
    ("`[timeouts]`", "TimeoutsTable", "timeouts."),
)
TYPES = {"integer": "whole number", "string": "string", "array": "list"}
DEFAULT = re.compile(r"^(?P<what>.*?) (?P<default>(?:Default: |Must be given).*)$", re.S)


def write() -> str:
    """The page. SystemExit if a table of the schema is missing here, or a key in the example."""
    schema = config.json_schema()
    config.loads(EXAMPLE, "the example")
    if unknown := schema["$defs"].keys() - {name for _, name, _ in TABLES}:
        raise SystemExit(f"config.md: no section for {', '.join(sorted(unknown))}")
    config.loads(DPDK_EXAMPLE, "the example with DPDK")
    parts = [INTRODUCTION, text.block(EXAMPLE, "toml"), DPDK, text.block(DPDK_EXAMPLE, "toml")]
    parts += [LIVE, _contents(schema)]
    for title, name, prefix in TABLES:
        table = schema["$defs"][name]
        parts += [f"## {title}", table["description"]]
        if of := _of(schema, prefix):
            parts.append(of)
        parts += [_key(prefix, key, value) for key, value in properties(table).items()]
    return text.page("Configuration file", *parts)


def _of(schema: dict[str, Any], prefix: str) -> str:
    """What the file as a whole says of a table."""
    found = schema["properties"].get(prefix.partition(".")[0], {})
    return str(found.get("description", "")) if prefix.count(".") == 2 and "[" not in prefix else ""


def keys() -> list[str]:
    """The path of every key."""
    defs = config.json_schema()["$defs"]
    return [prefix + key for _, name, prefix in TABLES for key in properties(defs[name])]


def properties(table: dict[str, Any]) -> dict[str, Any]:
    """The keys of a table of the schema, also of one that may be written as a string."""
    if "anyOf" in table:
        table = next(choice for choice in table["anyOf"] if choice["type"] == "object")
    found: dict[str, Any] = table["properties"]
    return found


def _contents(schema: dict[str, Any]) -> str:
    rows = []
    for title, name, prefix in TABLES:
        links = (
            f"[`{key}`](#{text.anchor(prefix + key)})" for key in properties(schema["$defs"][name])
        )
        rows.append([f"[{title}](#{text.anchor(title)})", ", ".join(links)])
    return text.table(["table", "keys"], rows)


def _key(prefix: str, key: str, value: dict[str, Any]) -> str:
    match = DEFAULT.match(value["description"])
    if match is None:
        raise SystemExit(f"config.md: the description of {prefix}{key} does not say its default")
    facts = [
        f"- type: {_type(value)}",
        f"- allowed: {value['x-allowed']}",
        f"- {match['default'][0].lower()}{match['default'][1:].rstrip('.')}",
        f"- example: {text.code(_example(prefix, key))}",
    ]
    return f"### `{prefix}{key}`\n\n{match['what']}\n\n" + "\n".join(facts)


def _type(value: dict[str, Any]) -> str:
    choices = value.get("anyOf", [value])
    return " or ".join(TYPES[choice["type"]] for choice in choices)


def _example(prefix: str, key: str) -> str:
    """The example's words for a key."""
    if prefix.endswith("[]."):
        found = re.search(rf'\b{key} = ("[^"]*"|\d+)', EXAMPLE)
    else:
        table = prefix.rstrip(".").replace("NAME", "web")
        pattern = rf"^{key} = (?:\[\n.*?^\]|.*?$)"
        bodies = (
            e.partition(f"[{table}]\n")[2].partition("\n\n")[0] for e in (EXAMPLE, DPDK_EXAMPLE)
        )
        found = next(filter(None, (re.search(pattern, b, re.S | re.M) for b in bodies)), None)
    if found is None:
        raise SystemExit(f"config.md: the example does not set {prefix}{key}")
    return re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(", ]", "]")
