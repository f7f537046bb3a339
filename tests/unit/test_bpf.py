# SPDX-License-Identifier: Apache-2.0
"""evener.datapath.bpf against the real kernel: what Python sees is what the program sees.

Interfaces are one veth pair (one, two) in a namespace of its own; pins go into a folder of their
own below /sys/fs/bpf. Both are gone afterwards.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evener.datapath import bpf, libbpf
from evener.errors import DatapathError, InterfaceError, MachineError
from evener.lab import namespaces
from tests.support.bpf import ROOT, compile_bpf, needs_bpf, needs_namespaces

UNIQUE = f"evener-test-{os.getpid()}-bpf"
FRAME = bytes(range(60))
KEY = struct.Struct("=I").pack


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return compile_bpf(ROOT / "tests/support/bpf_sample.bpf.c", tmp_path_factory.mktemp("bpf"))


@pytest.fixture
def loaded(sample):
    with bpf.Object(sample) as obj:
        yield obj.load()


@pytest.fixture
def pins():
    folder = bpf.ensure_bpffs() / UNIQUE
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def namespace():
    """The veth pair's namespace; its name."""
    namespaces.create(UNIQUE)
    try:
        link = ["ip", "-n", UNIQUE, "link"]
        subprocess.run([*link, "add", "one", "type", "veth", "peer", "name", "two"], check=True)
        yield UNIQUE
    finally:
        namespaces.delete(UNIQUE)


@pytest.fixture
def inside(namespace):
    """Calls a function in the namespace; afterwards the interfaces have no program."""

    def call(function):
        return namespaces.in_namespace(namespace, function)

    yield call
    for name in ("one", "two", "lo"):
        call(lambda name=name: bpf.detach_netlink(socket.if_nametoindex(name)))


# --- objects, maps, programs


@needs_bpf
def test_array_memory_is_shared_both_ways(loaded):
    shared = loaded.map("shared")
    memory = shared.mmap()
    assert (shared.value_size, shared.stride, memory.shape) == (12, 16, (64,))
    entry = memory.view(np.uint32).reshape(4, 4)[1]
    entry[0] = 0xDEADBEEF

    loaded.program("sample").test_run(FRAME)

    assert entry[1] == 0xDEADBEEF
    assert shared.lookup(KEY(1)) == struct.pack("=III", 0xDEADBEEF, 0xDEADBEEF, 0)
    shared.update(KEY(1), struct.pack("=III", 1, 2, 3))
    assert entry[:3].tolist() == [1, 2, 3]


@needs_bpf
def test_array_memory_outlives_map_and_object(sample):
    with bpf.Object(sample) as obj, obj.load().map("shared") as shared:
        memory = shared.mmap()
    memory[:] = 7
    assert memory.sum() == 7 * 64


@needs_bpf
def test_globals_can_be_read_and_constants_not_written(loaded):
    loaded.program("sample").test_run(FRAME, repeat=5)
    assert loaded.map(".bss").mmap().view(np.uint64)[0] == 5
    assert loaded.map(".rodata").mmap(writable=False)[4] == bpf.XdpAction.PASS
    with pytest.raises(DatapathError, match="frozen"):
        loaded.map(".rodata").mmap()


@needs_bpf
def test_memory_of_a_hash_cannot_be_shared(loaded):
    with pytest.raises(DatapathError, match="BPF_F_MMAPABLE"):
        loaded.map("hash").mmap()


@needs_bpf
def test_hash_map(loaded):
    table = loaded.map("hash")
    assert table.lookup(KEY(9)) is None
    table.update(KEY(9), bytes(8))
    assert table.lookup(KEY(9)) == bytes(8)
    assert table.delete(KEY(9))
    assert not table.delete(KEY(9))
    with pytest.raises(ValueError, match="the key has 3 bytes, not 4"):
        table.lookup(b"abc")


@needs_bpf
def test_per_cpu_map_has_a_value_for_each_cpu(loaded):
    counts = loaded.map("per_cpu")
    values = b"".join(struct.pack("=Q", cpu) for cpu in range(bpf.possible_cpus()))
    counts.update(KEY(0), values)
    assert counts.lookup(KEY(0)) == values


