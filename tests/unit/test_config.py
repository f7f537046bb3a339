# SPDX-License-Identifier: Apache-2.0
"""The configuration: what a right file becomes, and that a wrong one is explained in one go."""

import textwrap
import tomllib
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from evener import config, model
from evener.errors import ConfigError, Problem, ProblemKind
from tests.support.configs import FULL, WRONG


def wrong(text: str) -> list[Problem]:
    """The problems of a text that must be refused."""
    with pytest.raises(ConfigError) as caught:
        config.loads(textwrap.dedent(text))
    return caught.value.problems


def one(text: str) -> tuple[int, str, str, str]:
    """Line, key, message and allowed of the only problem."""
    (problem,) = wrong(text)
    return problem.line, problem.path, problem.message, problem.allowed


def minimal(*lines: str, pool: str = 'backends = ["10.0.0.2:80"]', datapath: str = "") -> str:
    """A right file of nine lines; `lines` are appended to its service, which ends at line 9."""
    head = ["[datapath]", 'interfaces = ["eth1"]', datapath, "[pool.web]", pool, "[service.web]"]
    return "\n".join([*head, 'listen = "10.0.0.10:80/tcp"', 'pool = "web"', "", *lines])


# --- right files


def test_a_full_file() -> None:
    read = config.loads(FULL)
    vip = IPv4Address("10.0.0.10")
    tcp, full_nat = model.Protocol.TCP, model.Mode.FULL_NAT
    snat = (IPv4Address("10.0.0.11"), IPv4Address("10.0.0.12"))
    assert read == model.Config(
        datapath=model.Datapath(model.Driver.XDP, ("eth1", "eth2"), 2_000_000),
        pools=(
            model.Pool(
                "web",
                "maglev",
                (
                    model.Backend("10.0.0.2:8080", IPv4Address("10.0.0.2"), 8080, 1),
                    model.Backend("h3", IPv4Address("10.0.0.3"), 8080, 2),
                ),
            ),
            model.Pool("empty", "maglev", ()),
        ),
        services=(
            model.Service("web", vip, 8080, tcp, "web", full_nat, snat),
            model.Service("short", vip, 81, tcp, "empty", full_nat, (vip,)),
        ),
        timeouts=model.Timeouts(syn=20, established=900, fin=90, closed=28_800),
    )


def test_defaults_and_windows_line_ends() -> None:
    read = config.loads(minimal().replace("\n", "\r\n"))
    assert read.datapath == model.Datapath(model.Driver.XDP, ("eth1",))
    assert read.timeouts == model.Timeouts()
    assert read.pool("web").scheduler == "maglev"
    assert read.service("web").snat == (IPv4Address("10.0.0.10"),)


def test_the_simulator_needs_no_interface() -> None:
    assert config.loads('[datapath]\ndriver = "sim"\n').datapath.interfaces == ()


def test_a_name_with_a_dot_and_a_backend_in_two_pools() -> None:
    read = config.loads(minimal('[pool."web.v2"]', 'backends = ["10.0.0.2:80"]'))
    assert read.pool("web.v2").backends == read.pool("web").backends


# --- all at once


def test_ten_mistakes_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "lb.toml"
    path.write_text(WRONG)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert caught.value.exit_code == 3
    interface = "name of a network interface, 1 to 15 characters without / : and spaces"
    later = "is not available in this version; available"
    expected = [
        '2: datapath.driver: "ipvs" is not a driver; allowed: xdp, dpdk, sim',
        f'3: datapath.interfaces[0]: "" is not the name of an interface; allowed: {interface}',
        "4: datapath.flows: 1000 is not a number of flows; allowed: whole number 1024..100000000",
        f'7: pool.web.scheduler: scheduler "rr" {later}: maglev',
        f'8: pool.web.check: "check" (health checks) {later}: scheduler, backends',
        '10: pool.web.backends[0]: "70000" is not a port; allowed: 1..65535',
        "11: pool.web.backends[1].weight: -1 is not a weight; allowed: whole number 0..65535",
        f'15: service.web.listen: protocol "udp" {later}: tcp',
        f'15: service.web.listen: IPv6 address "2001:db8::10" {later}: IPv4',
        '16: service.web.pool: there is no pool "wbe", did you mean "web"?; allowed: web',
        f'17: service.web.mode: mode "dsr" {later}: full-nat',
    ]
    headline, *lines = str(caught.value).splitlines()
    assert headline == f"11 problems in the configuration ({path}):"
    assert lines == [f"  {path}:{line}" for line in expected]
    kinds = [problem.kind for problem in caught.value.problems]
    assert kinds.count(ProblemKind.UNAVAILABLE) == 5


