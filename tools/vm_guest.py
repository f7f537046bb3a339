# SPDX-License-Identifier: Apache-2.0
"""Inside the emulated machine: report the kernel, load the program, run the tests and the demo.

    python -m tools.vm_guest all|load|tests NAME...    (vm_test.sh starts it, through vm_guest.sh)

Exit code 0 only if everything has passed. Each step is told with the seconds that it took.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from evener import config
from evener.datapath import bpf, xdp
from evener.datapath.probe import probe
from evener.errors import EvenerError
from evener.lab import balancer
from evener.tables.memory import Sizes, shapes
from tests.support.bpf_elf import Elf

CONFIG = """
[datapath]
driver = "xdp"
interfaces = ["eth0"]
flows = 100_000

[pool.web]
backends = ["10.0.0.2:8080", "10.0.0.3:8080"]

[service.web]
listen = "10.0.0.10:8080/tcp"
pool = "web"
"""
TESTS = (
    "tests/unit/test_bpf.py",
    "tests/unit/test_grace.py",
    "tests/unit/test_probe.py",
    "tests/datapath/test_scenarios.py",
    "tests/datapath/test_limits.py",
    "tests/datapath/test_adoption.py",
    "tests/datapath/test_differential.py",
    "tests/netns/test_topology.py",
    "tests/netns/test_capture.py",
    "tests/netns/test_wire.py",
)
"""Not those that measure by the clock how the whole system behaves under load."""
BOUNDS = "./drivers/xdp/env_bpf.h"
"""Where each index is compared with its table's size."""
PATIENCE = 20
"""Software emulation is that much slower than the machines for which the lab's waits were chosen."""
WAITS = (
    ("evener.lab.balancer", "READY_S"),
    ("evener.lab.netcat", "_STEP_S"),
    ("evener.lab.demo", "_QUIET_S"),
    ("evener.lab.demo", "_SETTLED_S"),
)


def be_patient() -> None:
    """Lengthen the lab's waits in this process. AttributeError when one has another name now."""
    for module, name in WAITS:
        place = importlib.import_module(module)
        setattr(place, name, getattr(place, name) * PATIENCE)
    setattr(balancer, "client", functools.partial(balancer.client, timeout_s=10.0 * PATIENCE))  # noqa: B010


def report() -> bool:
    """What machine this is, and whether it can run evener."""
    print(f"{platform.system()} {platform.release()}, {platform.version()}")
    print(f"ticks per second {bpf.hz()}, CPUs {bpf.possible_cpus()}")
    host = probe()
    for sentence in host.problems():
        print(sentence)
    return host.xdp and host.lab


def load() -> bool:
    """Does the verifier take the program whole? Then the basics, one by one."""
    bpf.ensure_bpffs()
    sizes = Sizes.for_config(config.loads(CONFIG), bpf.possible_cpus())
    with xdp.load(sizes) as obj:
        program, clock = obj.program("lb_xdp"), obj.program("lb_clock")
        memory = {name: obj.map(name).mmap() for name in shapes(sizes)}
    info = program.info()
    size = sum(table.nbytes for table in memory.values())
    print(
        f"lb_xdp: {info.instructions} instructions, of 1000000 the verifier walked "
        f"{info.verified_instructions}; {info.jited_bytes} bytes of machine code, "
        f"{size >> 20} MiB of tables"
    )
    removed = Elf(xdp.OBJECT).lines - _lines_left(program) - _lines_left(clock)
    limits = removed.pop(BOUNDS, 0)
    passed = program.test_run(bytes(64)).retval == bpf.XdpAction.PASS
    counted = int(memory["reason_counters"].view("<u8").sum())
    before, begun = clock.test_run(bytes(64)).retval, time.monotonic()
    time.sleep(2)
    ticked, slept = clock.test_run(bytes(64)).retval - before, time.monotonic() - begun
    return all(
        [
            _told(
                "the verifier removed nothing as unreachable but checks of bounds",
                not removed,
                f"{limits} of those; others: {dict(removed) or 'none'}",
            ),
            _told("a frame of zeros is the kernel's", passed, "test run"),
            _told("it is counted in shared memory", counted == 1, f"{counted} packets"),
            _told(
                "the program's clock goes",
                abs(ticked % 65_536 - slept) <= 2,
                f"{ticked} s in {slept:.1f} s",
            ),
        ]
    )


def _lines_left(program: bpf.Program) -> Counter[str]:
    """How many places of each source file the kernel still has instructions for.

    Nothing of the program is unreachable, but that an index may be compared twice. A verifier that
    removes more took two different paths for the same: Linux 6.1 did, and packets went the wrong
    way without any complaint.
    """
    dump = ["bpftool", "--json", "prog", "dump", "xlated", "id", str(program.info().id), "linum"]
    code = json.loads(subprocess.run(dump, check=True, stdout=subprocess.PIPE).stdout)
    return Counter(one["file"] for one in code if "file" in one)


def _told(claim: str, right: bool, detail: str) -> bool:
    print(f"{'PASS' if right else 'FAIL'}  {claim}: {detail}")
    return right


def run_tests(names: Sequence[str] = TESTS) -> bool:
    """The tests of the kernel's side, with pytest in this process, so that it has our patience."""
    os.environ["EVENER_DIFFERENTIAL_PACKETS"] = "2000"
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore::hypothesis.errors.HypothesisWarning"]
    options += ["--timeout", str(15 * PATIENCE), "--durations", "5", "--datapath", "xdp"]
    # No kernel verifies that driver; its tests compile it, and files are read-only here.
    options += ["-k", "not dpdk"]
    return pytest.main([*options, *names]) == pytest.ExitCode.OK


def demo() -> bool:
    """`evener demo`, without its narration."""
    from evener.lab import demo as play
    from evener.model import Driver

    result = play.run(Driver.XDP, None, lambda paragraph: None)
    for check in result.checks:
        _told(check.claim, check.ok, check.detail)
    for warning in result.warnings:
        print(f"note: {warning}")
    return result.ok


def steps(arguments: list[str]) -> dict[str, Callable[[], bool]]:
    """What is to be done, in order; what comes first is what the rest needs."""
    what, *names = arguments
    first = {"report": report, "load": load}
    if what == "load":
        return first
    if what == "tests":
        return {**first, "tests": lambda: run_tests(names)}
    return {**first, "demo": demo, "tests": run_tests}


def main() -> int:
    be_patient()
    failed = []
    for name, step in steps(sys.argv[1:]).items():
        print(f"== {name}")
        begun = time.monotonic()
        try:
            done = step()
        except (EvenerError, subprocess.SubprocessError, OSError) as error:
            print(error)
            done = False
        print(
            f"== {name}: {'PASS' if done else 'FAIL'} in {time.monotonic() - begun:.0f} s",
            end="\n\n",
        )
        failed += [] if done else [name]
        if not done and name in ("report", "load"):
            break  # nothing else can work
    if failed:
        print(f"failed on Linux {platform.release()}: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
