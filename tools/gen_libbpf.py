# SPDX-License-Identifier: Apache-2.0
"""Writes src/evener/_generated/_libbpf.py: how to call libbpf and libc through cffi.

    python tools/gen_libbpf.py            rewrite it
    python tools/gen_libbpf.py --check    1 when it is not current

Declared is what `evener.datapath` calls and no more. The options structs of libbpf start with their
own size and the kernel's info structs are read to the length that the kernel fills, so the
declarations stay right with newer libraries and kernels. `_pad` stands where the headers have an
unnamed bit field. Source: bpf/libbpf.h, bpf/bpf.h (libbpf 1.1) and linux/bpf.h.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import cffi

OUTPUT = Path(__file__).parents[1] / "src/evener/_generated/_libbpf.py"

CDEF = """
/* libbpf.h */
int libbpf_num_possible_cpus(void);
typedef int (*libbpf_print_fn_t)(int level, const char *format, void *arguments);
libbpf_print_fn_t libbpf_set_print(libbpf_print_fn_t);

struct bpf_object; struct bpf_map; struct bpf_program;
struct bpf_object_open_opts {
    size_t sz; const char *object_name; bool relaxed_maps; const char *pin_root_path;
    uint32_t _pad; const char *kconfig; const char *btf_custom_path;
    char *kernel_log_buf; size_t kernel_log_size; uint32_t kernel_log_level;
};
struct bpf_object *bpf_object__open_mem(const void *, size_t, const struct bpf_object_open_opts *);
int bpf_object__load(struct bpf_object *);
void bpf_object__close(struct bpf_object *);
struct bpf_map *bpf_object__next_map(const struct bpf_object *, const struct bpf_map *);
struct bpf_program *bpf_object__next_program(const struct bpf_object *, struct bpf_program *);
struct bpf_map *bpf_object__find_map_by_name(const struct bpf_object *, const char *);
struct bpf_program *bpf_object__find_program_by_name(const struct bpf_object *, const char *);

const char *bpf_map__name(const struct bpf_map *);
int bpf_map__fd(const struct bpf_map *);
int bpf_map__set_max_entries(struct bpf_map *, uint32_t);
int bpf_map__set_pin_path(struct bpf_map *, const char *);
int bpf_map__reuse_fd(struct bpf_map *, int);
void *bpf_map__initial_value(struct bpf_map *, size_t *);

const char *bpf_program__name(const struct bpf_program *);
int bpf_program__fd(const struct bpf_program *);
int bpf_program__set_autoload(struct bpf_program *, bool);
int bpf_program__set_log_buf(struct bpf_program *, char *, size_t);
struct bpf_insn { uint8_t code; uint8_t registers; int16_t offset; int32_t immediate; };
const struct bpf_insn *bpf_program__insns(const struct bpf_program *);
size_t bpf_program__insn_cnt(const struct bpf_program *);
typedef int (*evener_prepare_load_t)(struct bpf_program *, void *options, long cookie);
struct libbpf_prog_handler_opts {
    size_t sz; long cookie; void *prog_setup_fn;
    evener_prepare_load_t prog_prepare_load_fn; void *prog_attach_fn;
};
int libbpf_register_prog_handler(const char *, int type, int attach_type,
    const struct libbpf_prog_handler_opts *);

struct btf; struct btf_type { uint32_t name_off; uint32_t info; uint32_t size; };
struct btf_var_secinfo { uint32_t type; uint32_t offset; uint32_t size; };
struct btf *bpf_object__btf(const struct bpf_object *);
int32_t btf__find_by_name_kind(const struct btf *, const char *, uint32_t kind);
const struct btf_type *btf__type_by_id(const struct btf *, uint32_t);
const char *btf__name_by_offset(const struct btf *, uint32_t);

/* bpf.h */
struct bpf_map_create_opts {
    size_t sz; uint32_t btf_fd, btf_key_type_id, btf_value_type_id, btf_vmlinux_value_type_id;
    uint32_t inner_map_fd, map_flags; uint64_t map_extra; uint32_t numa_node, map_ifindex;
};
int bpf_map_create(int type, const char *name, uint32_t key_size, uint32_t value_size,
    uint32_t max_entries, const struct bpf_map_create_opts *);