# --- single values

ENDPOINT = "ADDRESS:PORT, such as 10.0.0.2:8080"
ADDRESS = "IPv4 address of one host, such as 10.0.0.10"


@pytest.mark.parametrize(
    ("text", "message", "allowed"),
    [
        ("10.0.0.2:0", '"0" is not a port', "1..65535"),
        ("10.0.0.2:65536", '"65536" is not a port', "1..65535"),
        ("10.0.0.2:080", '"080" is not a port', "1..65535"),
        ("10.0.0.2:٨٠", '"٨٠" is not a port', "1..65535"),
        ("10.0.0.2:", '"" is not a port', "1..65535"),
        ("10.0.0.2", '"10.0.0.2" has no port', ENDPOINT),
        ("10.0.0.256:80", '"10.0.0.256" is not an IPv4 address', ADDRESS),
        ("010.0.0.2:80", '"010.0.0.2" is not an IPv4 address', ADDRESS),
        ("web1:80", '"web1" is not an IPv4 address', ADDRESS),
        (":80", '"" is not an IPv4 address', ADDRESS),
        ("[10.0.0.2]:80", '"[10.0.0.2]" is not an IPv4 address', ADDRESS),
        ("0.0.0.0:80", "0.0.0.0 cannot be the address of one host", ADDRESS),
        ("127.0.0.1:80", "127.0.0.1 cannot be the address of one host", ADDRESS),
        ("224.0.0.1:80", "224.0.0.1 cannot be the address of one host", ADDRESS),
        ("255.255.255.255:80", "255.255.255.255 cannot be the address of one host", ADDRESS),
        ("a:b:c", '"a:b:c" is not an address with a port', ENDPOINT),
        ("2001:db8::1", 'IPv6 address "2001:db8::1" is not available in this version', "IPv4"),
        ("[2001:db8::1]:80", 'IPv6 address "2001:db8::1" is not available in this version', "IPv4"),
    ],
)
def test_backend_addresses(text: str, message: str, allowed: str) -> None:
    problem = one(minimal(pool=f'backends = ["{text}"]'))
    assert problem == (5, "pool.web.backends[0]", message, allowed)
    problem = one(minimal(pool=f'backends = [{{ address = "{text}" }}]'))
    assert problem == (5, "pool.web.backends[0].address", message, allowed)


@pytest.mark.parametrize(
    ("listen", "message"),
    [
        ("10.0.0.10:81", '"10.0.0.10:81" does not name its protocol'),
        ("10.0.0.10:81/udp", 'protocol "udp" is not available in this version'),
        ("10.0.0.10:81/TCP", '"TCP" is not a protocol'),
        ("10.0.0.10/tcp", '"10.0.0.10" has no port'),
        ("10.0.0.10:0/tcp", '"0" is not a port'),
    ],
)
def test_listen(listen: str, message: str) -> None:
    service = f'[service.b]\nlisten = "{listen}"\npool = "web"'
    assert one(minimal(service))[:3] == (11, "service.b.listen", message)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0", "0 is too short"),
        ('"0s"', '"0s" is not a duration'),
        ("28801", "28801 is too long"),
        ('"9h"', '"9h" is too long'),
        ('"500ms"', '"500ms" is not a duration'),
        ('"30"', '"30" is not a duration'),
        ("1.5", "1.5 is not a duration"),
        ("true", "true is not a duration"),
        ("1979-05-27", "1979-05-27 is not a duration"),
        ("0x" + "f" * 5000, "a huge number is too long"),
    ],
)
def test_durations(value: str, message: str) -> None:
    line, path, found, allowed = one(minimal("[timeouts]", f"fin = {value}"))
    assert (line, path, found) == (11, "timeouts.fin", message)
    assert allowed == '1 s to 8 h, as seconds (30) or with a unit ("30s", "15m", "8h")'


