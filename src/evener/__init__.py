# SPDX-License-Identifier: Apache-2.0
"""evener: a layer-4 load balancer for Linux with one C core and a Python control plane."""

__version__ = "0.1.0"