@needs_bpf
def test_sizes_and_constants_before_load(sample):
    with bpf.Object(sample) as obj:
        obj.set_max_entries("shared", 1000)
        obj.set_constant("answer", int(bpf.XdpAction.TX))
        obj.set_constant("wide", b"12345678")
        obj.load()
        assert obj.map("shared").max_entries == 1000
        assert obj.map("shared").mmap().size == 16000
        assert obj.program("sample").test_run(FRAME).retval == bpf.XdpAction.TX
        assert b"12345678" in obj.map(".rodata").mmap(writable=False).tobytes()
        with pytest.raises(DatapathError, match="is loaded"):
            obj.set_max_entries("shared", 1)


@needs_bpf
def test_what_does_not_exist_is_named(sample):
    with bpf.Object(sample) as obj:
        with pytest.raises(DatapathError, match="there is no constant nothing"):
            obj.set_constant("nothing", 1)
        with pytest.raises(OverflowError):
            obj.set_constant("before", 256)
        with pytest.raises(DatapathError, match="there is no map nothing"):
            obj.set_max_entries("nothing", 1)
        with pytest.raises(DatapathError, match="not loaded yet"):
            obj.map("shared")
    with pytest.raises(DatapathError, match="closed"):
        obj.map("shared")


@needs_bpf
def test_names_of_maps_and_programs(loaded):
    assert {"shared", "hash", "per_cpu"} <= loaded.maps().keys()
    assert loaded.programs().keys() == {"sample", "arrived_at", "sample_drop"}


@needs_bpf
def test_run_returns_packet_action_and_time(loaded):
    result = loaded.program("sample").test_run(FRAME)
    assert result.retval == bpf.XdpAction.PASS
    assert result.data == bytes(4) + FRAME
    assert loaded.program("sample_drop").test_run(FRAME, repeat=1000).duration_ns < 100_000
    with pytest.raises(DatapathError, match="cannot be run on this packet"):
        loaded.program("sample").test_run(b"short")


@needs_bpf
def test_program_information(loaded):
    info = loaded.program("sample").info()
    assert info.name == "sample"
    assert info.instructions * 8 == info.xlated_bytes > 0
    assert info.verified_instructions > 0
    assert bpf.Program.by_id(info.id).info().tag == info.tag


@needs_bpf
def test_the_verifiers_words_are_in_the_error(sample):
    with bpf.Object(sample) as obj:
        obj.set_autoload("careless", True)
        with pytest.raises(bpf.VerifierError) as caught:
            obj.load()
    assert "refused the program careless (EACCES)" in str(caught.value)
    assert "invalid access to packet" in str(caught.value)
    # the source's line; newer kernels than 6.1 add the file's name
    assert "(long)ctx->data" in caught.value.log


@needs_bpf
def test_a_file_that_is_missing_and_one_that_is_no_object(tmp_path):
    with pytest.raises(DatapathError, match="make build"):
        bpf.Object(tmp_path / "none.bpf.o")
    with pytest.raises(DatapathError, match="no BPF object"):
        bpf.Object(b"not ELF")


def open_descriptors():
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists())


@needs_bpf
def test_descriptors_are_closed(loaded):
    descriptors = open_descriptors()
    with loaded.map("hash") as table:
        pass
    program = loaded.program("sample")
    del program
    assert open_descriptors() == descriptors
    with pytest.raises(DatapathError, match="closed"):
        _ = table.fd


# --- pins


@needs_bpf
def test_pins_outlive_their_makers(sample, pins):
    with bpf.Object(sample) as obj:
        obj.load()
        obj.map("hash").update(KEY(1), b"survives")
        obj.map("hash").pin(pins / "deep" / "hash")
        obj.program("sample").pin(pins / "sample")

    assert bpf.Map.open_pinned(pins / "deep" / "hash").lookup(KEY(1)) == b"survives"
    assert bpf.Program.open_pinned(pins / "sample").test_run(FRAME).retval == bpf.XdpAction.PASS
    with pytest.raises(DatapathError, match="this pin is no map"):
        bpf.Map.open_pinned(pins / "sample")
    assert bpf.unpin(pins / "sample")
    assert not bpf.unpin(pins / "sample")
    with pytest.raises(DatapathError, match="ENOENT"):
        bpf.Program.open_pinned(pins / "sample")


