# SPDX-License-Identifier: Apache-2.0
"""A worker that handles no packets, for tests of who starts and watches it: the lock, the head of the shared
file, and the manners of drivers/dpdk. It uses none of evener's code, as the worker does.

Behind "--" it takes, besides the worker's own arguments: --fail=TEXT, --code=N and --before=LINE (end early),
--hang (never be ready), --once (end as soon as it is ready), --still (lanes stand still), --stubborn (ignore
SIGTERM).
"""

import fcntl
import mmap
import os
import signal
import struct
import sys
import time
from pathlib import Path

WORKER, READY, LANES, LANE = 68, 72, 76, 512  # offsets of struct lb_share
ROUNDS, RUNNING = LANE, LANE + 8


def main() -> int:
    given = dict(a.partition("=")[::2] for a in sys.argv[sys.argv.index("--") + 1 :])
    for text in sys.argv:
        if text.startswith("--kernel="):
            os.fstat(int(text.split(":")[1]))  # it was inherited
    if "--fail" in given or "--code" in given:
        print(given.get("--before", ""), file=sys.stderr)
        print(f"evener-dpdk: {given.get('--fail', '')}", file=sys.stderr)
        return int(given.get("--code", "7"))
    with Path(given["--tables"]).open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        memory = mmap.mmap(file.fileno(), 0)
        ended: list[int] = []
        signal.signal(
            signal.SIGTERM, lambda n, _: None if "--stubborn" in given else ended.append(n)
        )
        struct.pack_into("<I", memory, RUNNING, 0)
        struct.pack_into("<I", memory, WORKER, os.getpid())
        while "--hang" in given:
            time.sleep(0.001)
            if ended:
                return 0
        struct.pack_into("<I", memory, LANES, 1)
        struct.pack_into("<I", memory, RUNNING, 1)
        print("evener-dpdk: ready: 1 port, 1 lane", file=sys.stderr, flush=True)
        struct.pack_into("<I", memory, READY, 1)
        if "--once" in given:
            print("evener-dpdk: once is enough", file=sys.stderr, flush=True)
            return 7
        while not ended:
            if "--still" not in given:
                (rounds,) = struct.unpack_from("<Q", memory, ROUNDS)
                struct.pack_into("<Q", memory, ROUNDS, rounds + 1)
            time.sleep(0.0005)
        struct.pack_into("<I", memory, RUNNING, 0)
        struct.pack_into("<I", memory, READY, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
