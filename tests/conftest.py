# SPDX-License-Identifier: Apache-2.0
"""Options of the whole suite."""

import pytest

DATAPATHS = ("sim", "xdp", "dpdk", "dpdk-asan")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--datapath",
        action="append",
        choices=DATAPATHS,
        help="run the datapath suite on this driver only (may be given more than once)",
    )
    parser.addoption(
        "--rewrite-scenarios",
        action="store_true",
        help="write what happened into the scenario files, to be reviewed as a diff",
    )
    parser.addoption(
        "--rewrite-lessons",
        action="store_true",
        help="write what happened into the lessons of docs/tutorial, to be reviewed as a diff",
    )
