# SPDX-License-Identifier: Apache-2.0
"""The demo: the scenario that must always work, end to end, watched and judged.

Live: a lab of its own, the daemon on lb, `nc` on the hosts, a capture on the bridge, the trace as
narration. Without namespaces or BPF: the same conversation through the simulator, and said so. Both
end in the same report, judged from the same kind of capture.

Nothing stays but the capture. Signals are only noted; everything here waits in small steps and
looks, so no clean-up is ever cut short. (Only SIGKILL cannot be noted: `evener lab down --all`.)
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evener.datapath import probe
from evener.errors import EvenerError, MachineError
from evener.lab import balancer, frames, netcat, simulated, topology, verdict, witness
from evener.lab.capture import Capture
from evener.lab.device import DEFAULT
from evener.lab.stop import Stop
from evener.model import Driver
from evener.pcap import Reader, Record, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from evener.lab.device import Device
    from evener.lab.exchange import Exchange
    from evener.lab.topology import Lab
    from evener.lab.verdict import Report

PCAP_NAME = "evener-demo.pcap"
_QUIET_S = 2.0
"""How long the last packets may take to be narrated."""
_SETTLED_S = 0.06
"""The daemon looks for traced packets every 20 milliseconds: after this there are no more."""


@dataclass(slots=True)
class Stage:
    """What a demo is given: where to speak, whether to stop, a folder for the time being."""

    say: Callable[[str], None]
    stop: Stop
    folder: Path
    narrated: int = 0
    lost: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def capture(self) -> Path:
        """The pcap, while it is not yet where it is to stay."""
        return self.folder / PCAP_NAME

    def narrate(self, event: dict[str, Any]) -> None:
        """Tell the story of one packet."""
        from evener.observe.trace import narrate

        if "lost" in event:
            self.lost += int(event["lost"])
        elif "trace" not in event:
            self.narrated += event.get("verdict") == "forward"
            self.say("\n".join(narrate(event)) + "\n")


def run(
    driver: Driver | None,
    pcap: Path | None,
    say: Callable[[str], None],
    device: Device = DEFAULT,
) -> Report:
    """Perform the demo; driver None: XDP where this machine can, else the simulator.

    :param pcap: where to keep the capture; None for `default_pcap()`
    :param say: gets the narration, a paragraph at a time, perhaps from another thread
    :param device: what DPDK opens

    Raises MachineError when the driver cannot run here, StoppedError after a signal.
    """
    topology.check_device(driver or Driver.XDP, device)
    excuse = "" if driver is Driver.SIM else _excuse(driver or Driver.XDP)
    if driver and excuse:
        raise MachineError(f"the demo with {driver.upper()} cannot run here", "", excuse)
    balancer.require(driver or Driver.XDP)
    target = default_pcap() if pcap is None else pcap
    if not (os.access(target, os.W_OK) or os.access(target.parent, os.W_OK)):
        raise EvenerError("the capture cannot be written there", str(target), "give another --pcap")
    stop = Stop()
    begun = time.monotonic()
    with stop.listening(), tempfile.TemporaryDirectory(prefix="evener-demo-") as folder:
        stage = Stage(say, stop, Path(folder))
        if excuse:
            say(f"The real thing cannot run here ({excuse}), so this is the simulator: the same "
                "packet core, with invented hosts.\n")  # fmt: skip
        try:
            if driver is Driver.SIM or excuse:
                report = _simulated(stage)
            else:
                report = _live(stage, driver or Driver.XDP, device)
        except Exception:
            stop.check()  # a signal may have hit a child first, and the failure is only its echo
            raise
        stop.check()
        _keep(stage.capture, target)
    return report.finished(target, excuse, time.monotonic() - begun)


def default_pcap() -> Path:
    """In the current folder if that can be written, else among temporary files."""
    here = Path.cwd()
    folder = here if os.access(here, os.W_OK) else Path(tempfile.gettempdir())
    return folder / PCAP_NAME


def _excuse(driver: Driver) -> str:
    """Why the real thing cannot run here: the first cause, the others follow; or nothing."""
    host = probe.probe()
    if driver is Driver.DPDK:  # BPF is nothing to it
        return next((no.sentence for no in (host.linux, host.namespaces) if not no), "")
    return "" if host.lab else host.problems()[0]


def _keep(capture: Path, target: Path) -> None:
    """Put the capture where it is to stay; under sudo it belongs to whoever called that."""
    ids = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    try:
        shutil.copyfile(capture, target)
        if os.geteuid() == 0 and all(text.isdigit() for text in ids):
            with contextlib.suppress(PermissionError):  # root without privileges
                os.chown(target, int(ids[0]), int(ids[1]))
    except OSError as error:
        raise EvenerError(f"the capture cannot be kept: {error.strerror}", str(target)) from error


def _simulated(stage: Stage) -> Report:
    from evener.observe.counters import reasons
    from evener.observe.snapshot import Snapshot
    from evener.observe.trace import Follower, event_json

    lab = simulated.plan_lab()
    talk = simulated.Conversation(lab, balancer.PORT, stage.stop.check)
    simulator = talk.segment.simulator
    follower = Follower(simulator)
    snapshot = Snapshot(talk.config, simulator.ids, simulator)

    def passed() -> None:
        events, lost = follower.read()
        stage.lost += lost
        for event, cpu in events:
            stage.narrate(event_json(event, cpu, snapshot))

    exchanges = talk.hold(lambda number: stage.say(_heading(number)), passed)
    with Writer(stage.capture) as written:
        for at, frame in talk.segment.frames:
            written.write(Record.whole(at, frame))
    return _judge(stage, lab, Driver.SIM, exchanges, _evidence(stage, lab), reasons(snapshot))


def _live(stage: Stage, driver: Driver, device: Device) -> Report:
    with ExitStack() as stack:
        lab = topology.up(f"demo-{secrets.token_hex(2)}", driver=driver, device=device)
        stack.callback(topology.down, lab.name)
        stage.stop.check()
        client = _start(stage, lab, stack)
        stage.warnings += client.status()["warnings"]
        narration = stack.enter_context(_narration(stage, client))
        with (
            Capture(lab.switch, topology.BRIDGE, stage.capture) as capture,
            netcat.Conversation(lab, balancer.PORT, stage.stop.check) as talk,
        ):
            exchanges = talk.hold(partial(_begin, stage))
            summary = capture.stop()
        evidence = _evidence(stage, lab)
        if summary.drops:
            evidence.unpaired.append(f"the capture lost {summary.drops} frames")
        narration(evidence.pairs)
        return _judge(stage, lab, driver, exchanges, evidence, client.reasons())


def _begin(stage: Stage, number: int) -> None:
    """Announce a connection, once all of the one before has been narrated."""
    seen, since = -1, 0.0
    end = time.monotonic() + _QUIET_S
    while number > 1 and time.monotonic() < end:
        stage.stop.check()
        if stage.narrated != seen:
            seen, since = stage.narrated, time.monotonic()
        elif time.monotonic() - since > _SETTLED_S:
            break
        time.sleep(0.005)
    stage.say(_heading(number))


def _start(stage: Stage, lab: Lab, stack: ExitStack) -> Any:
    """The daemon, ready; asked to end before the lab is taken down."""
    config, log = stage.folder / "lab.toml", stage.folder / "daemon.log"
    config.write_text(balancer.configuration(lab))
    process = balancer.start(lab, config, log)

    def end() -> None:
        process.terminate()
        with contextlib.suppress(Exception):
            process.wait(3)

    stack.callback(end)
    balancer.wait_ready(lab, process, log, stage.stop.check)
    return balancer.client(lab)


@contextmanager
def _narration(stage: Stage, client: Any) -> Iterator[Callable[[int], None]]:
    """Narrate what is traced, in a thread; gives a function that waits for so many packets."""
    begun = threading.Event()
    failures: list[Exception] = []

    def follow() -> None:
        try:
            for event in client.trace():
                begun.set()
                stage.narrate(event)
        except Exception as error:
            failures.append(error)
        finally:
            begun.set()

    def wait_for(packets: int) -> None:
        end = time.monotonic() + _QUIET_S
        while stage.narrated < packets and time.monotonic() < end and thread.is_alive():
            stage.stop.check()
            time.sleep(0.01)

    thread = threading.Thread(target=follow, name="narration", daemon=True)
    thread.start()
    try:
        begun.wait(_QUIET_S)
        if failures:
            raise failures[0]
        yield wait_for
    finally:
        client.close()
        thread.join(_QUIET_S)


def _judge(
    stage: Stage,
    lab: Lab,
    driver: Driver,
    exchanges: list[Exchange],
    evidence: witness.Evidence,
    reasons: list[dict[str, Any]],
) -> Report:
    watched = verdict.Watched(stage.narrated, stage.lost, reasons, stage.warnings)
    return verdict.judge(lab, driver, driver is Driver.SIM, exchanges, evidence, watched)


def _evidence(stage: Stage, lab: Lab) -> witness.Evidence:
    parsed = (frames.parse(one.frame, one.time_ns) for one in Reader(stage.capture))
    cast = witness.Cast(lab.clients[0], lab.balancer, lab.backends, balancer.PORT)
    return witness.examine((segment for segment in parsed if segment), cast)


def _heading(number: int) -> str:
    return f"--- connection {number}: nc on h1 to 10.0.0.10 port {balancer.PORT} ---\n"
