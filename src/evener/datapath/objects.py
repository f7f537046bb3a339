# SPDX-License-Identifier: Apache-2.0
"""BPF maps, programs and the object files that they come from. Use it as `evener.datapath.bpf`."""

from __future__ import annotations

import errno
import mmap
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from evener.datapath.kernel import is_bpffs, possible_cpus
from evener.datapath.libbpf import failure, ffi, forget, lib, options, rewriting, text
from evener.errors import DatapathError, MachineError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_BTF_KIND_DATASEC = 15
_MAP_ARRAY = 2
_PER_CPU_TYPES = {5, 6, 10}  # hash, array, LRU hash
_LOG_SIZE = 4 << 20  # bytes for one program; the pages are only taken when there is a log
_LOG_LINES_SHOWN = 30
_TAIL_ROOM = 512  # bytes by which a program may make a packet longer in test_run
_LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES


class VerifierError(DatapathError):
    """The kernel's verifier refused a program. `log` is all that it said."""

    def __init__(self, what: str, where: str = "", do: str = "", *, log: str = "") -> None:
        super().__init__(what, where, do)
        self.log = log


class Handle:
    """A file descriptor of the BPF system, closed with the last reference, close() or `with`."""

    kind: ClassVar[str] = ""  # how /proc names such a descriptor

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._closer = weakref.finalize(self, os.close, fd)

    @property
    def fd(self) -> int:
        """The descriptor, for this object's lifetime."""
        if not self._closer.alive:
            raise DatapathError(f"this BPF {self.kind} is closed")
        return self._fd

    def close(self) -> None:
        """Give the descriptor back; harmless when it was done before. A pin stays."""
        self._closer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def open_pinned(cls, path: Path | str) -> Self:
        """What is pinned at `path`; DatapathError if it is absent or something else."""
        forget()
        fd = lib().bpf_obj_get(os.fsencode(path))
        if fd < 0:
            raise failure(f"the pinned {cls.kind} cannot be opened", str(path), fd)
        actual = Path(f"/proc/self/fd/{fd}").readlink().name
        if not actual.strip("[]").endswith(cls.kind):
            os.close(fd)
            raise DatapathError(f"this pin is no {cls.kind} but {actual}", str(path))
        return cls(fd)

    def pin(self, path: Path | str) -> None:
        """Give it a name in bpffs, so that it outlives this process; missing folders are made.

        Names must not contain dots: the kernel keeps those for itself.
        """
        place = Path(path)
        existing = next(folder for folder in place.parents if folder.is_dir())
        if not is_bpffs(existing):
            raise MachineError(
                "pins need a BPF file system", str(place), "mount one: mount -t bpf bpf /sys/fs/bpf"
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        forget()
        if error := lib().bpf_obj_pin(self.fd, os.fsencode(place)):
            raise failure(f"the {self.kind} cannot be pinned", str(place), error)

    def _info(self, struct: str) -> Any:
        info = ffi.new(f"struct {struct} *")
        length = ffi.new("uint32_t *", ffi.sizeof(f"struct {struct}"))
        if error := lib().bpf_obj_get_info_by_fd(self.fd, info, length):
            raise failure(f"the kernel does not describe this {self.kind}", "", error)
        return info


def unpin(path: Path | str) -> bool:
    """Remove a pin of any kind; whether there was one."""
    try:
        Path(path).unlink()
    except FileNotFoundError:
        return False
    return True


class Map(Handle):
    """A BPF map. Sizes are in bytes and as the kernel has them; `name` may be cut to 15 characters
    where the map does not come from an Object."""

    kind = "map"

    def __init__(self, fd: int, name: str = "") -> None:
        super().__init__(fd)
        info = self._info("bpf_map_info")
        self.name = name or text(info.name)
        self.id: int = info.id
        self.type: int = info.type
        self.key_size: int = info.key_size
        self.value_size: int = info.value_size
        self.max_entries: int = info.max_entries
        self.flags: int = info.map_flags

    def __repr__(self) -> str:
        return f"<Map {self.name} id={self.id} {self.max_entries} x {self.value_size} B>"

    @property
    def stride(self) -> int:
        """Bytes from one value to the next in an array map's memory."""
        return -(-self.value_size // 8) * 8

    def mmap(self, *, writable: bool = True) -> npt.NDArray[np.uint8]:
        """The memory of a BPF_F_MMAPABLE array: max_entries * stride bytes, uint8, shared with the
        kernel in both directions. It stays valid for as long as the array or a view of it lives.

        `writable=False` is needed for frozen maps such as .rodata.
        """
        import numpy as np  # 70 ms, which a reader of a single map need not pay

        size = self.max_entries * self.stride
        pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        try:
            memory = mmap.mmap(self.fd, pages, mmap.MAP_SHARED, access)
        except (OSError, ValueError) as error:
            raise DatapathError(
                f"the map's memory cannot be shared: {error}",
                self.name,
                "only array maps with BPF_F_MMAPABLE can, and only writable when not frozen",
            ) from error
        return np.frombuffer(memory, np.uint8, size)

    def _value_bytes(self) -> int:
        if self.type in _PER_CPU_TYPES:
            return self.stride * possible_cpus()
        return self.value_size

    def _check(self, what: str, given: bytes, size: int) -> None:
        if len(given) != size:
            raise ValueError(f"{self.name}: the {what} has {len(given)} bytes, not {size}")

    def lookup(self, key: bytes) -> bytes | None:
        """The value of `key`, None if absent; for a per-CPU map `stride` bytes for each CPU."""
        self._check("key", key, self.key_size)
        value = ffi.new("char[]", self._value_bytes())
        error = lib().bpf_map_lookup_elem(self.fd, key, value)
        if error == -errno.ENOENT:
            return None
        if error:
            raise failure("the map cannot be read", self.name, error)
        return bytes(ffi.buffer(value))

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set one entry. flags: 1 only if absent, 2 only if present."""
        self._check("key", key, self.key_size)
        self._check("value", value, self._value_bytes())
        if error := lib().bpf_map_update_elem(self.fd, key, value, flags):
            raise failure("the map cannot be written", self.name, error)

    def delete(self, key: bytes) -> bool:
        """Remove one entry; whether there was one."""
        self._check("key", key, self.key_size)
        error = lib().bpf_map_delete_elem(self.fd, key)
        if error and error != -errno.ENOENT:
            raise failure("the map's entry cannot be deleted", self.name, error)
        return not error

    @classmethod
    def create(
        cls,
        name: str,
        *,
        type: int = _MAP_ARRAY,  # noqa: A002 (the kernel's word)
        key_size: int = 4,
        value_size: int,
        max_entries: int,
        flags: int = 0,
        inner_map_fd: int = 0,
    ) -> Map:
        """A map of its own, without an object file. `type` and `flags` as in linux/bpf.h; a map of
        maps takes the descriptor of a map like those that it will hold."""
        forget()
        more = options("bpf_map_create_opts", map_flags=flags, inner_map_fd=inner_map_fd)
        fd = lib().bpf_map_create(type, name.encode(), key_size, value_size, max_entries, more)
        if fd < 0:
            raise failure("a BPF map cannot be made", name, fd)
        return cls(fd, name)


class ProgramInfo(NamedTuple):
    """What the kernel knows of a loaded program."""

    id: int
    name: str  # cut to 15 characters
    tag: str  # hash of the instructions
    instructions: int  # after the verifier's rewriting
    xlated_bytes: int
    jited_bytes: int  # 0: it is interpreted
    verified_instructions: int  # how many the verifier walked through, all paths together
    run_count: int  # both only count while kernel.bpf_stats_enabled is 1
    run_time_ns: int


class RunResult(NamedTuple):
    """What came out of `Program.test_run`."""

    retval: int  # for XDP an XdpAction
    data: bytes  # the packet afterwards
    duration_ns: int  # mean of one run, whole nanoseconds


class Program(Handle):
    """A loaded BPF program."""

    kind = "prog"

    def __init__(self, fd: int, name: str = "") -> None:
        super().__init__(fd)
        self.name = name or self.info().name

    def __repr__(self) -> str:
        return f"<Program {self.name} id={self.info().id}>"

    def info(self) -> ProgramInfo:
        """Id, tag and sizes; asks the kernel anew each time."""
        info = self._info("bpf_prog_info")
        return ProgramInfo(
            id=info.id,
            name=text(info.name),
            tag=bytes(info.tag).hex(),
            instructions=info.xlated_prog_len // 8,
            xlated_bytes=info.xlated_prog_len,
            jited_bytes=info.jited_prog_len,
            verified_instructions=info.verified_insns,
            run_count=info.run_cnt,
            run_time_ns=info.run_time_ns,
        )

    @classmethod
    def by_id(cls, program_id: int) -> Program:
        """A program that is loaded on this machine, by whomever."""
        fd = lib().bpf_prog_get_fd_by_id(program_id)
        if fd < 0:
            raise failure("there is no such BPF program", f"id {program_id}", fd)
        return cls(fd)

    def test_run(
        self,
        data: bytes,
        repeat: int = 1,
        *,
        ctx: bytes | None = None,
        flags: int = 0,
        cpu: int = 0,
    ) -> RunResult:
        """Run it in the kernel on a frame of at least 14 bytes (BPF_PROG_TEST_RUN).

        With `repeat` above 1 each run sees the packet as the one before left it. `ctx` is a struct
        xdp_md (see `xdp_context`) whose interface is one of the calling thread's namespace.
        """
        size = len(data) + _TAIL_ROOM
        out = ffi.new("char[]", size)
        run = options("bpf_test_run_opts", repeat=repeat, flags=flags, cpu=cpu)
        run.data_in = source = ffi.from_buffer(data)
        run.data_size_in, run.data_out, run.data_size_out = len(source), out, size
        if ctx is not None:
            run.ctx_in = context = ffi.from_buffer(ctx)
            run.ctx_size_in = len(context)
        if error := lib().bpf_prog_test_run_opts(self.fd, run):
            raise failure("the program cannot be run on this packet", self.name, error)
        return RunResult(run.retval, bytes(ffi.buffer(out, run.data_size_out)), run.duration)

    def run_live(self, data: bytes, repeat: int, ctx: bytes) -> None:
        """Run it on `repeat` real frames that begin as copies of `data`: what it sends or redirects is
        sent (BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18). A frame may be one that it changed before."""
        run = options("bpf_test_run_opts", repeat=repeat, flags=_LIVE_FRAMES)
        run.data_in, run.ctx_in = source, context = ffi.from_buffer(data), ffi.from_buffer(ctx)
        run.data_size_in, run.ctx_size_in = len(source), len(context)
        if error := lib().bpf_prog_test_run_opts(self.fd, run):
            raise failure("the program cannot send frames", self.name, error)


def xdp_context(length: int, ifindex: int, queue: int = 0) -> bytes:
    """A struct xdp_md for `Program.test_run`: `length` bytes that arrived at `ifindex`."""
    return b"".join(n.to_bytes(4, "little") for n in (0, length, 0, ifindex, queue, 0))


class Object:
    """One compiled BPF file: open, set sizes and constants, load, take maps and programs."""

    def __init__(self, source: Path | str | bytes, name: str = "") -> None:
        """From a file or from its bytes; `name` is the kernel's prefix for .rodata and the like."""
        path = "" if isinstance(source, bytes) else str(source)
        try:
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
        except OSError as error:
            raise DatapathError(
                f"the BPF program cannot be read: {error.strerror}", path, "run 'make build'"
            ) from error
        self.name = name or Path(path).name.partition(".")[0] or "object"
        forget()
        label = ffi.new("char[]", self.name.encode())
        found = lib().bpf_object__open_mem(
            data, len(data), options("bpf_object_open_opts", object_name=label)
        )
        if not found:
            raise failure("this is no BPF object that libbpf can read", path or self.name)
        self._object = found
        self._loaded = False
        self._values: set[str] = set()
        self._immediates: dict[int, int] = {}
        self._closer = weakref.finalize(self, lib().bpf_object__close, found)

    @classmethod
    def open(cls, source: Path | str | bytes, name: str = "") -> Object:
        """The same as the constructor."""
        return cls(source, name)

    def close(self) -> None:
        """Free what libbpf holds. Maps and programs that were taken go on."""
        self._closer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _find(self, kind: str, name: str, loaded: bool) -> Any:
        if not self._closer.alive or self._loaded is not loaded:
            state = "loaded" if self._loaded else "not loaded yet"
            raise DatapathError(f"this BPF object is {state if self._closer.alive else 'closed'}")
        find = getattr(lib(), f"bpf_object__find_{kind}_by_name")
        found = find(self._object, name.encode())
        if not found:
            raise DatapathError(f"there is no {kind} {name}", self.name)
        return found

    def _set(self, what: str, name: str, error: int) -> None:
        if error:
            raise failure(f"the {what} of {name} cannot be set", self.name, error)

    def set_max_entries(self, name: str, entries: int) -> None:
        """Before load: how many entries a map has."""
        found = self._find("map", name, loaded=False)
        self._set("size", name, lib().bpf_map__set_max_entries(found, entries))

    def set_pin_path(self, name: str, path: Path | str) -> None:
        """Before load: take the map that is pinned there, else make it and pin it there.

        load() fails when the pinned one has another shape.
        """
        found = self._find("map", name, loaded=False)
        self._set("pin", name, lib().bpf_map__set_pin_path(found, os.fsencode(path)))

    def reuse_map(self, name: str, existing: Map) -> None:
        """Before load: use a map that is already there instead of making one."""
        found = self._find("map", name, loaded=False)
        self._set("map", name, lib().bpf_map__reuse_fd(found, existing.fd))

    def use_value(self, name: str, existing: Map) -> None:
        """Before load: as reuse_map, and where the programs have the map's address they shall have that
        of its only value, whatever size it has. `existing` is an array of one entry."""
        self.reuse_map(name, existing)
        self._values.add(name)

    def set_autoload(self, name: str, wanted: bool) -> None:
        """Before load: whether to load this program at all."""
        found = self._find("program", name, loaded=False)
        self._set("wish", name, lib().bpf_program__set_autoload(found, wanted))

    def set_constant(self, name: str, value: int | bytes, section: str = ".rodata") -> None:
        """Before load: the value of a `const volatile` global.

        The verifier prunes the code that it rules out. An int is stored little-endian in the
        variable's own size; bytes must have exactly that size.
        """
        found = self._find("map", section, loaded=False)
        offset, size = self._variable(section, name)
        raw = (
            value if isinstance(value, bytes) else value.to_bytes(size, "little", signed=value < 0)
        )
        if len(raw) != size:
            raise ValueError(f"{name} has {size} bytes, not {len(raw)}")
        length = ffi.new("size_t *")
        memory = lib().bpf_map__initial_value(found, length)
        ffi.buffer(memory, length[0])[offset : offset + size] = raw

    def _variable(self, section: str, name: str) -> tuple[int, int]:
        """Offset and size of a global, from the BTF of its section."""
        btf = lib().bpf_object__btf(self._object)
        index = lib().btf__find_by_name_kind(btf, section.encode(), _BTF_KIND_DATASEC)
        if index >= 0:
            kind = lib().btf__type_by_id(btf, index)
            variables = ffi.cast("struct btf_var_secinfo *", kind + 1)
            for i in range(kind.info & 0xFFFF):
                variable = lib().btf__type_by_id(btf, variables[i].type)
                if text(lib().btf__name_by_offset(btf, variable.name_off)) == name:
                    return variables[i].offset, variables[i].size
        raise DatapathError(f"there is no constant {name}", f"{section} of {self.name}")

    def load(self) -> Self:
        """Make the maps, verify and load the programs. VerifierError has the verifier's log."""
        logs = {}
        for program in self._each("program"):
            log = logs[text(lib().bpf_program__name(program))] = ffi.new("char[]", _LOG_SIZE)
            lib().bpf_program__set_log_buf(program, log, _LOG_SIZE)
        forget()
        with rewriting(self._value_descriptors(), self._immediates):
            error = lib().bpf_object__load(self._object)
        if error:
            raise _load_error(self.name, error, {name: text(log) for name, log in logs.items()})
        for program in self._each("program"):
            lib().bpf_program__set_log_buf(program, ffi.NULL, 0)
        self._loaded = True
        return self

    def set_immediate(self, placeholder: int, value: int) -> None:
        """Before load: where the program computes or compares with `placeholder`, it shall with `value`."""
        self._immediates[placeholder] = value

    def _value_descriptors(self) -> set[int]:
        return {lib().bpf_map__fd(self._find("map", n, loaded=False)) for n in self._values}

    def _each(self, kind: str) -> list[Any]:
        following = getattr(lib(), f"bpf_object__next_{kind}")
        found, item = [], following(self._object, ffi.NULL)
        while item:
            found.append(item)
            item = following(self._object, item)
        return found

    def map(self, name: str) -> Map:
        """After load: one map, with a descriptor of its own."""
        return Map(os.dup(lib().bpf_map__fd(self._find("map", name, loaded=True))), name)

    def program(self, name: str) -> Program:
        """After load: one program, with a descriptor of its own."""
        fd = lib().bpf_program__fd(self._find("program", name, loaded=True))
        if fd < 0:
            raise DatapathError(f"the program {name} was not loaded", self.name)
        return Program(os.dup(fd), name)

    def maps(self) -> dict[str, Map]:
        """After load: every map by its name, .rodata and .bss of the file included."""
        names = [text(lib().bpf_map__name(found)) for found in self._each("map")]
        return {name: self.map(name) for name in names}

    def programs(self) -> dict[str, Program]:
        """After load: every program that was loaded by its name."""
        loaded = [found for found in self._each("program") if lib().bpf_program__fd(found) >= 0]
        names = [text(lib().bpf_program__name(found)) for found in loaded]
        return {name: self.program(name) for name in names}


def _load_error(where: str, error: int, logs: dict[str, str]) -> Exception:
    """What the verifier said, if it was the verifier; else what libbpf said."""
    for name, log in logs.items():
        if log.strip():
            forget()
            lines = log.rstrip().splitlines()
            cut = ["..."] if len(lines) > _LOG_LINES_SHOWN else []
            shown = "".join(f"\n  {line}" for line in (*cut, *lines[-_LOG_LINES_SHOWN:]))
            reason = errno.errorcode.get(-error, str(error))
            what = f"the kernel's verifier refused the program {name} ({reason})"
            return VerifierError(what, where, f"its last words{shown}", log=log)
    return failure("the BPF object cannot be loaded", where, error)
