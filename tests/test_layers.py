# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: the arrows of the architecture, read from the sources.

A name stands for a module and all below it; the longest name that fits a module is its layer. What a
layer may import it may import from any depth; itself always.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"

VALUES = ("evener.errors", "evener.model", "evener._generated", "evener.__version__")
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    # values, and what makes them from text: no I/O but reading the file, no clock
    "evener.errors": (),
    "evener.clock": (),
    "evener._generated": (),
    "evener._native": ("evener.errors",),
    "evener._build": (),
    "evener.instance": ("evener.errors",),
    "evener.lock": (),
    "evener.process": (),
    "evener.netns": ("evener.errors",),
    "evener.pcap": ("evener.errors",),
    "evener.eal": (),
    "evener.model": ("evener.errors",),
    "evener.config": ("evener.errors", "evener.model", "evener.eal"),
    # pure: the effective model and old ids in, records out
    "evener.tables": VALUES,
    # memory, programs, interfaces; the simulator
    "evener.datapath": (
        *VALUES,
        "evener.clock",
        "evener.eal",
        "evener.instance",
        "evener.netns",
        "evener.process",
        "evener.tables",
    ),
    # those who look: the reading half of the seam, and the core in a scratch copy
    "evener.observe": (
        *VALUES,
        "evener.tables",
        "evener.datapath.base",
        "evener.datapath.native",
    ),
    # the one who changes anything: knows nothing of those who look or ask
    "evener.control": (
        *VALUES,
        "evener.clock",
        "evener.config",
        "evener.instance",
        "evener.netns",
        "evener.tables",
        "evener.datapath",
    ),
    # questions go to observe, wishes to control, through what the daemon hands in
    "evener.api": (
        *VALUES,
        "evener.instance",
        "evener.observe",
        "evener.tables",
        "evener.datapath.base",
        "evener.datapath.native",
    ),
    "evener.api.client": ("evener.errors", "evener.instance"),
    "evener.daemon": (
        *VALUES,
        "evener.instance",
        "evener.lock",
        "evener.config",
        "evener.control",
        "evener.observe",
        "evener.api.server",
    ),
    # thin clients: a live daemon through its socket, everything else with the simulator
    "evener.lab": (
        *VALUES,
        "evener.config",
        "evener.eal",
        "evener.instance",
        "evener.lock",
        "evener.netns",
        "evener.observe",
        "evener.pcap",
        "evener.process",
        "evener.tables",
        "evener.api.client",
        "evener.datapath",
    ),
    "evener.cli": (
        *VALUES,
        "evener.clock",
        "evener.config",
        "evener.instance",
        "evener.lab",
        "evener.observe",
        "evener.pcap",
        "evener.tables",
        "evener.api.client",
        "evener.datapath.base",
        "evener.datapath.native",
        "evener.datapath.probe",
        "evener.datapath.sim",
    ),
    "evener.bench": (
        *VALUES,
        "evener.clock",
        "evener.tables",
        "evener.datapath",
        "evener.instance",
        "evener.lab.namespaces",
    ),
}
IMPURE = {
    "asyncio", "datetime", "os", "pathlib", "random", "secrets", "select", "shutil", "signal", "socket",
    "subprocess", "tempfile", "threading", "time",
}  # fmt: skip
PURE = ("evener.model", "evener.tables", "evener.observe", "evener.eal")
"""They get time, randomness and I/O as arguments, or not at all."""

MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}


