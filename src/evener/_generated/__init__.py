# SPDX-License-Identifier: Apache-2.0
"""Written by the tools in tools/, checked in, never edited: `make generate`."""
