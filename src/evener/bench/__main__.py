# SPDX-License-Identifier: Apache-2.0
"""The command line of the benchmarks: `evener bench` hands over to it."""

from __future__ import annotations

import argparse
import json
import os
import sys

from evener.errors import EvenerError


def main() -> int:
    """0: every goal is hit; 1: at least one is missed; else as in evener.errors."""
    parser = argparse.ArgumentParser("evener bench", description=__doc__)
    parser.add_argument("--tier", choices=["T1", "T5"], default="T1")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cpu", type=int)
    arguments = parser.parse_args()
    try:
        return _t5(arguments) if arguments.tier == "T5" else _run(arguments)
    except EvenerError as error:
        print(f"evener: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _run(arguments: argparse.Namespace) -> int:
    from evener.bench import measure, report
    from evener.bench.cases import FULL, QUICK, Bench
    from evener.datapath.probe import probe

    probe().require("linux", "kernel", "privileges", "libbpf", "bpf")
    cpu = measure.pin(arguments.cpu)
    bench = Bench(QUICK if arguments.quick else FULL, cpu)

    def show(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    found = report.measure(bench, show)
    if arguments.json:
        print(json.dumps(found.to_json(), indent=2))
    return 0 if found.ok else 1


def _t5(arguments: argparse.Namespace) -> int:
    from evener.bench import t5
    from evener.datapath.probe import probe

    probe().require("linux", "kernel", "privileges", "libbpf", "bpf", "namespaces")
    cpu = max(os.sched_getaffinity(0)) if arguments.cpu is None else arguments.cpu

    def show(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    found = t5.measure(t5.QUICK if arguments.quick else t5.FULL, cpu, show)
    if arguments.json:
        print(json.dumps(found.to_json(), indent=2))
    return 0 if found.ok else 1


if __name__ == "__main__":
    sys.exit(main())
