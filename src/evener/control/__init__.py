# SPDX-License-Identifier: Apache-2.0
"""The one task that changes anything: holds the configuration, compiles, publishes, sweeps."""