@pytest.mark.parametrize("weight", ["-1", "65536", "1.0", '"1"', "true", "[]", "nan"])
def test_weights(weight: str) -> None:
    text = minimal(pool=f'backends = [{{ address = "10.0.0.2:80", weight = {weight} }}]')
    assert one(text)[1] == "pool.web.backends[0].weight"


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 65, "a\\n", "[key]"])
def test_names_of_everything(name: str) -> None:
    backend = f'backends = [{{ address = "10.0.0.2:80", name = "{name}" }}]'
    assert one(minimal(pool=backend))[1] == "pool.web.backends[0].name"
    line, path, message, allowed = one(minimal(f'[pool."{name}"]', "backends = []"))
    assert (line, allowed) == (10, "1 to 64 characters of A-Z a-z 0-9 . _ -")
    assert path.startswith("pool.")
    assert message.endswith("is not a name")


@pytest.mark.parametrize("name", ["", ".", "a/b", "a b", "a:b", "x" * 16, "a\\u0000"])
def test_interfaces(name: str) -> None:
    text = f'[datapath]\ninterfaces = ["eth1", "{name}"]'
    assert one(text)[:2] == (2, "datapath.interfaces[1]")


@pytest.mark.parametrize("flows", ["1023", "100000001", "1e6", '"1000000"'])
def test_flows(flows: str) -> None:
    assert one(minimal(datapath=f"flows = {flows}"))[:2] == (3, "datapath.flows")


DEVICES = "list of arguments that name at least one device: --vdev=... or -a ..."


@pytest.mark.parametrize(
    ("eal", "message"),
    [
        ("", "is missing: no device that packets come from"),
        ("eal = []", "is empty: no device that packets come from"),
        ('eal = ["-l", "0"]', "names no device that packets come from"),
        ('eal = ["--", "--vdev=net_null0"]', "names no device that packets come from"),
    ],
)
def test_dpdk_needs_a_device(eal: str, message: str) -> None:
    problem = one(minimal(datapath=f'driver = "dpdk"\n{eal}'))
    assert problem[1:] == ("datapath.eal", message, DEVICES)


@pytest.mark.parametrize(
    "eal",
    ['"--vdev=net_tap0"', '"--vdev", "net_tap0"', '"-a", "0000:00:04.0"', '"--allow=4.0", "--"'],
)
def test_arguments_of_dpdk(eal: str) -> None:
    found = config.loads(minimal(datapath=f'driver = "dpdk"\neal = [{eal}]')).datapath
    assert (found.driver, list(found.eal)) == (
        model.Driver.DPDK,
        tomllib.loads(f"x = [{eal}]")["x"],
    )


def test_arguments_of_dpdk_are_nothing_to_other_drivers() -> None:
    assert one(minimal(datapath='eal = ["-l", "0"]')) == (
        3,
        "datapath.eal",
        "means nothing to driver xdp",
        'driver = "dpdk"',
    )
    twice = [
        p.path for p in wrong(minimal(datapath='driver = "dpdk"\neal = ["-a", "", "b\\u0000"]'))
    ]
    assert twice == ["datapath.eal[1]", "datapath.eal[2]"]


# --- keys and shapes


def test_unknown_keys_name_the_nearest_and_all() -> None:
    assert one(minimal("snatt = []")) == (
        10,
        "service.web.snatt",
        'unknown key "snatt", did you mean "snat"?',
        "listen, pool, mode, snat",
    )
    assert one(minimal("[pol.x]"))[1:3] == ("pol", 'unknown key "pol", did you mean "pool"?')
    problems = wrong(minimal("[pool.web.v2]", "backends = []"))
    assert (
        problems[0].message == 'unknown key "v2"; a name with a dot needs quotes, [pool."web.v2"]'
    )
    port = minimal(pool='backends = [{ address = "10.0.0.2:80", port = 80 }]')
    assert one(port)[1:] == (
        "pool.web.backends[0].port",
        'unknown key "port"',
        "address, weight, name",
    )


def test_keys_of_later_versions() -> None:
    later = "is not available in this version"
    assert one(minimal("[pool.b]", "check = 1", "backends = []"))[:3] == (
        11,
        "pool.b.check",
        f'"check" (health checks) {later}',
    )