@needs_bpf
def test_a_pinned_map_is_taken_over(sample, pins):
    pins.mkdir()
    for wanted in (b"no value", b"12345678"):
        with bpf.Object(sample) as obj:
            obj.set_pin_path("hash", pins / "hash")
            obj.load()
            assert obj.map("hash").lookup(KEY(1)) == (None if wanted == b"no value" else wanted)
            obj.map("hash").update(KEY(1), b"12345678")
    with bpf.Object(sample) as obj:
        obj.set_pin_path("hash", pins / "hash")
        obj.set_max_entries("hash", 8)
        with pytest.raises(DatapathError, match="parameter mismatch"):
            obj.load()


@needs_bpf
def test_a_map_is_used_by_a_second_object(sample, loaded):
    with bpf.Object(sample) as second:
        second.reuse_map("hash", loaded.map("hash"))
        second.load()
        assert second.map("hash").id == loaded.map("hash").id


@needs_bpf
def test_a_pin_elsewhere_is_refused_with_a_sentence(loaded, tmp_path):
    with pytest.raises(MachineError, match="pins need a BPF file system"):
        loaded.map("hash").pin(tmp_path / "hash")


@needs_bpf
def test_bpffs_is_mounted_where_it_is_missing(tmp_path):
    assert not bpf.is_bpffs(tmp_path)
    try:
        assert bpf.ensure_bpffs(tmp_path) == tmp_path
        assert bpf.is_bpffs(tmp_path)
        assert bpf.ensure_bpffs(tmp_path) == tmp_path
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    with pytest.raises(MachineError, match="no folder"):
        bpf.ensure_bpffs(tmp_path / "absent")


# --- interfaces


@needs_namespaces
@pytest.mark.netns
def test_link_life(loaded, inside, pins):
    """Attach, pin, let go, open again, exchange the program, detach."""

    def first():
        index = socket.if_nametoindex("one")
        link = bpf.attach_xdp(loaded.program("sample"), index)
        assert link.mode() is bpf.XdpMode.NATIVE
        assert bpf.query(index) == ("native", loaded.program("sample").info().id)
        assert (link.ifindex, link.program_id) == (index, loaded.program("sample").info().id)
        link.pin(pins / "link")
        link.close()
        return index

    def second():
        link = bpf.Link.open_pinned(pins / "link")
        link.update_program(loaded.program("sample_drop"))
        assert bpf.query(index).program_id == loaded.program("sample_drop").info().id
        link.detach()
        assert link.mode() is bpf.XdpMode.NONE
        assert bpf.query(index) == ("none", 0)

    index = inside(first)
    inside(second)


@needs_namespaces
@pytest.mark.netns
def test_a_link_goes_with_its_last_reference(loaded, inside):
    def attach_and_forget():
        index = socket.if_nametoindex("one")
        with bpf.attach_xdp(loaded.program("sample"), index):
            pass
        return bpf.query(index)

    assert inside(attach_and_forget).program_id == 0


@needs_namespaces
@pytest.mark.netns
def test_generic_where_the_driver_has_no_xdp_or_when_asked(loaded, inside):
    def modes():
        program = loaded.program("sample")
        found = []
        for name, wanted in (("lo", None), ("one", bpf.XdpMode.GENERIC)):
            with bpf.attach_xdp(program, socket.if_nametoindex(name), wanted) as link:
                found.append(link.mode())
        with pytest.raises(InterfaceError, match=r"its driver has no native XDP \(lo\)"):
            bpf.attach_xdp(program, socket.if_nametoindex("lo"), bpf.XdpMode.NATIVE)
        return found

    assert inside(modes) == [bpf.XdpMode.GENERIC, bpf.XdpMode.GENERIC]


