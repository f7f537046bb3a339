#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The live tests of the DPDK driver, whose worker is the one under the address and undefined-behaviour sanitizers.
# `make test-asan` calls this.
#
#   tools/asan_live.sh                  all of tests/netns that runs a DPDK worker
#   tools/asan_live.sh tests/… -k …     these, with pytest's own options
#
# The package is copied to build/asan with that worker in place of the usual one; reports go to build/asan/reports. The exit
# code is 0 only if all tests pass and there is no report. What libxdp forgets of its own when a port of net_af_xdp is
# closed (80 bytes, xsk_umem__create) is not asked for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OUT=$PWD/build/asan

.venv/bin/python -m evener._build
.venv/bin/python -m evener._build evener-dpdk-asan
rm -rf "$OUT"
mkdir -p "$OUT/reports"
cp -a src "$OUT/src"
cp "$OUT/src/evener/_native/evener-dpdk-asan" "$OUT/src/evener/_native/evener-dpdk"
echo "leak:xsk_umem__create" > "$OUT/leaks"

[[ $# -gt 0 ]] || set -- tests/netns -k "net_tap or net_af_packet or net_af_xdp or dpdk"
as_root=()
[[ $(id -u) == 0 ]] || as_root=(sudo)
result=0
"${as_root[@]}" env PYTHONPATH="$OUT/src" \
  ASAN_OPTIONS="log_path=$OUT/reports/asan" UBSAN_OPTIONS="print_stacktrace=1:log_path=$OUT/reports/ubsan" \
  LSAN_OPTIONS="suppressions=$OUT/leaks:print_suppressions=0" \
  .venv/bin/python -m pytest -p no:cacheprovider -q "$@" || result=$?
for report in "$OUT"/reports/*; do
  [[ -e $report ]] || continue
  printf 'asan-live: %s\n' "$report" >&2
  cat "$report" >&2
  result=1
done
exit "$result"
