# SPDX-License-Identifier: Apache-2.0
"""What a datapath is doing, in the operator's words. Read only.

Everything here is a function of a `Snapshot`: the configuration in force, the ids that its names
have, and the reading half of a datapath. Rows and stories are plain dicts, ready for JSON.
"""

from evener.observe.snapshot import Snapshot

__all__ = ["Snapshot"]