int bpf_map_lookup_elem(int fd, const void *key, void *value);
int bpf_map_update_elem(int fd, const void *key, const void *value, uint64_t flags);
int bpf_map_delete_elem(int fd, const void *key);
int bpf_obj_pin(int fd, const char *path);
int bpf_obj_get(const char *path);
int bpf_obj_get_info_by_fd(int fd, void *info, uint32_t *length);
int bpf_prog_get_fd_by_id(uint32_t id);

struct bpf_test_run_opts {
    size_t sz; const void *data_in; void *data_out; uint32_t data_size_in, data_size_out;
    const void *ctx_in; void *ctx_out; uint32_t ctx_size_in, ctx_size_out;
    uint32_t retval; int repeat; uint32_t duration, flags, cpu, batch_size;
};
int bpf_prog_test_run_opts(int fd, struct bpf_test_run_opts *);

struct bpf_link_create_opts {
    size_t sz; uint32_t flags; void *iter_info; uint32_t iter_info_len, target_btf_id;
    uint64_t _target[4];
};
struct bpf_link_update_opts { size_t sz; uint32_t flags; uint32_t old_prog_fd; };
int bpf_link_create(int program, int target, int attach_type, const struct bpf_link_create_opts *);
int bpf_link_update(int link, int program, const struct bpf_link_update_opts *);
int bpf_link_detach(int link);

struct bpf_xdp_attach_opts { size_t sz; int old_prog_fd; int _pad; };
struct bpf_xdp_query_opts {
    size_t sz; uint32_t prog_id, drv_prog_id, hw_prog_id, skb_prog_id;
    uint8_t attach_mode; uint8_t _pad[7];
};
int bpf_xdp_attach(int ifindex, int program, uint32_t flags, const struct bpf_xdp_attach_opts *);
int bpf_xdp_detach(int ifindex, uint32_t flags, const struct bpf_xdp_attach_opts *);
int bpf_xdp_query(int ifindex, int flags, struct bpf_xdp_query_opts *);

/* linux/bpf.h */
struct bpf_map_info {
    uint32_t type, id, key_size, value_size, max_entries, map_flags; char name[16];
};
struct bpf_link_info { uint32_t type, id, prog_id, _pad; uint32_t ifindex; uint32_t _more[11]; };
struct bpf_prog_info {
    uint32_t type, id; uint8_t tag[8]; uint32_t jited_prog_len, xlated_prog_len;
    uint64_t jited_prog_insns, xlated_prog_insns, load_time; uint32_t created_by_uid, nr_map_ids;
    uint64_t map_ids; char name[16]; uint32_t ifindex, gpl_compatible;
    uint64_t netns_dev, netns_ino;
    uint32_t nr_jited_ksyms, nr_jited_func_lens; uint64_t jited_ksyms, jited_func_lens;
    uint32_t btf_id, func_info_rec_size; uint64_t func_info; uint32_t nr_func_info, nr_line_info;
    uint64_t line_info, jited_line_info; uint32_t nr_jited_line_info, line_info_rec_size;
    uint32_t jited_line_info_rec_size, nr_prog_tags; uint64_t prog_tags, run_time_ns, run_cnt;
    uint64_t recursion_misses; uint32_t verified_insns, attach_btf_obj_id, attach_btf_id, _pad;
};

/* libc */
struct evener_statfs { long type; char rest[248]; };
int vsnprintf(char *, size_t, const char *, void *);
int statfs(const char *, struct evener_statfs *);
int mount(const char *, const char *, const char *, unsigned long, const void *);
int unshare(int flags);
long syscall(long number, ...);
"""

HEADER = (
    "# SPDX-License-Identifier: Apache-2.0\n# Written by tools/gen_libbpf.py: change it there.\n"
)


def generate() -> str:
    """The text of the module."""
    builder = cffi.FFI()
    builder.cdef(CDEF)
    builder.set_source("evener._generated._libbpf", None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "module.py")
        with contextlib.redirect_stdout(None):  # cffi announces the file
            builder.emit_python_code(str(path))
        return HEADER + path.read_text()


def main(arguments: list[str]) -> int:
    """The command line; the exit code."""
    text = generate()
    if arguments == ["--check"]:
        if OUTPUT.is_file() and OUTPUT.read_text() == text:
            return 0
        print(f"{OUTPUT.name} is not current: run 'make generate'", file=sys.stderr)
        return 1
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
