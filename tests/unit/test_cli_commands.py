# SPDX-License-Identifier: Apache-2.0
"""Each command as an operator calls it: text, JSON, errors, exit codes. No daemon, no root."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from evener import __version__
from evener.cli import exits, main, output, show
from evener.datapath import dpdk_counts
from evener.datapath.base import Lane
from evener.datapath.dpdk_share import HEAD
from evener.errors import EvenerError
from evener.observe import counters, flows, trace
from tests.support import segment
from tests.support.configs import WRONG
from tests.support.fake_daemon import Answer, FakeDaemon


def run(*arguments: object, socket: Path | None = None) -> Result:
    before = ["--socket", str(socket)] if socket else []
    return CliRunner().invoke(main.cli, [*before, *map(str, arguments)], prog_name="evener")


def ask(tmp_path: Path, answers: dict[str, Answer], *arguments: object) -> Result:
    """Call a command while a daemon gives these answers."""
    with FakeDaemon(tmp_path / "s", answers) as daemon:
        result = run(*arguments, socket=daemon.path)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def rows(name: str, of: list[dict[str, Any]]) -> dict[str, Answer]:
    return {f"GET /v1/{name}": (200, {"version": 1, "rows": of})}


def config_file(tmp_path: Path, text: str = segment.TEXT) -> Path:
    path = tmp_path / "evener.toml"
    path.write_text(text)
    return path


# --- the command itself


def test_a_daemon_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def execv(path: str, words: list[str]) -> None:
        tried.append(words)
        raise OSError(8, "Exec format error")

    monkeypatch.setattr("os.execv", execv)
    result = run("run", "--keep", "a.toml")
    assert tried[0][1:] == ["-m", "evener.daemon", "--keep", "a.toml"]
    assert result.exit_code == 4
    assert "the daemon cannot be started: Exec format error" in result.output


def test_version() -> None:
    assert run("--version").output == f"evener {__version__}\n"


def test_help_names_every_command_and_exit_code() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in ("run", "check", "diff", "apply", "show", "explain", "trace", "replay"):
        assert f"\n  {name} " in result.output
    for code, meaning in exits.EXIT_CODES:
        assert f"{code:3}  {meaning}" in result.output


def test_every_error_has_an_exit_code_that_is_documented() -> None:
    documented = [code for code, _ in exits.EXIT_CODES]
    assert len(set(documented)) == len(documented)
    for kind in (EvenerError, *EvenerError.__subclasses__()):
        assert kind.exit_code in documented


def commands(group: click.Group) -> list[tuple[str, click.Command]]:
    """Every command that is ours, those of groups included."""
    found: list[tuple[str, click.Command]] = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {inner}", c) for inner, c in commands(command)]
    return found


@pytest.mark.parametrize(("name", "command"), commands(main.cli))
def test_help_of_every_command_ends_with_an_example(name: str, command: click.Command) -> None:
    result = run(*name.split(), "--help")
    assert result.exit_code == 0
    if name.split()[0] in ("lab", "demo", "bench"):
        return
    last = (command.help or "").rstrip().splitlines()[-1].strip()
    assert f"{last} ".startswith(f"Example: evener {name} ")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["shwo"], "show"), (["replya"], "replay"), (["show", "flow"], "flows")],
)
def test_a_mistyped_command(typed: list[str], meant: str) -> None:
    result = run(*typed)
    assert result.exit_code == 2
    assert f'no command "{typed[-1]}", did you mean "{meant}"?' in result.output


def test_an_unknown_command_lists_those_there_are() -> None:
    result = run("zzzzzz")
    assert result.exit_code == 2
    assert 'no command "zzzzzz", there are ' in result.output


def test_without_a_daemon(tmp_path: Path) -> None:
    socket = tmp_path / "none"
    result = run("show", "flows", socket=socket)
    assert result.exit_code == 6
    assert result.stderr == (
        f"evener: the daemon is not running in this network namespace ({socket}): "
        "start it with `evener run CONFIG`\n"
    )
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--quiet", "--narrate"], "--quiet and --narrate exclude each other"),
        (["--address", "10.0.0.10"], "10.0.0.10 says no length; such as 10.0.0.10/24"),
    ],
)
def test_what_dpdk_refuses(words: list[str], says: str) -> None:
    result = run("dpdk", *words, "-l", "0", "--vdev=net_tap0,iface=tapdpdk")
    assert result.exit_code == 2
    assert says in result.stderr


def test_version_of_dpdk() -> None:
    """Of evener: EAL would ask for a device first."""
    assert run("dpdk", "--version").stdout == run("--version").stdout


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("evener.config.load", interrupted)
    assert run("check", tmp_path).exit_code == 130


def test_a_command_that_does_not_compute_imports_nothing_large(tmp_path: Path) -> None:
    """A whole call is to take less than 100 ms; these take longer to import than that."""
    code = (
        "import sys; from evener.cli.main import cli\n"
        f"cli(['--socket', {str(tmp_path / 'none')!r}, 'show', 'flows'], standalone_mode=False)\n"
        "print([m for m in ('numpy', 'pydantic', 'rich', 'aiohttp', 'pyroute2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_run_becomes_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, list[str]]] = []
    module = importlib.import_module("evener.cli.run")
    monkeypatch.setattr(module.os, "execv", lambda path, argv: called.append((path, argv)))
    assert run("run", "my.toml").exit_code == 0
    assert called == [(sys.executable, [sys.executable, "-m", "evener.daemon", "my.toml"])]


# --- check, diff, apply


def test_check_a_right_configuration(tmp_path: Path) -> None:
    path = config_file(tmp_path)
    result = run("check", path)
    assert result.exit_code == 0
    told = "1 service, 1 pool, 2 backends; driver sim on no interface"
    assert result.output == f"{path}: right: {told}\n"
    answer = json.loads(run("check", "--json", path).output)
    counts = {"services": 1, "pools": 1, "backends": 2}
    assert answer == {"version": 1, "ok": True, "source": str(path), **counts, "problems": []}


def test_check_a_wrong_configuration(tmp_path: Path) -> None:
    path = config_file(tmp_path, WRONG)
    result = run("check", path)
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "problems in the configuration" in result.stderr
    assert f"{path}:" in result.stderr
    result = run("check", "--json", path)
    assert result.exit_code == 3
    answer = json.loads(result.stdout)
    assert answer["ok"] is False
    assert {"line", "path", "message", "allowed", "kind", "column"} == set(answer["problems"][0])


def test_check_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = run("check", tmp_path / "none.toml")
    assert result.exit_code == 3
    assert "cannot be read" in result.stderr


def test_diff_and_apply(tmp_path: Path) -> None:
    path = config_file(tmp_path)
    told = {"version": 1, "changes": ["+ backend web/h4"], "refused": []}
    diff = {"POST /v1/diff": (200, told)}
    assert ask(tmp_path, diff, "diff", path).output == "+ backend web/h4\n"
    nothing = {"POST /v1/diff": (200, {"version": 1, "changes": [], "refused": []})}
    assert ask(tmp_path, nothing, "diff", path).output == "nothing would change\n"
    answer = {"version": 1, "generation": 7, "changes": ["+ backend web/h4"]}
    done = ask(tmp_path, {"POST /v1/apply": (200, answer)}, "apply", path)
    assert done.output == "+ backend web/h4\ngeneration 7 is in force: 1 change\n"
    done = ask(tmp_path, {"POST /v1/apply": (200, answer)}, "apply", "--json", path)
    assert json.loads(done.output) == answer


def test_diff_tells_what_apply_would_refuse(tmp_path: Path) -> None:
    told = {"version": 1, "changes": ["~ datapath.flows 1 -> 2"], "refused": ["no (f): restart"]}
    answers = {"POST /v1/diff": (200, told)}
    path = config_file(tmp_path)
    result = ask(tmp_path, answers, "diff", path)
    assert result.output == f"{told['changes'][0]}\nevener apply would refuse it: no (f): restart\n"
    assert json.loads(ask(tmp_path, answers, "diff", "--json", path).output) == told
    del told["refused"]  # a daemon that is older than this field
    result = ask(tmp_path, answers, "diff", path)
    assert (result.exit_code, result.output) == (0, f"{told['changes'][0]}\n")


def test_apply_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert run("apply", tmp_path / "none", socket=tmp_path / "s").exit_code == 3
    (tmp_path / "binary").write_bytes(b"\xff")
    result = run("diff", tmp_path / "binary", socket=tmp_path / "s")
    assert (result.exit_code, "not text; allowed: UTF-8" in result.stderr) == (3, True)


def test_apply_what_the_daemon_refuses(tmp_path: Path) -> None:
    problem = {"line": 1, "path": "p", "message": "m", "allowed": "a", "kind": "wrong", "column": 0}
    error = {"what": "", "where": "f", "do": "", "exit_code": 3, "source": "f"}
    answer = (422, {"version": 1, "error": {**error, "problems": [problem]}})
    result = ask(tmp_path, {"POST /v1/apply": answer}, "apply", config_file(tmp_path))
    assert result.exit_code == 3
    assert result.stderr == "evener: 1 problem in the configuration (f):\n  f:1: p: m; allowed: a\n"


# --- show: rows of a simulator, so that names cannot drift apart


def busy() -> Any:
    made, snapshot = segment.simulator()
    segment.handshake(made, 34952)
    made.send(segment.to_vip(34953, "S"))
    return snapshot


def test_show_services(tmp_path: Path) -> None:
    of = counters.services(busy())
    lines = ask(tmp_path, rows("services", of), "show", "services").output.splitlines()
    assert lines[0].split() == [
        "PROT", "ADDRESS:PORT", "NAME", "SCHEDULER", "FORWARD", "WEIGHT", "ACTIVE", "INACTIVE",
    ]  # fmt: skip
    assert lines[1].split() == ["tcp", "10.0.0.10:8080", "web", "maglev", "1", "1"]
    assert lines[2].split()[:5] == ["->", "10.0.0.2:8080", "web/10.0.0.2:8080", "full-nat", "1"]
    assert lines[3].split()[:5] == ["->", "10.0.0.3:8080", "web/h3", "full-nat", "2"]
    assert len({len(line) for line in lines}) == 1, "numbers stand to the right"


def test_show_backends(tmp_path: Path) -> None:
    of = counters.backends(busy())
    of[0]["mac"] = None
    lines = ask(tmp_path, rows("backends", of), "show", "backends").output.splitlines()
    assert lines[1].split()[:6] == [
        "web", "10.0.0.2:8080", "10.0.0.2:8080", "usable", "1", "33.3%",
    ]  # fmt: skip
    assert lines[1].endswith("unresolved")
    assert lines[2].endswith(segment.mac(3))


def test_show_flows(tmp_path: Path) -> None:
    of = flows.flows(busy(), {"state": "established"})
    of[0]["service"] = None
    result = ask(tmp_path, rows("flows", of), "show", "flows")
    heads, line = result.output.splitlines()
    assert heads.split() == [
        "PROT", "STATE", "LEFT", "CLIENT", "VIP", "SNAT", "BACKEND", "SERVICE",
    ]  # fmt: skip
    ends = ["10.0.0.1:34952", "10.0.0.10:8080", "10.0.0.10:34952", of[0]["backend"], "-"]
    assert line.split() == ["tcp", "ESTABLISHED", "900", *ends]
    assert result.stderr == ""


def test_show_flows_passes_filters_on_and_says_when_there_may_be_more(tmp_path: Path) -> None:
    answers = rows("flows", flows.flows(busy()))
    with FakeDaemon(tmp_path / "s", answers) as daemon:
        result = run(
            "show", "flows", "--client", "10.0.0.1", "--state", "opening", "--limit", 2,
            socket=daemon.path,
        )  # fmt: skip
    assert daemon.asked == [("GET", "/v1/flows?limit=2&client=10.0.0.1&state=opening", None)]
    assert "there may be more than these 2" in result.stderr


def test_show_counters(tmp_path: Path) -> None:
    of = counters.counters(busy())
    lines = ask(tmp_path, rows("counters", of), "show", "counters").output.splitlines()
    assert lines[0].split()[3:] == [
        "CONNS", "INPKTS", "OUTPKTS", "INBYTES", "OUTBYTES", "REFUSED",
    ]  # fmt: skip
    assert lines[1].split() == ["tcp", "10.0.0.10:8080", "web", "2", "3", "1", "162", "54", "0"]
    assert lines[3].split()[:3] == ["->", "10.0.0.3:8080", "web/h3"]


def test_show_reasons(tmp_path: Path) -> None:
    of = counters.reasons(busy())
    lines = ask(tmp_path, rows("reasons", of), "show", "reasons").output.splitlines()
    assert len(lines) == 1 + len(of)
    assert lines[3].split()[:3] == ["FORWARD_NEW", "forward", "2"]


STATUS = {
    "version": 1, "evener": "0.1.0", "instance": "net-1", "pid": 7, "driver": "xdp",
    "worker": None,
    "generation": 3, "uptime_s": 93_784.2, "config": "/etc/evener.toml",
    "interfaces": [{"interface": "eth1", "ifindex": 3, "mode": "native"}],
    "flows": {"capacity": 1_000_000, "records": 1_818_192, "now": 12_345}, "memory_bytes": 40 << 20,
    "adopted": False, "warnings": ["eth1: transmit offload"], "lanes": [], "frames": [],
}  # fmt: skip


def test_show_status(tmp_path: Path) -> None:
    result = ask(tmp_path, {"GET /v1/status": (200, STATUS)}, "show", "status")
    assert result.output == (
        "evener:        0.1.0, process 7, up 1 d 2 h\n"
        "instance:      net-1\n"
        "configuration: /etc/evener.toml, generation 3\n"
        "datapath:      xdp on eth1 (native)\n"
        "flows:         12,345 of 1,000,000\n"
        "memory:        40.0 MiB\n"
        "\n1 warning:\n  eth1: transmit offload\n"
    )
    two = {**STATUS, "warnings": ["a:\n  b: c", "d"]}
    result = ask(tmp_path, {"GET /v1/status": (200, two)}, "show", "status")
    assert result.output.endswith("\n2 warnings:\n  a:\n    b: c\n  d\n")
    for number, text in ((4711, "worker 4711"), (0, "worker none")):
        with_dpdk = {**STATUS, "driver": "dpdk", "worker": number}
        result = ask(tmp_path, {"GET /v1/status": (200, with_dpdk)}, "show", "status")
        assert f"datapath:      dpdk on eth1 (native), {text}\n" in result.output
    result = ask(tmp_path, {"GET /v1/status": (200, STATUS)}, "show", "status", "--json")
    assert json.loads(result.output) == STATUS


def test_show_status_of_a_table_that_holds_more_than_was_asked_for(tmp_path: Path) -> None:
    flows = {"capacity": 2_000, "records": 3_648, "now": 3_640}
    full = {**STATUS, "flows": flows}
    result = ask(tmp_path, {"GET /v1/status": (200, full)}, "show", "status")
    told = "3,640, more than the 2,000 of datapath.flows; the table is full at 3,648, and "
    assert f"flows:         {told}before that some new ones are refused\n" in result.output


def test_show_status_lists_lanes(tmp_path: Path) -> None:
    lanes = counters.lanes([Lane(0, 2, 1_234), Lane(1, 5, 0)])
    status = {**STATUS, "driver": "dpdk", "worker": 1, "lanes": lanes}
    result = ask(tmp_path, {"GET /v1/status": (200, status)}, "show", "status")
    assert (
        "worker 1\nlanes:         2, packets on lcore 2: 1,234; on lcore 5: 0\nflows:"
        in result.output
    )


def test_show_status_lists_lost_frames(tmp_path: Path) -> None:
    head = np.zeros(1, HEAD)[0]
    head["lanes"] = 2
    head["lane"]["to_kernel"] = 9
    head["lane"]["tx_full"][:2] = 3, 4
    head["lane"]["kernel_full"][1] = 5
    head["device"]["imissed"][1] = 12
    frames = counters.frames(dpdk_counts.counts(head, ("tap0", "tap1")))
    status = {**STATUS, "warnings": [], "frames": frames}
    result = ask(tmp_path, {"GET /v1/status": (200, status)}, "show", "status")
    lines = result.output.partition("\nframes that the driver lost:\n")[2].splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["tx_full", "7"], ["kernel_full", "5"], ["imissed", "12"],
    ]  # fmt: skip
    assert "  lane 0 3, lane 1 4  a device did not take them" in lines[1]
    assert "  lane 1  " in lines[2]
    assert "  tap1  " in lines[3]


@pytest.mark.parametrize("name", ["services", "backends", "flows", "counters", "reasons"])
def test_show_as_json_is_what_the_daemon_said(tmp_path: Path, name: str) -> None:
    of = [{"a": 1}, {"b": None}]
    result = ask(tmp_path, rows(name, of), "show", name, "--json")
    assert json.loads(result.output) == {"version": 1, "rows": of}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90_000, "1 d 1 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert show._duration(seconds) == text


def test_a_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    output.table(output.columns("STATE", "N#"), [["ESTABLISHED", 5], [None, 1_000]])
    lines = [line.rstrip() for line in click.unstyle(capsys.readouterr().out).splitlines()]
    assert lines == ["STATE           N", "ESTABLISHED     5", "-            1000"]


# --- explain, trace


def test_explain_asks_the_daemon(tmp_path: Path) -> None:
    from evener.datapath.native import Core
    from evener.observe.explain import explain

    ends = ("10.0.0.1:34952", "10.0.0.10:8080/tcp")
    plan = explain(busy(), Core, *ends)
    answers = {"POST /v1/explain": (200, {"version": 1, "plan": plan})}
    result = ask(tmp_path, answers, "explain", *ends)
    assert "a flow that is known (ESTABLISHED)" in result.output
    result = ask(tmp_path, answers, "explain", "--json", *ends)
    assert json.loads(result.output)["plan"] == plan


def test_explain_with_a_configuration_needs_no_daemon(tmp_path: Path) -> None:
    path, ends = config_file(tmp_path), ("10.0.0.1:34952", "10.0.0.10:8080/tcp")
    result = run("explain", *ends, "--config", path)
    assert result.exit_code == 0
    assert "next hops come from the running system" in result.output
    plan = json.loads(run("explain", *ends, "--config", path, "--json").output)["plan"]
    assert (plan["verdict"], plan["reason"], plan["offline"]) == ("forward", "FORWARD_NEW", True)
    assert run("explain", *ends, "--config", config_file(tmp_path, WRONG)).exit_code == 3


def test_explain_ends_that_cannot_be_understood(tmp_path: Path) -> None:
    result = run("explain", "10.0.0.1", "10.0.0.10:80/tcp", "--config", config_file(tmp_path))
    assert result.exit_code == 1
    assert result.stderr.startswith('evener: "10.0.0.1" is not an IPv4 address with a port')


def traced() -> list[dict[str, Any]]:
    made, snapshot = segment.simulator()
    follower = trace.Follower(made)
    segment.handshake(made, 34952)
    events, _ = follower.read()
    begin = {"version": 1, "trace": "begin"}
    return [begin, *(trace.event_json(event, cpu, snapshot) for event, cpu in events)]


def test_trace_narrates_and_ends_after_count(tmp_path: Path) -> None:
    lines = traced()
    lines.insert(2, {"lost": 5})
    result = ask(tmp_path, {"GET /v1/trace": (200, lines)}, "trace", "--count", 3)
    assert result.exit_code == 0
    told = result.stdout.split("\n\n")
    assert told[0].splitlines()[:2] == [
        "+0.000000 s, CPU 0:",
        "packet received on sim0: 54 bytes, TCP flags [S], seq 1, ack 0",
    ]
    assert [part.splitlines()[-1].split()[1] for part in told[:3]] == ["to", "to", "to"]
    assert result.stderr.splitlines() == [
        "evener: tracing; Ctrl-C ends it",
        "evener: 5 packets came too fast to be told",
    ]


def test_trace_as_json_is_one_object_a_line(tmp_path: Path) -> None:
    lines = traced()
    answers = {"GET /v1/trace": (200, lines)}
    with FakeDaemon(tmp_path / "s", answers) as daemon:
        result = run(
            "trace", "--json", "--count", 3, "--service", "web", "--reason", "REPLY",
            socket=daemon.path,
        )  # fmt: skip
    assert [json.loads(line) for line in result.stdout.splitlines()] == lines
    assert daemon.asked == [("GET", "/v1/trace?service=web&reason=REPLY", None)]


def test_trace_of_a_daemon_that_ends(tmp_path: Path) -> None:
    result = ask(tmp_path, {"GET /v1/trace": (200, traced())}, "trace")
    assert result.exit_code == 6
    assert "the daemon ended the trace" in result.stderr
