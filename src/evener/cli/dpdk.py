# SPDX-License-Identifier: Apache-2.0
"""`evener dpdk`, also installed as `evener-dpdk`: the balancer on a device that DPDK opens."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import threading
import time
from contextlib import nullcontext
from ipaddress import IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evener import __version__

if TYPE_CHECKING:
    from evener.lab.standalone import Standalone

_LOOK_S = 0.05


class _Passing(click.Command):
    """Keeps "--" and what is behind it, which click would take away."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = [*args, "--"].index("--")
        ctx.meta["behind"] = args[at:]
        return super().parse_args(ctx, args[:at])


def _addresses(ctx: click.Context, option: Any, values: tuple[str, ...]) -> list[IPv4Interface]:
    for value in values:
        if "/" not in value:
            raise click.BadParameter(f"{value} says no length; such as 10.0.0.10/24")
    try:
        return [IPv4Interface(value) for value in values]
    except ValueError as error:
        raise click.BadParameter(f"{error}; such as 10.0.0.10/24") from error


@click.command(
    name="dpdk",
    cls=_Passing,
    short_help="The balancer on a device of DPDK, beside your bridge.",
    # Whatever is not ours is EAL's.
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
    options_metavar="[OPTIONS]",
)
@click.option("--quiet", is_flag=True, help="Say nothing of packets.")
@click.option("--narrate", is_flag=True, help="Tell also of packets that are left to the kernel.")
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path),
    help="What to balance; devices given here take the place of its own. "
    "Default: 10.0.0.10:8080, to 10.0.0.2:8080 and 10.0.0.3:8080.",
)  # fmt: skip
@click.option(
    "--address", "addresses", metavar="ADDRESS/LENGTH", callback=_addresses, multiple=True,
    default=["10.0.0.10/24"],
    show_default=True, help="The balancer's own, one for each device.",
)  # fmt: skip
@click.version_option(__version__, prog_name="evener", message="%(prog)s %(version)s")
@click.argument("eal", nargs=-1, type=click.UNPROCESSED, metavar="EAL-ARGUMENTS...")
@click.pass_context
def command(
    ctx: click.Context,
    quiet: bool,
    narrate: bool,
    config: Path | None,
    addresses: list[IPv4Interface],
    eal: tuple[str, ...],
) -> None:
    """Run the balancer with DPDK, in the foreground, and narrate each packet. Ctrl-C ends it.

    `evener-dpdk` is the same command.

    EAL-ARGUMENTS are DPDK's own, and go to it as they are: at least a device. The interface of a net_tap
    device is made here, for you to join to a bridge, unless it is there already. The balancer's address
    lives in a network namespace of its own, evener-dpdk; commands find the daemon there. Of all this
    nothing stays at the end. What stays is the machine's: a tmpfs on /run/evener/tables, mounted once.

    FILE may be without [datapath], or be for another driver: what runs is a copy of it with the driver and
    the devices filled in. To change something, edit that copy, which is named at the start, and
    `evener apply` it; FILE itself is refused then, as devices cannot change.

    \b
    Example: evener dpdk -l 0 --vdev=net_tap0,iface=tapdpdk
    """
    from evener.cli.common import read_text
    from evener.lab import standalone
    from evener.lab.arguments import CommandLineError
    from evener.lab.stop import Stop, StoppedError

    if quiet and narrate:
        raise click.UsageError("--quiet and --narrate exclude each other: leave one of them out")
    text = None if config is None else read_text(config)
    words = (*eal, *ctx.meta["behind"])
    stop = Stop()
    try:
        with (
            stop.listening(),
            standalone.running(words, text, str(config), addresses, stop.check) as running,
        ):
            for vip in running.unanswered:
                click.echo(f"evener: {_unanswered(vip)}", err=True)
            click.echo("\n".join(_welcome(running)) + "\n")
            with _Teller(running, narrate) if not quiet else nullcontext():
                while not stop.wanted:
                    _check(running)
                    time.sleep(_LOOK_S)
    except CommandLineError as error:
        raise click.UsageError(str(error)) from error
    except StoppedError as error:  # before it was ready
        click.echo(f"evener: {error}", err=True)
        sys.exit(128 + error.number)


def main() -> None:
    """The entry point of the installed command `evener-dpdk`."""
    from evener.cli.main import cli

    cli(["dpdk", *sys.argv[1:]], prog_name="evener")


def _check(running: Standalone) -> None:
    from evener.lab.balancer import ended

    if (code := running.process.poll()) is not None:
        raise ended(code, running.namespace)


def _unanswered(vip: str) -> str:
    return (
        f"no --address is {vip}, which a service listens on, so nobody answers ARP requests for it: "
        f"add --address {vip}/LENGTH, unless your routers send it here"
    )


def _welcome(running: Standalone) -> list[str]:
    """What runs, and what to try next."""
    inside = _enter(running)
    evener = shutil.which("evener") or shlex.quote(str(Path(sys.executable).with_name("evener")))
    hints = [(f"ip link set {tap} master br0", "join it to your bridge") for tap in running.taps]
    hints += [
        (f"{inside} {evener} show flows", "who talks to whom"),
        (f"{inside} {evener} show reasons", "what became of packets"),
        (f"{inside} {evener} apply {running.config}", "once you have changed that file"),
    ]
    width = max(len(words) for words, _ in hints)
    return ["evener: ready. In another terminal:"] + [
        f"  {w:{width}}   {what}" for w, what in hints
    ]


def _enter(running: Standalone) -> str:
    """How another terminal gets into the namespace. `ip netns exec`, under which we may be ourselves,
    hides mounts from others, and with them the namespace's name."""
    with_name = f"ip netns exec {running.namespace}"
    try:
        ours, theirs = (os.readlink(f"/proc/{pid}/ns/mnt") for pid in ("self", os.getppid()))  # noqa: PTH115
    except OSError:
        return with_name
    return with_name if ours == theirs else f"nsenter --net=/proc/{running.process.pid}/ns/net"


class _Teller:
    """Narrates what is traced, in a thread."""

    def __init__(self, running: Standalone, everything: bool) -> None:
        self._client = running.client
        self._everything = everything
        self._thread = threading.Thread(target=self._follow, name="narration", daemon=True)

    def __enter__(self) -> _Teller:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()
        self._thread.join(1.0)

    def _follow(self) -> None:
        from evener.errors import DaemonError
        from evener.observe.story import narrate

        try:
            for event in self._client.trace():
                if "lost" in event:
                    click.echo(
                        f"evener: {event['lost']} packets came too fast to be told", err=True
                    )
                elif "verdict" in event and (self._everything or event["verdict"] != "pass"):
                    click.echo("\n".join(narrate(event)) + "\n")
        except DaemonError as error:  # whoever waits for the daemon ends
            click.echo(f"evener: {error}", err=True)