@needs_namespaces
@pytest.mark.netns
@pytest.mark.parametrize("how", ["link", "netlink", "generic"])
def test_an_occupied_interface_is_named_with_its_program(loaded, inside, how):
    def occupy():
        index = socket.if_nametoindex("two")
        sample, drop = loaded.program("sample"), loaded.program("sample_drop")
        if how == "link":
            held = bpf.attach_xdp(sample, index)
        elif how == "generic":
            held = bpf.attach_xdp(sample, index, bpf.XdpMode.GENERIC)
        else:
            held = None
            bpf.attach_netlink(sample, index)
        errors = []
        for attach in (bpf.attach_xdp, bpf.attach_netlink):
            with pytest.raises(InterfaceError) as caught:
                attach(drop, index)
            errors.append(str(caught.value))
        if held:
            held.close()
        return errors

    for error in inside(occupy):
        assert "another XDP program is attached there (sample, id " in error
        assert "(two)" in error
        assert "ip link show dev two" in error
        assert "ip link set dev two xdp off" in error


@needs_namespaces
@pytest.mark.netns
def test_netlink_attachment_replaces_and_stays(loaded, inside):
    def attach():
        index = socket.if_nametoindex("one")
        bpf.attach_netlink(loaded.program("sample"), index)
        bpf.attach_netlink(loaded.program("sample_drop"), index, 0)
        there = bpf.query(index)
        bpf.detach_netlink(index)
        bpf.detach_netlink(index)
        return there, bpf.query(index)

    there, afterwards = inside(attach)
    assert there == (bpf.XdpMode.NATIVE, loaded.program("sample_drop").info().id)
    assert afterwards == (bpf.XdpMode.NONE, 0)


@needs_namespaces
@pytest.mark.netns
def test_an_absent_interface(loaded):
    with pytest.raises(InterfaceError, match="no interface with the number 999999"):
        bpf.attach_xdp(loaded.program("sample"), 999999)
    with pytest.raises(InterfaceError, match="999999"):
        bpf.query(999999)


@needs_namespaces
@pytest.mark.netns
def test_run_with_an_ingress_interface(loaded, inside):
    def run():
        index = socket.if_nametoindex("one")
        context = bpf.xdp_context(len(FRAME), index)
        return index, loaded.program("arrived_at").test_run(FRAME, ctx=context).retval

    index, seen = inside(run)
    assert seen == index


# --- the rest of the kernel, and the library


def test_grace_period_and_clock():
    assert bpf.hz() in {100, 250, 300, 1000}
    if bpf.membarrier_supported():
        bpf.membarrier_global()
    else:
        with pytest.raises(MachineError, match="nohz_full"):
            bpf.membarrier_global()


def test_possible_cpus_are_those_of_the_kernel():
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().rpartition("-")[2]
    assert bpf.possible_cpus() == int(last) + 1


def test_eperm_is_the_machines_fault():
    assert isinstance(libbpf.failure("it failed", "here", -errno.EPERM), MachineError)
    assert "it failed: Invalid argument (EINVAL) (here)" in str(
        libbpf.failure("it failed", "here", -errno.EINVAL)
    )


def test_a_missing_libbpf_is_a_sentence_at_first_use_only():
    script = """if True:
        import evener._generated._libbpf as generated
        class NoLibrary:
            def __getattr__(self, name): return getattr(real, name)
            def dlopen(self, name): raise OSError(name)
        real, generated.ffi = generated.ffi, NoLibrary()
        from evener.datapath import bpf
        from evener.errors import MachineError
        try:
            bpf.possible_cpus()
        except MachineError as error:
            print(error)
    """
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == (
        "libbpf >= 1.0 is not installed (libbpf.so.1): install Debian's package libbpf1"
    )


def test_import_is_cheap():
    script = "import sys, evener.datapath.bpf; print([n for n in ['numpy'] if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_generated_binding_is_current():
    script = ROOT / "tools/gen_libbpf.py"
    subprocess.run([sys.executable, script, "--check"], check=True)