@pytest.mark.parametrize(
    ("text", "path", "message", "line"),
    [
        ("[pool.b]", "pool.b.backends", "is missing", 10),
        ("[pool.b]\nbackends = 3", "pool.b.backends", "3 is not a list", 11),
        ("[pool.b]\nbackends = [\n3]", "pool.b.backends[0]", "3 is not a backend", 12),
        ("[pool.b]\nbackends = [{}]", "pool.b.backends[0].address", "is missing", 11),
        ("[[pool.b]]", "pool.b", "a list is not a table", 10),
        ("[[timeouts]]", "timeouts", "a list is not a table", 10),
        ("snat = 3", "service.web.snat", "3 is not a list", 10),
        ("[service.b]\npool = 'web'", "service.b.listen", "is missing", 10),
    ],
)
def test_shapes(text: str, path: str, message: str, line: int) -> None:
    found = one(minimal(text))
    assert found[:3] == (line, path, message)
    assert found[3]


def test_top_level_shapes() -> None:
    assert [p.path for p in wrong("datapath = 1\npool = 2\nservice = []\ntimeouts = 'x'")] == [
        "datapath",
        "datapath.interfaces",
        "pool",
        "service",
        "timeouts",
    ]
    assert one("")[:3] == (1, "datapath.interfaces", "is missing: nothing to attach to")


# --- more than one value


def test_pool_references() -> None:
    none = '[datapath]\ninterfaces = ["e"]\n[service.a]\nlisten = "10.0.0.1:1/tcp"\npool = "x"'
    assert one(none)[2:] == (
        'there is no pool "x"',
        "name of a pool; this file has none, add [pool.NAME]",
    )
    broken = minimal("[service.b]", 'listen = "10.0.0.10:81/tcp"', 'pool = "b"', "[pool]", "b = 1")
    assert [p.message for p in wrong(broken)] == ["1 is not a table"]
    many = "\n".join(f"[pool.p{i}]\nbackends = []" for i in range(12))
    text = minimal('[service.b]\nlisten = "10.0.0.10:81/tcp"\npool = "zzz"', many)
    assert one(text)[3] == "web, " + ", ".join(f"p{i}" for i in range(9)) + " and 3 more"


def test_two_services_on_one_listen() -> None:
    text = minimal("[service.b]", 'listen = "10.0.0.10:80/tcp"', 'pool = "web"')
    assert one(text)[:3] == (
        11,
        "service.b.listen",
        '"10.0.0.10:80/tcp" is already service.web',
    )


def test_backends_twice_in_a_pool() -> None:
    text = minimal(
        pool="""backends = ["10.0.0.2:80",
          { address = "10.0.0.2:80", name = "a" },
          { address = "10.0.0.3:80", name = "a" }]"""
    )
    assert [(p.line, p.path, p.message) for p in wrong(text)] == [
        (6, "pool.web.backends[1]", "backend 10.0.0.2:80 is already pool.web.backends[0]"),
        (7, "pool.web.backends[2].name", 'name "a" is already that of pool.web.backends[1]'),
    ]


def test_backends_that_are_the_balancer_itself() -> None:
    text = minimal(
        'snat = ["10.0.0.11"]',
        pool='backends = ["10.0.0.10:80", { address = "10.0.0.10:81" }, "10.0.0.11:80"]',
    )
    own = "is on the balancer's own address"
    assert [(p.path, p.message) for p in wrong(text)] == [
        ("pool.web.backends[0]", "backend 10.0.0.10:80 is service.web.listen itself: a loop"),
        ("pool.web.backends[1]", f"backend 10.0.0.10:81 {own} (service.web.listen)"),
        ("pool.web.backends[2]", f"backend 10.0.0.11:80 {own} (service.web.snat[0])"),
    ]


def test_snat() -> None:
    assert one(minimal("snat = []"))[:3] == (10, "service.web.snat", "is empty")
    assert one(minimal('snat = ["10.0.0.11",', '"10.0.0.11"]'))[:3] == (
        11,
        "service.web.snat[1]",
        "address 10.0.0.11 is already service.web.snat[0]",
    )
    many = ", ".join(f'"10.0.1.{i}"' for i in range(1, 18))
    assert one(minimal(f"snat = [{many}]"))[1:3] == (
        "service.web.snat[16]",
        "17 addresses are too many",
    )
    assert one(minimal('snat = ["10.0.0"]'))[1:3] == (
        "service.web.snat[0]",
        '"10.0.0" is not an IPv4 address',
    )


