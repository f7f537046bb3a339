#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The production program, the tests of it and the demo, on a stock Debian kernel in an emulated machine: does the
# verifier of an older kernel take the program, and does everything work there? `make vm-test` calls this.
#
#   tools/vm_test.sh                      the kernel that Debian's linux-image-amd64 stands for
#   tools/vm_test.sh linux-image-…-amd64  that package's kernel; it has to be one that apt knows
#   tools/vm_test.sh --load               only load the program (for whoever changes the core)
#   tools/vm_test.sh tests/…              load it and run these tests (pytest's names for them)
#
# It takes 5 to 12 minutes (--load: 1 to 2), as nothing but QEMU's software emulation is needed; times that it prints
# say nothing about speed. The exit code is 0 only if all has passed; 124 means that VM_SECONDS (1500) were not enough.
#
# Nothing on this machine changes but build/vm (500 MB: kernel and modules unpacked from Debian's package, a virtual
# environment for virtme-ng) and the packages that `tools/setup.sh --test --vm` installs. The guest sees this machine's
# files through 9p shares that QEMU itself makes read-only; what it writes is in its memory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/sbin:/sbin # depmod, for users that are not root
VM=$PWD/build/vm
LIMIT_S=${VM_SECONDS:-1500}

say() { printf 'vm-test: %s\n' "$*"; }
fail() { say "$@" >&2; exit 1; }

package=""
what=(all)
tests=()
for argument in "$@"; do
  case $argument in
    --load) what=(load) ;;
    tests/*) tests+=("$argument") ;;
    linux-image-*) package=$argument ;;
    *) fail "unknown argument $argument; known: --load, tests/…, the name of a kernel's package" ;;
  esac
done
[[ ${#tests[@]} == 0 ]] || what=(tests "${tests[@]}")

[[ $(dpkg --print-architecture 2>/dev/null) == amd64 ]] || fail "this needs Debian or one of its kin on amd64"
[[ $PWD/ != @(/tmp|/run|/var/tmp)/* ]] || fail "the guest has its own /tmp, /run and /var/tmp: move the project elsewhere"
tools/setup.sh --test --vm
.venv/bin/python -m evener._build

# Debian's meta package names the kernel of this release.
stock_kernel() { apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p'; }

refresh_lists() {
  say "apt's lists are missing or old; refreshing them"
  if [[ $(id -u) == 0 ]]; then apt-get -qq update; else sudo apt-get -qq update; fi
}

# Download and unpack one package into $VM/NAME; half a folder never has the final name.
unpack_kernel() {
  local name=$1 work="$VM/unpacking"
  rm -rf "$work"
  mkdir -p "$work"
  say "downloading $name"
  # Into our own folder, which apt's unprivileged user cannot enter.
  (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$name") || return 1
  dpkg-deb --extract "$work/$name"_*.deb "$work/tree"
  depmod --basedir "$work/tree" "${name#linux-image-}"
  rm "$work/$name"_*.deb
  rm -rf "${VM:?}/$name"
  mv "$work/tree" "$VM/$name"
  rm -rf "$work"
}

mkdir -p "$VM"
exec 8>"$VM/.lock"
flock 8 # two at once take turns with downloading and installing

if [[ -z $package ]]; then
  package=$(stock_kernel)
  [[ -n $package ]] || { refresh_lists; package=$(stock_kernel); }
  [[ -n $package ]] || fail "apt does not know linux-image-amd64; name a kernel's package: tools/vm_test.sh linux-image-…"
fi
[[ -d $VM/$package ]] || unpack_kernel "$package" || { refresh_lists; unpack_kernel "$package"; } \
  || fail "apt could not download $package; its own message is above"

stamp=$({ cat tools/vm_constraints.txt && pwd; } | sha256sum) # its scripts hold absolute paths
if [[ $(cat "$VM/venv/.stamp" 2>/dev/null) != "$stamp" ]]; then
  say "installing virtme-ng"
  rm -rf "$VM/venv"
  .venv/bin/python -m venv "$VM/venv"
  "$VM/venv/bin/pip" --disable-pip-version-check install --quiet --constraint tools/vm_constraints.txt virtme-ng
  printf '%s\n' "$stamp" >"$VM/venv/.stamp"
fi
flock -u 8

# virtme-ng's own share of the root is not cached by the guest: starting Python takes a minute from it. The second
# share carries the same files, and vm_guest.sh mounts it with a cache.
share="-fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"
share+=" -device virtio-9p-pci,fsdev=host,mount_tag=evener-host"

say "starting $package; the whole takes $LIMIT_S s at most"
begun=$SECONDS
code=0
# Through a pipe, as the emulator opens its output anew: it would empty a file.
PATH=$VM/venv/bin:$PATH timeout --kill-after=10 "$LIMIT_S" \
  vng --run "$VM/$package/boot/vmlinuz-${package#linux-image-}" --force-9p --disable-kvm --cpus 2 --memory 2G \
  --user root --name evener-vm --cwd "$PWD" --qemu-opts="$share" --exec "bash tools/vm_guest.sh ${what[*]@Q}" \
  </dev/null 2>&1 8>&- | sed -u 's/\r//g' || code=$?

verdict=PASS
[[ $code == 0 ]] || verdict="FAIL (exit code $code)"
[[ $code != 124 ]] || verdict="FAIL: not done after $LIMIT_S s (VM_SECONDS)"
say "$package: $verdict in $((SECONDS - begun)) s"
exit "$code"
