# SPDX-License-Identifier: Apache-2.0
"""hatchling's hook: compile the C parts before a wheel is packed.

The work is done by `evener._build`, which is loaded by its file because the package is not
installed yet. An editable install compiles nothing: there the sources change under it, and
`make build` (or `python -m evener._build`) follows them.
"""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeBuildHook(BuildHookInterface):  # type: ignore[misc, type-arg, unused-ignore]
    """Adds the BPF objects and the native library to the wheel and sets its platform tag."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; `version` is hatchling's build kind ("standard" or "editable")."""
        if version == "editable":
            return
        root = Path(self.root)
        spec = importlib.util.spec_from_file_location(
            "_evener_build", root / "src/evener/_build.py"
        )
        if spec is None or spec.loader is None:
            raise RuntimeError("src/evener/_build.py cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        module.build_all(root, self.app.display_info)
        # The library is called through cffi's ABI mode: any Python 3, but one platform.
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
