# SPDX-License-Identifier: Apache-2.0
"""The compiled C parts: NAME.bpf.o for the kernel and liblb.so for this process.

They are made by `evener._build` and are not in version control; a wheel carries them.
"""

from __future__ import annotations

from pathlib import Path

from evener.errors import MachineError


def path(name: str) -> Path:
    """The compiled file `name`, such as "lb_xdp.bpf.o"; MachineError if it was not built."""
    file = Path(__file__).with_name(name)
    if not file.is_file():
        raise MachineError(
            f"{name} has not been built",
            str(file.parent),
            "run 'make build', or install evener from a wheel",
        )
    return file
