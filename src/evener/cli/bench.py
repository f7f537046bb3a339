# SPDX-License-Identifier: Apache-2.0
"""`evener bench`: become the benchmark."""

from __future__ import annotations

import os
import sys

import click

from evener.cli.common import json_option


@click.command(name="bench", short_help="The figures, each beside its goal.")
@click.option(
    "--tier",
    type=click.Choice(["T1", "T5"]),
    default="T1",
    help="T1: what the XDP program costs for each packet. T5: the DPDK form, beside testpmd.",
)
@click.option("--quick", is_flag=True, help="Only whether it works: too short to conclude from.")
@click.option("--cpu", type=int, help="The CPU to run on. Default: the last one.")
@json_option
def command(tier: str, quick: bool, cpu: int | None, as_json: bool) -> None:
    """Measure, and print each figure beside its goal.

    Loads the production program, attached to nothing, and runs it inside the kernel on frames of up
    to a million flows. Exits with 0 if every goal is hit, with 1 otherwise. Needs root, takes about
    a minute, and wants a quiet machine: it says when the machine was not.

    \b
    Example: evener bench
    """
    # Cases are timed: nothing of this process, its imports for one, should be beside them.
    words = ["--tier", tier, *(["--quick"] if quick else []), *(["--json"] if as_json else [])]
    pinned = [] if cpu is None else ["--cpu", str(cpu)]
    os.execv(sys.executable, [sys.executable, "-m", "evener.bench", *words, *pinned])