def imports(module: str) -> Iterator[str]:
    """The full name of everything that a module imports, anywhere in it but for type checking."""
    for node in runtime_nodes(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_name = whole in MODULES or node.module == "evener"
                yield whole if is_name else str(node.module)


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from runtime_nodes(node)


def is_below(name: str, layer: str) -> bool:
    return name == layer or name.startswith(f"{layer}.")


def layer_of(module: str) -> str:
    fitting = [layer for layer in MAY_IMPORT if is_below(module, layer)]
    return max(fitting, key=len, default="")


@pytest.mark.parametrize("module", [module for module in MODULES if module != "evener"])
def test_imports(module: str) -> None:
    layer = layer_of(module)
    assert layer, f"{module} belongs to no layer: say in MAY_IMPORT whom it may import"
    allowed = (layer, *MAY_IMPORT[layer])
    for name in imports(module):
        if is_below(name, "evener") and name != "evener":
            assert any(is_below(name, other) for other in allowed), f"{module} imports {name}"
        elif any(is_below(module, pure) for pure in PURE):
            assert name.partition(".")[0] not in IMPURE, f"{module} imports {name}"


def test_the_package_itself_imports_nothing_of_ours() -> None:
    assert not [name for name in imports("evener") if is_below(name, "evener")]


def test_layers_have_no_cycle() -> None:
    """`a` may import `b` and `b` may not, by any way, import `a`."""
    order: list[str] = []

    def visit(layer: str, path: tuple[str, ...]) -> None:
        assert layer not in path, " -> ".join((*path, layer))
        if layer not in order:
            for other in MAY_IMPORT.get(layer_of(layer), ()):
                if layer_of(other) not in ("", layer):
                    visit(layer_of(other), (*path, layer))
            order.append(layer)

    for layer in MAY_IMPORT:
        visit(layer, ())


@pytest.mark.parametrize("module", ["evener.api.client", "evener.cli.main"])
def test_the_command_starts_without_what_is_slow_to_load(module: str) -> None:
    """What these import at the top, by any way, is the standard library, click and a little of ours."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name in seen or name not in MODULES:
            continue
        seen.add(name)
        for node in ast.parse(MODULES[name].read_text()).body:
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found = [str(node.module), *(f"{node.module}.{a.name}" for a in node.names)]
            else:
                continue
            todo += found
            foreign = {f.partition(".")[0] for f in found} - {"evener", "click", "rich"}
            assert foreign <= sys.stdlib_module_names, f"{name} imports {foreign}"


# ---------------------------------------------------------------------------------------- C

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^">]+)[>"]', re.MULTILINE)
PLATFORM = {
    "core": set[str](),
    "drivers/dpdk": {
        *(f"rte_{n}.h" for n in ("cycles", "dev", "devargs", "eal", "errno", "ethdev")),
        *(f"rte_{n}.h" for n in ("launch", "lcore", "mbuf", "prefetch")),
        "errno.h",
        "fcntl.h",
        "getopt.h",
        "linux/if.h",
        "linux/if_tun.h",
        "net/if.h",
        "sched.h",
        "signal.h",
        "stdarg.h",
        "stdatomic.h",
        "stddef.h",
        "stdio.h",
        "stdlib.h",
        "string.h",
        "sys/file.h",
        "sys/ioctl.h",
        "sys/mman.h",
        "sys/socket.h",
        "sys/stat.h",
        "sys/un.h",
        "time.h",
        "unistd.h",
    },
    "drivers/native": set[str](),
    "drivers/xdp": {"linux/bpf.h", "bpf/bpf_helpers.h"},
}
"""Headers of others, by folder. The core has none; a driver has those of its platform."""


def c_files(folder: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).iterdir()) if path.suffix in (".h", ".c")]


@pytest.mark.parametrize("folder", PLATFORM)
def test_includes(folder: str) -> None:
    own = {path.name for path in c_files(folder)}
    core = {path.name for path in c_files("core")}
    for path in c_files(folder):
        for kind, name in INCLUDE.findall(path.read_text()):
            allowed = PLATFORM[folder] if kind == "<" else own | core
            assert name in allowed, f"{path.relative_to(ROOT)} includes {name}"


def test_every_driver_has_its_rule() -> None:
    folders = {f"drivers/{path.name}" for path in (ROOT / "drivers").iterdir() if path.is_dir()}
    assert folders == set(PLATFORM) - {"core"}


def test_what_the_core_may_ask_of_its_surroundings_is_in_one_place() -> None:
    """Helpers and maps belong to drivers, reached through lb_env_ alone."""
    for path in c_files("core"):
        text = path.read_text()
        assert not re.search(
            r"\bbpf_\w+\(|\brte_\w+|\bmalloc\b|\bstatic\s+(?!inline)\w+.*;$", text
        ), path


# ------------------------------------------------------------------------- once, and no second time


@pytest.mark.parametrize(
    ("what", "where"),
    [
        (r"\.setns\(", "evener.netns"),
        (r"\b0x8946\b", "evener.netns"),  # SIOCETHTOOL
        (r"(?i)\b0xa1b23c4d\b", "evener.pcap"),  # how capture files begin
        (r"\"vfio-intr\"", "evener.eal"),  # the options of DPDK's EAL
    ],
)
def test_what_is_done_in_one_place(what: str, where: str) -> None:
    assert [name for name, path in MODULES.items() if re.search(what, path.read_text())] == [where]
