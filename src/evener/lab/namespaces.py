# SPDX-License-Identifier: Apache-2.0
"""Named network namespaces: make them, delete them, do things inside them.

Only the *network* namespace is ever changed. `ip netns exec` also gives the command a mount
namespace with a fresh /sys, which hides the bpffs that maps and links are pinned in.

A namespace belongs to a thread, so work inside one is done by a short-lived thread that enters it,
and a process that such a thread starts is born there. The calling thread never moves; there is no
fork and no preexec function, which makes this safe in a program with threads. (Python 3.11 has no
`os.setns` and no `os.unshare`, hence ctypes; `evener.netns`.)

Names are files in /run/netns, as iproute2 makes them: `ip netns list` and `ip -n NAME` work on ours
too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from evener import netns
from evener.errors import EvenerError, MachineError
from evener.netns import CLONE_NEWNET, Offload, in_thread, libc, offload, os_error, set_offload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

__all__ = [
    "DIRECTORY", "Offload", "create", "delete", "enter", "in_namespace", "inode", "names", "offload",
    "popen", "run", "set_offload", "sysctl",
]  # fmt: skip

DIRECTORY = Path("/run/netns")

_MS_BIND, _MS_REC, _MS_SHARED, _MNT_DETACH = 0x1000, 0x4000, 1 << 20, 2


def names() -> list[str]:
    """The names of all named network namespaces of this machine, sorted."""
    try:
        return sorted(entry.name for entry in DIRECTORY.iterdir())
    except FileNotFoundError:
        return []


def inode(name: str) -> int:
    """The inode number of a namespace, that of /proc/self/ns/net inside.

    The kernel gives the number of a deleted namespace to the next new one.
    """
    return _path(name).stat().st_ino


def create(name: str) -> None:
    """Make an empty namespace with this name.

    Raises EvenerError when the name is taken, MachineError when this user may not make namespaces.
    """
    path = DIRECTORY / name
    try:
        _share_directory()
        path.touch(0o444, exist_ok=False)
    except FileExistsError:
        raise EvenerError(
            "a network namespace of this name exists", name, f"ip netns del {name}"
        ) from None
    except PermissionError as error:
        raise MachineError(
            f"cannot make network namespaces: {error.strerror}", name, "run it as root"
        ) from error
    try:
        in_thread(lambda: _unshare_to(path))
    except BaseException as error:
        path.unlink()
        if isinstance(error, PermissionError):
            raise MachineError(
                f"cannot make network namespaces: {error.strerror}", name, "run it as root"
            ) from error
        raise


def delete(name: str) -> bool:
    """Remove a name; says whether it was there.

    The namespace itself goes when its last process and its last socket are gone.
    """
    path = DIRECTORY / name
    failed = libc.umount2(os.fsencode(path), _MNT_DETACH) != 0
    # EINVAL: a file that was never mounted on, left by an unlucky creation
    if failed and ctypes.get_errno() not in (errno.EINVAL, errno.ENOENT):
        raise os_error(f"umount of {path}")
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def enter(name: str) -> None:
    """Move the calling thread, and what it starts from now on, into the namespace, for good."""
    with _path(name).open("rb") as file:
        netns.enter(file.fileno(), name)


def bind(path: Path) -> None:
    """Give the calling thread's namespace another name, the file `path`, that outlives the thread.

    Everything here takes such a path in place of a name; `delete` removes it."""
    path.touch(0o444)
    _bind_to(path)


def in_namespace(name: str, function: Callable[[], T]) -> T:
    """Call `function` in a thread that has entered the namespace; pass on its result or exception.

    Sockets that it opens stay in the namespace and can be used by every thread afterwards. Code
    that sets PR_SET_PDEATHSIG in a child started here would see it killed at once: the thread is
    the parent.
    """

    def work() -> T:
        enter(name)
        return function()

    return in_thread(work)


def popen(
    name: str,
    command: Sequence[str | Path],
    *,
    stdin: int | IO[Any] | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    env: Mapping[str, str] | None = None,
    start_new_session: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a command inside a namespace and let it run; FileNotFoundError when there is none.

    In a session of its own it does not get the Ctrl-C of our terminal.
    """
    return in_namespace(
        name,
        lambda: subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            start_new_session=start_new_session,
        ),
    )


def run(
    name: str,
    command: Sequence[str | Path],
    *,
    stdin: str = "",
    timeout: float = 10.0,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command inside a namespace to its end; `timeout` in seconds.

    Raises subprocess.CalledProcessError (with `check`) and subprocess.TimeoutExpired as
    subprocess.run does.
    """
    return in_namespace(
        name,
        lambda: subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout, check=check
        ),
    )


def sysctl(key: str, value: str) -> None:
    """Set a network sysctl of the *current* namespace, for example `net/ipv4/ip_forward`."""
    Path("/proc/sys", key).write_text(value)


def _path(name: str) -> Path:
    path = DIRECTORY / name
    if not path.exists():
        raise EvenerError(
            "no network namespace of this name", name, "ip netns list shows those there are"
        )
    return path


def _share_directory() -> None:
    """Make /run/netns a shared mount, as iproute2 does: a name that goes, goes everywhere."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    path = os.fsencode(DIRECTORY)
    if libc.mount(b"", path, b"none", _MS_SHARED | _MS_REC, None) == 0:
        return
    if ctypes.get_errno() != errno.EINVAL:  # EINVAL: it is not a mount point yet
        raise os_error(f"sharing of {DIRECTORY}")
    if libc.mount(path, path, b"none", _MS_BIND | _MS_REC, None) != 0:
        raise os_error(f"mount of {DIRECTORY}")
    if libc.mount(b"", path, b"none", _MS_SHARED | _MS_REC, None) != 0:
        raise os_error(f"sharing of {DIRECTORY}")


def _unshare_to(path: Path) -> None:
    """Give the calling thread a network namespace of its own and bind it to a file."""
    if libc.unshare(CLONE_NEWNET) != 0:
        raise os_error("unshare")
    _bind_to(path)


def _bind_to(path: Path) -> None:
    if libc.mount(b"/proc/thread-self/ns/net", os.fsencode(path), b"none", _MS_BIND, None) != 0:
        raise os_error(f"mount of {path}")
