# SPDX-License-Identifier: Apache-2.0
"""For tests that load BPF: compile a program of tests/support, and say why a host cannot run it."""

from __future__ import annotations

from pathlib import Path

import pytest

from evener import _build
from evener.datapath.probe import probe

ROOT = Path(__file__).parents[2]

_host = probe()
needs_bpf = pytest.mark.skipif(not _host.xdp, reason="; ".join(_host.problems()))
needs_namespaces = pytest.mark.skipif(not _host.lab, reason="; ".join(_host.problems()))


def compile_bpf(source: Path, folder: Path) -> Path:
    """Compile one .bpf.c into `folder`, with the arguments of the project's own programs."""
    output = folder / f"{source.stem}.o"
    return _build.build(_build.bpf_target(source, output), ROOT, print)
