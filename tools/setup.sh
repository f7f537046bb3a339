#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what evener needs on this machine: Debian packages, then a virtual environment in .venv.
#
#   tools/setup.sh          what building and `make demo` need
#   tools/setup.sh --test   also what `make test` needs
#   tools/setup.sh --vm     also what `make vm-test` needs, which takes --test with it
#
# Safe to run at any time: a stamp that carries the hash of everything that decides the result makes the second run a
# matter of milliseconds. It never upgrades or removes a package, and it writes nothing outside .venv and build/ but
# through apt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# clang compiles the XDP programs against libbpf-dev's helpers; a C compiler makes the native library; libbpf1 loads.
RUN_PACKAGES=(ca-certificates clang gcc libbpf-dev libbpf1 libc6-dev make)
# The demo and the lab: namespaces, the hosts' tool, the offload switch, the witness.
LAB_PACKAGES=(ethtool iproute2 netcat-openbsd tcpdump)
# Sanitizers and libFuzzer, a second reader of BPF objects, HTTP and throughput clients, process tools; what the
# driver dpdk is built with (pkg-config finds it), another application of DPDK to compare with, a memory checker.
TEST_PACKAGES=(bpftool curl dpdk-dev iperf3 iputils-ping libclang-rt-dev libdpdk-dev pkgconf procps valgrind)
# An emulated machine: the emulator, the tool that indexes a kernel's modules, the shell of its first file system.
VM_PACKAGES=(busybox-static kmod qemu-system-x86)

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

packages=("${RUN_PACKAGES[@]}" "${LAB_PACKAGES[@]}")
what=""
for argument in "$@"; do
  case $argument in
    --test) packages+=("${TEST_PACKAGES[@]}"); what="[dev]" ;;
    --vm) packages+=("${VM_PACKAGES[@]}") ;;
    *) fail "unknown argument $argument; known: --test, --vm" ;;
  esac
done

# A Python that can be used: 3.11 or newer, and able to make a virtual environment that has pip.
find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 /usr/bin/python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

missing_packages() {
  local installed package
  installed=" $(dpkg-query -W -f '${Package}=${db:Status-Status} ' "$@" 2>/dev/null || true)"
  for package in "$@"; do
    [[ $installed == *" $package=installed "* ]] || printf '%s\n' "$package"
  done
}

as_root() {
  if [[ $(id -u) == 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "these packages are missing: ${missing[*]}. There is no sudo here: as root, run 'apt-get install ${missing[*]}'"
  fi
}

install_packages() {
  local missing
  command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || {
    for tool in clang cc ip nc tcpdump ethtool; do
      command -v "$tool" >/dev/null || say "$tool is missing; this is no Debian, so install it with the system's own tool"
    done
    return 0
  }
  mapfile -t missing < <(missing_packages "$@")
  [[ ${#missing[@]} -gt 0 ]] || return 0
  say "installing ${missing[*]}"
  # Old lists name files that the mirror no longer has, so refresh them; a failure here may be harmless.
  as_root apt-get -qq update || say "apt-get update failed; going on with the lists that are here"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 \
    install --no-install-recommends "${missing[@]}" >&2 \
    || fail "apt could not install ${missing[*]}; its own message is above"
}

install_venv() {
  local python
  # The second half: a folder that was moved or copied has scripts that start the old place's Python.
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1 || [[ $(head -n 1 .venv/bin/pip) != "#!$PWD/"* ]]; then
    if ! python=$(find_python); then
      install_packages python3 python3-venv
      python=$(find_python) || fail "there is no Python >= 3.11 with venv and pip; install one: make setup PYTHON=..."
    fi
    say "creating .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
  fi
  local pip=(.venv/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt)
  # The build backend goes in first so that it, too, obeys the constraints (pip would take the newest for isolation).
  say "installing evener$what into .venv"
  "${pip[@]}" hatchling editables
  "${pip[@]}" --no-build-isolation --editable ".$what"
}

mkdir -p build
if command -v flock >/dev/null; then # two `make` at once take turns
  exec 9>build/.setup.lock
  flock 9
fi

install_packages "${packages[@]}"

# The folder is part of it because an editable install and the scripts in .venv hold absolute paths.
hash=$({ cat tools/setup.sh pyproject.toml constraints.txt hatch_build.py && pwd; } | sha256sum | cut -d ' ' -f 1)
has() { [[ -x .venv/bin/evener && $(cat ".venv/.setup$1" 2>/dev/null) == "$hash" ]] && .venv/bin/python -c '' 2>/dev/null; }
# What is installed for the tests serves the demo too.
if ! has "[dev]" && { [[ -n $what ]] || ! has ""; }; then
  install_venv
  printf '%s\n' "$hash" >".venv/.setup$what"
fi
