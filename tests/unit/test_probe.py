# SPDX-License-Identifier: Apache-2.0
"""evener.datapath.probe: the answers agree with what can be done, and each is a sentence."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from evener.datapath import probe
from evener.datapath.probe import Answer, Host
from evener.errors import MachineError

YES = Answer(True, "fine")


def held() -> tuple[int, int]:
    """What of this process a careless trial would leave different: its namespace, and how many
    descriptors it has (one of a namespace without a name would keep that alive)."""
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    return Path("/proc/thread-self/ns/net").stat().st_ino, descriptors


def test_each_answer_is_a_sentence_and_nothing_is_left_behind():
    probe.probe()  # libraries stay loaded
    before = held()
    host = probe.probe()
    assert all(getattr(host, field.name).sentence for field in fields(Host))
    assert host.problems() == [
        answer.sentence for answer in (getattr(host, f.name) for f in fields(Host)) if not answer
    ]
    assert held() == before


@pytest.mark.parametrize(
    ("release", "ok"),
    [("6.0.1", True), ("6.1.0-38-amd64", True), ("7.0", True), ("6", True), ("5.15.0-91", False)],
)
def test_kernel_versions(release, ok):
    answer = probe._kernel(release)
    assert bool(answer) is ok
    assert release in answer.sentence


def test_what_is_missing_decides_what_can_run():
    host = Host(*[YES] * len(fields(Host)))
    assert (host.xdp, host.lab, host.problems()) == (True, True, [])
    host.require("bpf", "namespaces")

    no = Answer(False, "network namespaces cannot be made")
    host = replace(host, namespaces=no)
    assert (host.xdp, host.lab, host.problems()) == (True, False, [no.sentence])
    with pytest.raises(MachineError, match="namespaces cannot be made"):
        host.require("bpf", "namespaces")

    host = replace(host, bpf=Answer(False, "no BPF"))
    assert (host.xdp, host.lab) == (False, False)
    with pytest.raises(MachineError, match="no BPF; network namespaces"):
        host.require("bpf", "namespaces")
