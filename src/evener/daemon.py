# SPDX-License-Identifier: Apache-2.0
"""`evener run CONFIG`: control and interface put together in one process, in the foreground.

Runs in the current network namespace. SIGHUP reads the configuration again. SIGTERM and SIGINT end it and
take the datapath away, unless --keep: then packets go on and the next daemon adopts what it finds, as it
does after a crash. `ready` is said on standard output, and to systemd (sd_notify), when packets are handled.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evener import __version__
from evener import config as configuration
from evener.api.server import Api, serve, status
from evener.control.daemon import Daemon
from evener.errors import DaemonError, EvenerError, MachineError
from evener.instance import RUN_FOLDER, Instance
from evener.lock import locked

log = logging.getLogger("evener")


@contextlib.contextmanager
def only_one(instance: Instance) -> Iterator[None]:
    """Hold the instance's lock; DaemonError if another daemon does."""
    stack = contextlib.ExitStack()
    try:
        RUN_FOLDER.mkdir(mode=0o755, exist_ok=True)
        stack.enter_context(locked(instance.lock))
    except PermissionError as error:
        raise MachineError(
            "evener needs root to handle packets", str(error.filename), "run it with sudo"
        ) from error
    except BlockingIOError:
        raise DaemonError(
            "another evener runs in this network namespace already",
            instance.name,
            "end it first, or change it with `evener apply CONFIG`",
        ) from None
    with stack:
        yield


def notify(state: str) -> None:
    """Tell systemd, if it asked (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.sendto(state.encode(), address.replace("@", "\0", 1))


async def run(daemon: Daemon, keep: bool, instance: Instance) -> None:
    """From start to end. EvenerError: it could not start, or cannot go on, and left nothing behind."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.ended.set)
    await daemon.start()
    reloads: set[asyncio.Task[None]] = set()  # the loop itself holds no task
    loop.add_signal_handler(signal.SIGHUP, _reload, daemon, reloads)
    async with contextlib.AsyncExitStack() as at_end:
        at_end.push_async_callback(daemon.stop, keep)
        runner = await serve(Api(daemon), instance.socket)
        at_end.callback(instance.socket.unlink, missing_ok=True)
        at_end.push_async_callback(runner.cleanup)
        at_end.callback(notify, "STOPPING=1")
        _announce(daemon, await status(daemon))
        notify("READY=1")
        await daemon.ended.wait()
    if daemon.failure is not None:
        raise daemon.failure


def _reload(daemon: Daemon, running: set[asyncio.Task[None]]) -> None:
    async def attempt() -> None:
        notify("RELOADING=1")
        try:
            await daemon.reload()
        except EvenerError as error:
            log.error("reading the file again failed: %s", error)
        except Exception as error:
            log.exception("the configuration could not be read again: %s", error)
        finally:
            notify("READY=1")

    task = asyncio.create_task(attempt())
    running.add(task)
    task.add_done_callback(running.discard)


def _announce(daemon: Daemon, told: dict[str, Any]) -> None:
    for a in daemon.datapath.attachments:
        log.info("attached to %s in %s mode", a.interface, a.mode)
    log.info(
        "%s flows take %.1f MB, all tables %.1f MB",
        f"{daemon.config.datapath.flows:,}",
        daemon.datapath.tables.raw("flows").nbytes / 1e6
        + daemon.datapath.tables.raw("ports").nbytes / 1e6,
        told["memory_bytes"] / 1e6,
    )
    if daemon.adopted:
        log.info("flows taken over from the daemon before: %d", told["flows"]["now"])
    for service in daemon.config.services:
        log.info("service %s on %s", service.name, service.listen)
    log.info("ready: generation %d, pid %d", told["generation"], told["pid"])


def main() -> int:
    """The command line of the daemon itself; `evener run` hands over to it."""
    parser = argparse.ArgumentParser("evener run", description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument(
        "--keep", action="store_true", help="leave the datapath in force at the end"
    )
    parser.add_argument("--version", action="version", version=__version__)
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="evener: %(message)s", stream=sys.stderr, force=True
    )
    instance = Instance.here()
    try:
        with only_one(instance):
            path: Path = arguments.config
            daemon = Daemon(configuration.load(path), path.absolute(), instance)
            asyncio.run(run(daemon, arguments.keep, instance))
    except EvenerError as error:
        print(f"evener: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
