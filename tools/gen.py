# SPDX-License-Identifier: Apache-2.0
"""Writes what Python and C must agree on, from the C core: never by hand, never kept in sync by a comment.

    python tools/gen.py            rewrite
    python tools/gen.py --check    1 when something is stale, and what

Outputs: `src/evener/_generated/layout.py` (NumPy dtypes of every record, from the type information of
the compiled BPF object; constants from the headers), `reasons.py` (from core/reasons.h),
`_native.py` (how to call the native library), `drivers/native/layout_check.h` (the same offsets as
assertions, so that the native compiler lays records out as the BPF compiler did).
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cffi

from evener._build import bpf_target, build

ROOT = Path(__file__).parents[1]
GENERATED = ROOT / "src/evener/_generated"
OBJECT = ROOT / "src/evener/_native/lb_xdp.bpf.o"
RECORDS = (
    "addr", "settings", "copy", "endpoint", "index_group", "nexthop", "service", "backend", "snat",
    "slot_line", "route", "flow", "flow_group", "port_line", "wanted", "learned", "counter", "view",
    "plan", "event", "event_head",
)  # fmt: skip
INTEGERS = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}
HEADER = "# SPDX-License-Identifier: Apache-2.0\n# Written by tools/gen.py; do not edit.\n"


class Types:
    """The BTF of the object: struct members with offsets in bytes."""

    def __init__(self, path: Path) -> None:
        done = subprocess.run(
            ["bpftool", "btf", "dump", "file", str(path), "-j"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        types = json.loads(done.stdout)["types"]
        self._by_id: dict[int, dict[str, Any]] = {t["id"]: t for t in types}
        self._structs = {t["name"]: t for t in types if t["kind"] == "STRUCT"}

    def struct(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._structs[name]
        return found

    def resolve(self, type_id: int) -> dict[str, Any]:
        found = self._by_id[type_id]
        while found["kind"] in ("TYPEDEF", "CONST", "VOLATILE"):
            found = self._by_id[found["type_id"]]
        return found

    def members(self, name: str) -> list[tuple[str, int, dict[str, Any]]]:
        """(name, offset, type), unnamed unions replaced by their last member."""
        out = []
        for member in self.struct(name)["members"]:
            found = self.resolve(member["type_id"])
            label, offset = member["name"], member["bits_offset"] // 8
            if found["kind"] == "UNION":
                inner = found["members"][-1]
                label, found = inner["name"], self.resolve(inner["type_id"])
            out.append((label, offset, found))
        return out

    def dtype(self, found: dict[str, Any]) -> str:
        """The Python source of a NumPy format for a type."""
        if found["kind"] == "INT":
            return f'"{INTEGERS[found["size"]]}"'
        if found["kind"] == "ARRAY":
            return f"({self.dtype(self.resolve(found['type_id']))}, ({found['nr_elems']},))"
        return str(found["name"]).removeprefix("lb_").upper()


def constants() -> dict[str, int]:
    """Every enumerator of the core's headers, by the compiler's own reading."""
    names = set()
    for header in sorted((ROOT / "core").glob("*.h")):
        text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.S)
        for body in re.findall(r"\benum\b[^{;]*\{(.*?)\}", text, flags=re.S):
            names.update(re.findall(r"\b(LB_[A-Z0-9_]+)\b(?=\s*(?:=|,|$))", body))
    probe = '#include "burst.h"\n#include <stdio.h>\nint main(void){\n'
    probe += "".join(f'printf("{n} %lld\\n",(long long){n});\n' for n in sorted(names))
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "probe.c"), Path(folder, "probe")
        source.write_text('#include "env_memory.h"\n' + probe + "}\n")
        include = [f"-I{ROOT / 'core'}", f"-I{ROOT / 'drivers/native'}"]
        subprocess.run(["cc", "-w", *include, "-o", str(binary), str(source)], check=True)
        lines = subprocess.run([str(binary)], check=True, capture_output=True, text=True).stdout
    return {n.removeprefix("LB_"): int(v) for n, v in (line.split() for line in lines.splitlines())}


def layout(types: Types) -> str:
    out = [HEADER, '"""Records of core/tables.h as NumPy dtypes, and the core\'s constants."""\n']
    out.append(
        "from __future__ import annotations\n\nfrom typing import Final\n\nimport numpy as np\n"
    )
    out += [f"{name}: Final = {value}" for name, value in sorted(constants().items())]
    for record in RECORDS:
        members = types.members(f"lb_{record}")
        names = ", ".join(f'"{m[0]}"' for m in members)
        formats = ", ".join(types.dtype(m[2]) for m in members)
        offsets = ", ".join(str(m[1]) for m in members)
        out.append(
            f'\n{record.upper()} = np.dtype(\n    {{\n        "names": [{names}],\n'
            f'        "formats": [{formats}],\n        "offsets": [{offsets}],\n'
            f'        "itemsize": {types.struct(f"lb_{record}")["size"]},\n    }}\n)'
        )
    return "\n".join(out) + "\n"


