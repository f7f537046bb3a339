# SPDX-License-Identifier: Apache-2.0
"""The command line of DPDK's EAL, and behind "--" the worker's own, read as these two read them: by the rules
of getopt_long(3).

Pure: lists of words in, names and values out. `-a0000:01:00.0`, `-a 0000:01:00.0`, `--allow=0000:01:00.0`,
`--allow 0000:01:00.0` and `--al=0000:01:00.0` are one and the same. A word that an option takes as its value
is no option, whatever it looks like. Whether DPDK likes the values is for DPDK to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

_SHORT: Final = {
    "a": "allow", "b": "block", "c": "c", "d": "d", "l": "l", "m": "m", "n": "n", "r": "r", "s": "s",
    "S": "S", "w": "allow",
}  # fmt: skip
"""Those with a value, and their names here; -w is what -a was before DPDK 20.11."""
_WITH_VALUE: Final = (
    "allow", "base-virtaddr", "block", "file-prefix", "force-max-simd-bitwidth", "huge-dir", "iova-mode",
    "lcores", "log-level", "main-lcore", "mbuf-pool-ops-name", "proc-type", "socket-limit", "socket-mem",
    "syslog", "trace", "trace-bufsz", "trace-dir", "trace-mode", "vdev", "vfio-intr", "vfio-vf-token",
)  # fmt: skip
_WITHOUT_VALUE: Final = (
    "create-uio-dev", "help", "in-memory", "legacy-mem", "match-allocations", "no-hpet", "no-huge", "no-pci",
    "no-shconf", "no-telemetry", "single-file-segments", "telemetry", "vmware-tsc-map",
    # These have one only behind "=".
    "huge-unlink", "huge-worker-stack",
)  # fmt: skip
_LONG: Final = (*_WITH_VALUE, *_WITHOUT_VALUE)
_OWN: Final = ("tables", "kernel", "netns", "idle-us")
"""The worker's (drivers/dpdk/main.c), all with a value; a test compares them."""


class Option(NamedTuple):
    """One option. name: as --name has it, or the letter of one that has no long name; value: "" if there is
    none."""

    name: str
    value: str


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The EAL's words, and the worker's own behind "--"."""
    at = words.index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at + 1 :])


def options(words: Sequence[str]) -> Iterator[Option]:
    """The EAL's options in their order; what is behind "--" is not the EAL's. A word that belongs to none,
    which the EAL ignores, has no name."""
    given = iter(split(words)[0])
    for word in given:
        if word.startswith("--"):
            yield _long(word, given, _LONG, _WITH_VALUE)
        elif word.startswith("-"):
            for at, letter in enumerate(word[1:], 2):
                if letter in _SHORT:
                    yield Option(_SHORT[letter], word[at:] or next(given, ""))
                    break
                yield Option(letter, "")
        else:
            yield Option("", word)


def own_options(words: Sequence[str]) -> Iterator[Option]:
    """The worker's options, those behind "--", in their order, and its words that belong to none."""
    given = iter(split(words)[1])
    for word in given:
        if word == "--":
            return
        yield _long(word, given, _OWN, _OWN) if word.startswith("--") else Option("", word)


def _long(
    word: str, following: Iterator[str], known: Sequence[str], with_value: Sequence[str]
) -> Option:
    """One with a long name, which may be cut short for as long as it means one alone."""
    name, equals, value = word[2:].partition("=")
    meant = [whole for whole in known if whole.startswith(name)]
    name = meant[0] if len(meant) == 1 else name
    return Option(name, value if equals or name not in with_value else next(following, ""))


def has(words: Sequence[str], *names: str) -> bool:
    """Whether one of the options is given."""
    return any(option.name in names for option in options(words))


def value(words: Sequence[str], *names: str) -> str | None:
    """What the last of the options says; None if none is given."""
    found = [option.value for option in options(words) if option.name in names]
    return found[-1] if found else None


def own_value(words: Sequence[str], name: str) -> str | None:
    """What the last of the worker's options of that name says; None if none is given."""
    found = [option.value for option in own_options(words) if option.name == name]
    return found[-1] if found else None


def strays(words: Sequence[str]) -> list[str]:
    """Words that are no option and no option's value."""
    return [option.value for option in options(words) if not option.name]


def devices(words: Sequence[str]) -> list[str]:
    """What DPDK makes a port of: virtual devices (--vdev), and addresses on a bus (-a, --allow)."""
    return [o.value for o in options(words) if o.name in ("vdev", "allow")]


def interface_of(device: str) -> str:
    """The kernel's interface that a device opens; "" if its arguments name none. What is a path (net_vhost)
    or a pattern is none (drivers/dpdk/devices.c)."""
    _, _, behind = device.partition(",iface=")
    name = behind.partition(",")[0]
    return "" if "/" in name or "%" in name else name
