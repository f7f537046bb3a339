# SPDX-License-Identifier: Apache-2.0
"""The daemon's interface: versioned JSON over HTTP on a Unix socket."""