def layout_check(types: Types) -> str:
    out = ["/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */"]
    out += ["/* Written by tools/gen.py: the BPF object's layouts, asserted of this compiler's. */"]
    out += ["#ifndef LB_LAYOUT_CHECK_H", "#define LB_LAYOUT_CHECK_H", '#include "tables.h"']
    for record in RECORDS:
        name = f"lb_{record}"
        size = types.struct(name)["size"]
        out.append(f'_Static_assert(sizeof(struct {name}) == {size}, "{name}");')
        for label, offset, _ in types.members(name):
            what = f"__builtin_offsetof(struct {name}, {label}) == {offset}"
            out.append(f'_Static_assert({what}, "{name}.{label}");')
    return "\n".join([*out, "#endif", ""])


def reasons() -> str:
    text = (ROOT / "core/reasons.h").read_text().replace("\\\n", "\n")
    found = re.findall(r'X\((\w+),\s*(\w+),\s*"([^"]+)"\)', text)
    out = [HEADER, '"""Why packets are forwarded, passed or dropped (core/reasons.h)."""\n']
    out.append("from __future__ import annotations\n\nfrom enum import IntEnum\n\n")
    out.append("class Verdict(IntEnum):\n    PASS = 0\n    DROP = 1\n    FORWARD = 2\n\n")
    out.append("class Reason(IntEnum):")
    out += [f"    {name} = {number}" for number, (name, _, _) in enumerate(found)]
    out.append("\n\nVERDICTS: dict[Reason, Verdict] = {")
    out += [f"    Reason.{name}: Verdict.{verdict}," for name, verdict, _ in found]
    out.append("}\n\nSENTENCES: dict[Reason, str] = {")
    out += [f'    Reason.{name}: "{sentence}",' for name, _, sentence in found]
    return "\n".join([*out, "}", ""])


def native() -> str:
    """The out-of-line cffi module for liblb.so: declarations read from the C source."""
    header = (ROOT / "core/env_memory.h").read_text()
    source = (ROOT / "drivers/native/lb_native.c").read_text()
    struct = re.search(r"struct lb_env \{.*?\};", header, flags=re.S)
    assert struct is not None
    functions = re.findall(r"^LB_API ([^{]+?)\n\{", source, flags=re.M | re.S)
    ffi = cffi.FFI()
    ffi.cdef(struct.group(0) + "\n" + "\n".join(f"{f};" for f in functions))
    ffi.set_source("_native", None)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        ffi.compile(tmpdir=folder)
        return Path(folder, "_native.py").read_text()


def formatted(text: str) -> str:
    ruff = Path(sys.executable).with_name("ruff")
    command = [str(ruff), "format", "--stdin-filename", "layout.py", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout


def main() -> int:
    source = ROOT / "drivers/xdp/lb_xdp.bpf.c"
    build(bpf_target(source.relative_to(ROOT), OBJECT), ROOT, lambda _: None)
    types = Types(OBJECT)
    outputs = {
        GENERATED / "layout.py": formatted(layout(types)),
        GENERATED / "reasons.py": formatted(reasons()),
        GENERATED / "_native.py": native(),
        ROOT / "drivers/native/layout_check.h": layout_check(types),
    }
    stale = [p for p, text in outputs.items() if not p.exists() or p.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run make generate")
        return 1 if stale else 0
    for path in stale:
        path.write_text(outputs[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
