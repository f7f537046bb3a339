# SPDX-License-Identifier: Apache-2.0
"""Configuration files that several tests read."""

FULL = """\
[datapath]
driver = "xdp"
interfaces = ["eth1", "eth2"]
flows = 2_000_000

[pool.web]
scheduler = "maglev"
backends = [
  "10.0.0.2:8080",
  { address = "10.0.0.3:8080", weight = 2, name = "h3" },
]

[pool.empty]
backends = []

[service.web]
listen = "10.0.0.10:8080/tcp"
pool = "web"
mode = "full-nat"
snat = ["10.0.0.11", "10.0.0.12"]

[service.short]
listen = "10.0.0.10:81/tcp"
pool = "empty"

[timeouts]
syn = 20
established = "15m"
fin = "90s"
closed = "8h"
"""

WRONG = """\
[datapath]
driver = "ipvs"
interfaces = [""]
flows = 1000

[pool.web]
scheduler = "rr"
check = { type = "tcp" }
backends = [
  "10.0.0.2:70000",
  { address = "10.0.0.3:8080", weight = -1 },
]

[service.web]
listen = "[2001:db8::10]:53/udp"
pool = "wbe"
mode = "dsr"
"""
