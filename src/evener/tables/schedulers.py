# SPDX-License-Identifier: Apache-2.0
"""The schedulers by name. A new one is a file with a `build` function, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from evener.tables import maglev

Build = Callable[[Sequence[maglev.Candidate], int, bytes, maglev.Fill], npt.NDArray[np.uint16]]

SCHEDULERS: dict[str, Build] = {"maglev": maglev.build}
