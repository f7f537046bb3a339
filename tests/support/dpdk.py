# SPDX-License-Identifier: Apache-2.0
"""For tests of the DPDK driver: they run wherever it can be built."""

from __future__ import annotations

from pathlib import Path

import pytest

from evener import _build

ROOT = Path(__file__).parents[2]


def _lacking() -> str:
    """What this machine has not, of what the worker is built from."""
    try:
        _build.dpdk_target(ROOT)
    except _build.BuildError as error:
        return str(error)
    return ""


needs_dpdk = pytest.mark.skipif(bool(_lacking()), reason=_lacking())
