# SPDX-License-Identifier: Apache-2.0
"""evener._build in a project of its own: what is compiled, when again, and what is said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from evener import _build
from tests.support.bpf import ROOT

pytestmark = pytest.mark.skipif(
    not (shutil.which("cc") and shutil.which("clang")), reason="needs cc and clang"
)


@pytest.fixture
def project(tmp_path):
    for name, text in {
        "core/lb.h": "#define ANSWER 42\n",
        "drivers/native/lb_native.c": '#include "lb.h"\nint answer(void) { return ANSWER; }\n',
        "drivers/xdp/some.bpf.c": "int some(void *ctx) { return 2; }\n",
        "bench/other.bpf.c": "int other(void) { return 1; }\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def compiled(project):
    lines = []
    _build.build_all(project, lines.append)
    return sorted(line.removeprefix("compiling ") for line in lines)


def test_everything_once(project):
    assert compiled(project) == [
        "bench/other.bpf.c",
        "drivers/native/lb_native.c",
        "drivers/xdp/some.bpf.c",
    ]
    assert compiled(project) == []
    made = {path.name for path in (project / _build.NATIVE).glob("[!.]*")}
    assert made == {"liblb.so", "some.bpf.o", "other.bpf.o"}


def test_no_path_of_this_machine_is_in_the_result(project):
    compiled(project)
    for path in (project / _build.NATIVE).glob("[!.]*"):
        assert os.fsencode(project) not in path.read_bytes()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda root: (root / "core/lb.h").write_text("#define ANSWER 43\n"), ["native"]),
        (lambda root: (root / _build.NATIVE / "some.bpf.o").unlink(), ["xdp"]),
        (lambda root: (root / _build.NATIVE / ".liblb.so.json").write_text("{"), ["native"]),
    ],
    ids=["a header", "the result", "the record"],
)
def test_again_what_a_change_touches(project, change, expected):
    compiled(project)
    change(project)
    assert [line.split("/")[1] for line in compiled(project)] == expected
    assert compiled(project) == []


def test_a_failed_compilation_keeps_the_old_file_and_shows_the_compiler(project):
    compiled(project)
    library = project / _build.NATIVE / "liblb.so"
    before = library.read_bytes()
    (project / "drivers/native/lb_native.c").write_text("int answer(void) { return nothing; }\n")
    with pytest.raises(_build.BuildError, match=r"(?s)refused drivers/native/lb_native.c.*nothing"):
        compiled(project)
    assert library.read_bytes() == before
    with pytest.raises(_build.BuildError):
        compiled(project)


def test_a_missing_compiler_is_named_with_its_package(project, monkeypatch):
    monkeypatch.setenv("CLANG", "no-such-clang")
    with pytest.raises(_build.BuildError, match=r"no no-such-clang .* Debian's package clang"):
        compiled(project)


def test_builds_at_once_take_turns(project):
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: compiled(project), range(4)))
    assert sorted(map(len, runs)) == [0, 0, 0, 3]


@pytest.mark.slow
def test_a_wheel_carries_what_was_compiled(tmp_path):
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    subprocess.run([*wheel, "--wheel-dir", tmp_path, ROOT], check=True)
    (file,) = tmp_path.glob("evener-*-py3-none-linux_*.whl")
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert not [name for name in names if ".lock" in name or name.endswith(".json")]
    ask = (
        "from evener import _native; print(_native.path('liblb.so'), _native.path('lb_xdp.bpf.o'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    run = subprocess.run(
        [sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True
    )
    assert all(path.startswith(str(tmp_path)) for path in run.stdout.split())


@pytest.fixture
def worker(project, monkeypatch):
    """A DPDK worker of two files, and a pkg-config that says what this libdpdk needs."""
    for name, text in {
        "drivers/dpdk/main.c": '#include "worker.h"\nint main(void) { return lane(); }\n',
        "drivers/dpdk/lane.c": '#include "worker.h"\n#include "lb.h"\n#include <odd.h>\n'
        "int lane(void) { return ANSWER + odd() - 43 - LOUD; }\n",
        "drivers/dpdk/worker.h": "int lane(void);\n",
        "system/odd.h": "static inline odd(void) { return 1; }\n",  # a warning
        "tools/pkg-config": '#!/bin/sh\n[ "$2" = libdpdk ] || exit 1\ncase $1 in\n'
        f"--cflags) echo -I{project}/system -DLOUD=0;;\n--libs) echo -Wl,--as-needed -lm;;\nesac\n",
    }.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (project / "tools/pkg-config").chmod(0o755)
    monkeypatch.setenv("PATH", f"{project}/tools:{os.environ['PATH']}")
    return project / _build.NATIVE / "evener-dpdk"


def test_the_worker_is_made_of_all_its_files(project, worker):
    assert "drivers/dpdk/main.c" in compiled(project)
    assert subprocess.run([worker]).returncode == 0
    for change in ("drivers/dpdk/worker.h", "drivers/dpdk/main.c", "drivers/dpdk/lane.c"):
        (project / change).touch()
        assert compiled(project) == ["drivers/dpdk/main.c"]


def test_the_worker_under_the_address_sanitizer_on_demand(project, worker):
    compiled(project)
    asan = worker.with_name("evener-dpdk-asan")
    assert not asan.exists()
    assert _build.build_named(["evener-dpdk-asan"], project, print) == [asan]
    assert b"__asan_init" in asan.read_bytes()
    with pytest.raises(_build.BuildError, match=r"no such: there are evener-dpdk, .*-asan, liblb"):
        _build.build_named(["such"], project, print)


def test_without_libdpdk_all_the_rest_is_made(project, worker, monkeypatch):
    (project / "tools/pkg-config").write_text("#!/bin/sh\nexit 1\n")
    assert (
        "without the driver dpdk: libdpdk is not installed: install Debian's packages libdpdk-dev"
        " and pkgconf"
    ) in compiled(project)
    assert (project / _build.NATIVE / "liblb.so").exists()
    assert not worker.exists()
    with pytest.raises(_build.BuildError, match="libdpdk-dev"):
        _build.build_named(["evener-dpdk-asan"], project, print)
