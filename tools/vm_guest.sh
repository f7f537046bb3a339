#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What vm_test.sh runs inside the emulated machine, as root: modules, a cached view of the host's files, then the tests.
#
#   tools/vm_guest.sh all|load|tests NAME...
set -euo pipefail
project=$PWD
root=/run/host

# A machine for everything has these loaded or loads them by itself; here they come from the unpacked package.
for module in veth bridge tun; do
  modprobe "$module"
done

# The host's files again, read-only, with a cache; in front of them the guest's own kernel and memory.
mkdir -p "$root"
mount -t 9p -o ro,trans=virtio,version=9p2000.L,access=any,msize=512000,cache=loose evener-host "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=1777 tmpfs "$root/var/tmp"

export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 TERM=dumb NO_COLOR=1
exec chroot "$root" /bin/sh -c 'cd "$1" && shift && exec .venv/bin/python -m tools.vm_guest "$@"' sh "$project" "$@"
