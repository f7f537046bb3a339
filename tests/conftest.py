# SPDX-License-Identifier: Apache-2.0
"""Options of the whole suite."""

import os

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


def pytest_unconfigure(config: pytest.Config) -> None:
    """What is left in the project's folder belongs to whoever called sudo."""
    ids = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if hasattr(config, "workerinput") or os.geteuid() != 0 or not all(map(str.isdigit, ids)):
        return
    for folder in (config.rootpath / ".pytest_cache", config.rootpath / ".hypothesis"):
        for path in (folder, *folder.rglob("*")):
            if path.exists():
                os.chown(path, int(ids[0]), int(ids[1]), follow_symlinks=False)