def test_no_interface_and_one_twice() -> None:
    assert one("[datapath]\ninterfaces = []")[2] == "is empty: nothing to attach to"
    assert one('[datapath]\ninterfaces = ["a", "a"]')[:3] == (
        2,
        "datapath.interfaces[1]",
        "interface a is already datapath.interfaces[0]",
    )


def backends(count: int) -> str:
    return ", ".join(f'"10.1.{i // 250}.{i % 250 + 1}:80"' for i in range(count))


def services(count: int) -> str:
    """Services on 16 addresses, all in the pool of `minimal`."""
    return "\n".join(
        f'[service.s{i}]\nlisten = "10.2.0.{i % 16 + 1}:{i + 1}/tcp"\npool = "web"'
        for i in range(count)
    )


def test_as_many_as_there_is_room_for() -> None:
    pools = "\n".join(f"[pool.p{i}]\nbackends = []" for i in range(model.MAX_POOLS - 1))
    pool = f"backends = [{backends(model.MAX_BACKENDS)}]"
    read = config.loads(minimal(services(model.MAX_SERVICES - 1), pools, pool=pool))
    assert (len(read.pools), len(read.services)) == (model.MAX_POOLS, model.MAX_SERVICES)
    assert len(read.pool("web").backends) == model.MAX_BACKENDS


def test_one_more_than_there_is_room_for() -> None:
    pools = "\n".join(f"[pool.p{i}]\nbackends = []" for i in range(model.MAX_POOLS))
    pool = f"backends = [{backends(model.MAX_BACKENDS + 1)}]"
    problems = wrong(minimal(services(model.MAX_SERVICES), pools, pool=pool))
    assert [(p.path, p.message, p.allowed) for p in problems] == [
        (
            "pool.web.backends[4000]",
            "4001 backends in all pools are too many",
            "at most 4000 backends in all pools",
        ),
        ("service.s999", "1001 services are too many", "at most 1000 services"),
        ("pool.p255", "257 pools are too many", "at most 256 pools"),
    ]


def test_one_address_more_than_a_flow_can_name() -> None:
    lines = [
        f'[service.s{i}]\nlisten = "10.2.0.{i + 1}:80/tcp"\npool = "web"'
        for i in range(model.MAX_OWN_ADDRESSES)
    ]
    assert one(minimal(*lines))[1:3] == (
        "service.s254.listen",
        "256 different VIPs and SNAT addresses are too many",
    )


# --- files that cannot be read, texts that are not TOML


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", str(tmp_path / "a\0b")):
        with pytest.raises(ConfigError) as caught:
            config.load(path)
        (problem,) = caught.value.problems
        assert problem.line == 0
        assert problem.message.startswith("cannot be read: ")


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "lb.toml"
    path.write_bytes(b"[pool.web]\n# \xff")
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (2, 3)
    assert problem.message == "not text: byte or code 0xff"


def test_a_file_that_is_far_too_large(tmp_path: Path) -> None:
    path = tmp_path / "lb.toml"
    path.write_bytes(b"#" * (16 << 20) + b"\n")
    with pytest.raises(ConfigError, match="the file is too large; allowed: at most 16 MiB"):
        config.load(path)


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("[pool.web]\nbackends = [", 2, 13, "Invalid value"),
        ("a = \n", 1, 5, "Invalid value"),
        ("a = 1\nb 2", 2, 3, "Expected '=' after a key in a key/value pair"),
        ("a = 1\na = 2\n", 2, 6, "given twice"),
        ("[a]\nx = 1\n[a]\n", 3, 3, "given twice"),
        ("\na = " + "9" * 5000, 2, 5, "Exceeds the limit"),
        ("a = " + "[" * 5000, 0, 0, "nested too deeply"),
        ("a = '\ud800'", 1, 6, "code 0xd800"),
    ],
)
def test_not_toml(text: str, line: int, column: int, message: str) -> None:
    (problem,) = wrong(text)
    assert (problem.line, problem.column, problem.path) == (line, column, "")
    assert message in problem.message
    assert problem.allowed
